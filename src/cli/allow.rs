//! Names that `--allow` takes.

use super::config;
use crate::error::{Failure, Kind, Result};

/// Refuses every name that is not among `allowable`.
pub(super) fn check(names: &[String], allowable: &[&str]) -> Result<Vec<String>> {
    for name in names {
        if !allowable.contains(&name.as_str()) {
            let known = match config::nearest(name, allowable) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("those are {}", allowable.join(", ")),
            };
            let what = format!("unknown --allow value {name:?}; {known}");
            return Err(Failure::new(Kind::Usage, what));
        }
    }
    Ok(names.to_vec())
}
