//! Values in place.

use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::ReadAt;

/// Where a value is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueAt {
    /// Offset of its first byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

/// Reads a value.
///
/// # Errors
/// [`Kind::NotChecked`] if the file cannot be read.
pub fn read_value(source: &dyn ReadAt, at: ValueAt) -> Result<Vec<u8>> {
    let mut value = vec![0; at.len as usize];
    let read = source.read_exact_at(&mut value, at.offset);
    read.doing(Kind::NotChecked, || "reading the database")?;
    Ok(value)
}
