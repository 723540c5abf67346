//! The trailer of a streamed snapshot: the last 32 bytes are the SHA-256 of all before them
//! (etcd's `server/etcdserver/api/v3rpc/maintenance.go`), so the digest runs 32 bytes behind.

use sha2::{Digest, Sha256};

/// Length of the trailer in bytes.
pub(super) const TRAILER: usize = 32;

/// A SHA-256.
pub(super) type Sum = [u8; TRAILER];

/// Hashes a file as it flows, all but its last 32 bytes.
#[derive(Default, Clone)]
pub(super) struct Trailing {
    hasher: Sha256,
    tail: Vec<u8>,
    total: u64,
}

/// What stands at the end of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashed {
    /// The file's length in bytes.
    pub(super) total: u64,
    /// Over the whole file.
    pub(super) file: Sum,
    /// Over all but the last 32 bytes; none if there are fewer.
    pub(super) body: Option<Sum>,
    /// The last 32 bytes.
    pub(super) tail: Vec<u8>,
}

impl Trailing {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        if let Some(keep_from) = bytes.len().checked_sub(TRAILER) {
            let (done, tail) = bytes.split_at(keep_from);
            self.hasher.update(&self.tail);
            self.hasher.update(done);
            self.tail.clear();
            self.tail.extend_from_slice(tail);
        } else {
            self.tail.extend_from_slice(bytes);
            let spare = self.tail.len().saturating_sub(TRAILER);
            self.hasher
                .update(self.tail.get(..spare).unwrap_or_default());
            self.tail.drain(..spare);
        }
    }

    pub(super) fn finish(self) -> Hashed {
        // One digest makes both sums: the body's is that before the tail.
        let body = (self.tail.len() == TRAILER).then(|| self.hasher.clone().finalize().into());
        let mut hasher = self.hasher;
        hasher.update(&self.tail);
        Hashed {
            total: self.total,
            file: hasher.finalize().into(),
            body,
            tail: self.tail,
        }
    }
}

impl Hashed {
    /// Whether the last 32 bytes are the digest of all before them.
    pub(super) fn has_trailer(&self) -> bool {
        self.body
            .as_ref()
            .is_some_and(|body| body.as_slice() == self.tail.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_same_in_any_pieces(
            pieces in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..100), 0..8),
        ) {
            let mut trailing = Trailing::default();
            for piece in &pieces {
                trailing.update(piece);
            }
            let whole = pieces.concat();
            let hashed = trailing.finish();
            prop_assert_eq!(hashed.total, whole.len() as u64);
            prop_assert_eq!(hashed.file, Sum::from(Sha256::digest(&whole)));
            let cut = whole.len().saturating_sub(TRAILER);
            prop_assert_eq!(&hashed.tail, &whole[cut..]);
            let body = (whole.len() >= TRAILER).then(|| Sum::from(Sha256::digest(&whole[..cut])));
            prop_assert_eq!(hashed.body, body);
            prop_assert!(!hashed.has_trailer());
        }
    }

    #[test]
    fn the_digest_at_the_end_is_known() {
        let mut trailing = Trailing::default();
        trailing.update(b"database");
        trailing.update(&Sha256::digest(b"database"));
        assert!(trailing.finish().has_trailer());
    }
}
