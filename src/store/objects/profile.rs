//! AWS's shared credentials file: the named profile's keys, where no variable gives them.
//!
//! The form is that of the AWS tools' documentation: sections `[name]`, lines `key = value`, `#` and
//! `;` begin a comment.

use std::path::PathBuf;

use super::Settings;
use crate::error::{Doing, Kind, Result};

/// The keys of a profile, by the names that the variables have.
pub(super) fn keys(settings: &Settings) -> Result<Vec<(&'static str, String)>> {
    let named = settings
        .get("AWS_SHARED_CREDENTIALS_FILE")
        .map(PathBuf::from);
    let own = || Some(settings.home.as_ref()?.join(".aws/credentials"));
    let Some(path) = named.clone().or_else(own) else {
        return Ok(Vec::new());
    };
    let text = match std::fs::read_to_string(&path) {
        Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        read => read.doing(Kind::Usage, || format!("reading {}", path.display()))?,
    };
    let profile = settings.get("AWS_PROFILE").unwrap_or("default");
    Ok(section(&text, profile))
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
    fn the_named_profile_is_taken_and_no_other() {
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
