//! Files that arguments or the configuration name.

use std::path::Path;

use crate::error::{Doing, Failure, Kind, Result};
use crate::sys::small::read_given;

/// The largest file of certificates, recipients, identities or signers that is read.
const MAX_BYTES: u64 = 1 << 20;

/// A text file that was named.
pub(super) fn file(path: &Path) -> Result<String> {
    let bytes = read_given(path, MAX_BYTES).map_err(|failure| failure.as_kind(Kind::Usage))?;
    let Some(bytes) = bytes else {
        let what = format!("reading {}: there is no such file", path.display());
        return Err(Failure::new(Kind::Usage, what));
    };
    String::from_utf8(bytes).doing(Kind::Usage, || format!("reading {}", path.display()))
}
