//! Names that `--allow` takes.

use super::config;
use crate::error::{Fact, Failure, Kind, Result};

/// Refuses every name that is not among `allowable`.
///
/// # Errors
/// [`Kind::Usage`], with the nearest name and with all of them as [`Fact::Candidates`].
pub(super) fn check(names: &[String], allowable: &[&str]) -> Result<Vec<String>> {
    check_as("--allow value", names, allowable)
}

/// The same, where the names are called something else.
pub(super) fn check_as(what: &str, names: &[String], allowable: &[&str]) -> Result<Vec<String>> {
    for name in names {
        if allowable.contains(&name.as_str()) {
            continue;
        }
        let near = config::nearest(name, allowable);
        let near = near.map(|near| format!("; did you mean {near:?}?"));
        let what = format!("unknown {what} {name:?}{}", near.unwrap_or_default());
        let known = allowable.iter().map(|&name| name.to_owned()).collect();
        return Err(Failure::new(Kind::Usage, what).with(Fact::Candidates(known)));
    }
    Ok(names.to_vec())
}
