//! The names of objects.

use crate::error::{Failure, Kind, Result};

/// Fails for a name that no store takes: what is made of it is a path.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
    };
    if name.split('/').all(part) {
        return Ok(());
    }
    let what = format!("naming an object: {name:?} is not a valid name in this store");
    Err(Failure::new(Kind::Store, what))
}
