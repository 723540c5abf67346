//! The 32 bytes of SHA-256 that a streamed snapshot ends with, and what precedes them.
//!
//! A database is whole pages, a power of two of at least 1024 bytes each; a snapshot is that and
//! 32 bytes more. So the length modulo 512 tells whether there is a trailer: etcd's own rule
//! (`etcdutl snapshot restore`).

use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::etcd::bbolt::ReadAt;

/// Bytes of the trailer.
pub const TRAILER: u64 = 32;

/// What the file's length says about a trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Whole pages and 32 bytes.
    Sealed,
    /// Whole pages.
    Unsealed,
    /// Neither: the file was cut or added to.
    Odd,
}

impl Shape {
    /// Judges a length.
    pub fn of(size: u64) -> Self {
        match size % 512 {
            32 => Self::Sealed,
            0 => Self::Unsealed,
            _ => Self::Odd,
        }
    }

    /// Bytes of the database in a file of this size.
    pub fn data(self, size: u64) -> u64 {
        match self {
            Self::Sealed => size.saturating_sub(TRAILER),
            Self::Unsealed | Self::Odd => size,
        }
    }
}

/// The state of a snapshot's trailer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Trailer {
    /// It is the SHA-256 of everything before it.
    Ok {
        /// In hexadecimal.
        sha256: String,
    },
    /// It is not.
    Mismatch {
        /// What stands there.
        expected: String,
        /// What was computed.
        found: String,
    },
    /// No trailer: a copy of a database's own file, or a snapshot that was never sealed. No
    /// corruption by itself.
    Unsealed,
    /// The length fits neither: the file was cut or added to.
    Odd {
        /// The file's length.
        size: u64,
    },
    /// It was not looked at.
    NotChecked,
}

/// What reading a whole file gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) trailer: Trailer,
    /// SHA-256 of the whole file, trailer included.
    pub(super) file: [u8; 32],
    /// The first byte after the database, before the trailer, that is not zero.
    pub(super) stray: Option<u64>,
}

/// Hashes a file, piece by piece from its beginning.
pub(super) struct Hashing {
    size: u64,
    /// Where the database ends, if that is known.
    database: Option<u64>,
    hasher: Sha256,
    /// Bytes taken.
    at: u64,
    stray: Option<u64>,
}

impl Hashing {
    /// Of a file of this size, whose database ends where `database` says.
    pub(super) fn new(size: u64, database: Option<u64>) -> Self {
        Self {
            size,
            database,
            hasher: Sha256::new(),
            at: 0,
            stray: None,
        }
    }

    /// Takes the next bytes of what precedes the trailer.
    pub(super) fn take(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        let (at, len) = (self.at, piece.len() as u64);
        if self.stray.is_none()
            && let Some(end) = self.database
            && at + len > end
        {
            let skip = end.saturating_sub(at);
            let after = piece.get(skip as usize..).unwrap_or_default();
            let stray = after.iter().position(|b| *b != 0);
            self.stray = stray.map(|i| at + skip + i as u64);
        }
        self.at += len;
    }

    /// Reads the trailer, if the file has one.
    pub(super) fn end(mut self, source: &dyn ReadAt) -> io::Result<Digests> {
        let shape = Shape::of(self.size);
        let body: [u8; 32] = self.hasher.clone().finalize().into();
        let trailer = match shape {
            Shape::Sealed => {
                let mut stored = [0; TRAILER as usize];
                source.read_exact_at(&mut stored, shape.data(self.size))?;
                self.hasher.update(stored);
                judge(&stored, &body)
            }
            Shape::Unsealed => Trailer::Unsealed,
            Shape::Odd => Trailer::Odd { size: self.size },
        };
        Ok(Digests {
            trailer,
            file: self.hasher.finalize().into(),
            stray: self.stray,
        })
    }
}

fn judge(stored: &[u8; 32], computed: &[u8; 32]) -> Trailer {
    if stored == computed {
        Trailer::Ok {
            sha256: hex::encode(computed),
        }
    } else {
        Trailer::Mismatch {
            expected: hex::encode(stored),
            found: hex::encode(computed),
        }
    }
}
