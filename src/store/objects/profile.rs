//! AWS's shared credentials file: the named profile's keys, where no variable gives them.
//!
//! The form is that of the AWS tools' documentation: sections `[name]`, lines `key = value`, `#` and
//! `;` begin a comment.

use std::path::PathBuf;

use super::Settings;
use crate::error::{Failure, Kind, Result};
use crate::sys::small::read_given;

/// The largest such file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What was found, and where it was looked for.
pub(super) struct Found {
    /// The keys of the profile, by the names that the variables have.
    pub(super) keys: Vec<(&'static str, String)>,
    /// Why there are no keys.
    pub(super) looked_at: String,
}

/// The keys of the profile that the settings name.
///
/// # Errors
/// [`Kind::Usage`] if a file or a profile is named and is not there.
pub(super) fn keys(settings: &Settings) -> Result<Found> {
    let none = |looked_at: String| {
        let keys = Vec::new();
        Ok(Found { keys, looked_at })
    };
    let named = settings.get("AWS_SHARED_CREDENTIALS_FILE");
    let named = named.map(PathBuf::from);
    let own = || Some(settings.home.as_ref()?.join(".aws/credentials"));
    let Some(path) = named.clone().or_else(own) else {
        let why = "AWS_SHARED_CREDENTIALS_FILE is not set, and this user has no home directory";
        return none(why.to_owned());
    };
    let profile = settings.get("AWS_PROFILE");
    let missing = |what: &str| {
        let what = format!(
            "finding AWS profile {:?}: {what}",
            profile.unwrap_or_default()
        );
        Failure::new(Kind::Usage, what)
    };
    let bytes = match read_given(&path, MAX_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) if named.is_none() && profile.is_none() => {
            return none(format!("there is no {}", path.display()));
        }
        Ok(None) if named.is_none() => {
            return Err(missing(&format!("there is no {}", path.display())));
        }
        Ok(None) => {
            let what = format!("reading {}: there is no such file", path.display());
            return Err(Failure::new(Kind::Usage, what));
        }
        Err(failure) => return Err(failure.as_kind(Kind::Usage)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let keys = section(&text, profile.unwrap_or("default"));
    if keys.is_empty() && profile.is_some() {
        return Err(missing(&format!(
            "{} has no keys for it; it has {}",
            path.display(),
            names(&text)
        )));
    }
    let looked_at = format!("and {} has no profile \"default\"", path.display());
    Ok(Found { keys, looked_at })
}

/// The profiles of a file, to choose from.
fn names(text: &str) -> String {
    let headings = text.lines().map(str::trim);
    let names: Vec<&str> = headings
        .filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'))
        .map(str::trim)
        .collect();
    match names.is_empty() {
        true => "no profile at all".to_owned(),
        false => names.join(", "),
    }
}

fn section(text: &str, profile: &str) -> Vec<(&'static str, String)> {
    const KEYS: [(&str, &str); 3] = [
        ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("aws_session_token", "AWS_SESSION_TOKEN"),
    ];
    let mut within = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            within = name.trim() == profile;
        } else if let (true, Some((key, value))) = (within, line.split_once('=')) {
            let known = KEYS.iter().find(|(name, _)| *name == key.trim());
            found.extend(known.map(|(_, variable)| (*variable, value.trim().to_owned())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_profile_is_used() {
        let text = "[default]\naws_access_key_id=A\n\n[ops]\n# x\naws_access_key_id = B\naws_secret_access_key = c=d\nregion = x\n";
        assert_eq!(
            section(text, "default"),
            [("AWS_ACCESS_KEY_ID", "A".to_owned())]
        );
        let ops = section(text, "ops");
        assert_eq!(ops[1], ("AWS_SECRET_ACCESS_KEY", "c=d".to_owned()));
        assert!(section(text, "none").is_empty());
    }
}
