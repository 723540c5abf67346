//! The frames between a segment's header and its hash, as they are written.
//!
//! | kind (u8) | then |
//! | --- | --- |
//! | 1, record | u32 length of the key, u32 length of the value, key, value: an entry of the bucket `key` |
//! | 2, time | i64: milliseconds since 1970 at which the records after it arrived |
//! | 3, lease | i64 id, i64 granted time to live in seconds; behind all records |
//!
//! Numbers are little-endian.

use sha2::{Digest, Sha256};

use super::header::{Header, MAGIC};
use crate::error::{Doing, Failure, Kind, Result};

pub(super) const RECORD: u8 = 1;
pub(super) const TIME: u8 = 2;
pub(super) const LEASE: u8 = 3;

/// Frames in the making.
#[derive(Debug, Clone, Default)]
pub struct Body {
    bytes: Vec<u8>,
}

impl Body {
    /// Adds an entry of the bucket `key`.
    pub fn record(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.push(RECORD);
        for part in [key, value] {
            // etcd's requests are far below 4 GiB; what is cut here fails when it is read.
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.bytes.extend_from_slice(&length.to_le_bytes());
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// Adds the time at which the records after it arrived, in milliseconds since 1970.
    pub fn time(&mut self, millis: i64) {
        self.bytes.push(TIME);
        self.bytes.extend_from_slice(&millis.to_le_bytes());
    }

    /// Adds a lease and its granted time to live, in seconds.
    pub fn lease(&mut self, id: i64, ttl: i64) {
        self.bytes.push(LEASE);
        self.bytes.extend_from_slice(&id.to_le_bytes());
        self.bytes.extend_from_slice(&ttl.to_le_bytes());
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The whole file, and its hash.
    ///
    /// # Errors
    /// [`Kind::Unexpected`] for a header that cannot be written.
    pub fn seal(&self, header: &Header) -> Result<(Vec<u8>, [u8; 32])> {
        let header =
            serde_json::to_vec(header).doing(Kind::Unexpected, || "writing a segment's header")?;
        let length = u32::try_from(header.len())
            .map_err(|_| Failure::new(Kind::Unexpected, "a segment's header is too long"))?;
        let mut file = Vec::with_capacity(MAGIC.len() + 4 + header.len() + self.bytes.len() + 32);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&length.to_le_bytes());
        file.extend_from_slice(&header);
        file.extend_from_slice(&self.bytes);
        let hash: [u8; 32] = Sha256::digest(&file).into();
        file.extend_from_slice(&hash);
        Ok((file, hash))
    }
}
