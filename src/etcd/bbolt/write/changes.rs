//! Changes of a database: its buckets' entries, and the metas that lead to them.

use std::collections::{BTreeMap, BTreeSet};

use crate::etcd::bbolt::layout::{META_PAGE, NO_FREELIST};
use crate::etcd::bbolt::meta::{Meta, encode_meta};

/// The change of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Entries are set and removed. The bucket is held in memory, so it must be a small one.
    Edit(Edit),
    /// One entry comes behind the last one.
    Append {
        /// Its key, above all others.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Several entries come behind the last one, ascending.
    Extend(Vec<(Vec<u8>, Vec<u8>)>),
    /// The entries from a key on go, and others, ascending, come behind what is left.
    Cut {
        /// The first key that goes, whether there is such an entry or not.
        from: Vec<u8>,
        /// What comes behind; not below `from`.
        then: Vec<(Vec<u8>, Vec<u8>)>,
    },
}

impl Change {
    /// The entries that come behind the last one.
    pub(super) fn behind(&self) -> Vec<(&[u8], &[u8])> {
        match self {
            Self::Edit(_) => Vec::new(),
            Self::Append { key, value } => vec![(key, value)],
            Self::Extend(entries) | Self::Cut { then: entries, .. } => entries
                .iter()
                .map(|(key, value)| (key.as_slice(), value.as_slice()))
                .collect(),
        }
    }

    /// Whether all entries that are there stay as they are.
    pub(super) fn only_adds(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Extend(_))
    }

    /// Whether an entry that is there stays.
    pub(super) fn keeps(&self, key: &[u8]) -> bool {
        match self {
            Self::Cut { from, .. } => key < from.as_slice(),
            Self::Edit(_) | Self::Append { .. } | Self::Extend(_) => true,
        }
    }
}

/// Entries to set and to remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// Whether all entries go first.
    pub clear: bool,
    /// Entries to remove, there or not.
    pub remove: BTreeSet<Vec<u8>>,
    /// Entries to set.
    pub put: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Changes by the name of the top-level bucket, which is made if it is not there.
pub type Changes = BTreeMap<Vec<u8>, Change>;

/// The two metas of a database without a stored freelist, page 0 first.
pub fn meta_pages(meta: &Meta) -> [[u8; META_PAGE]; 2] {
    let newer = meta.txid;
    [0, 1].map(|page| {
        let txid = if newer % 2 == page {
            newer
        } else {
            newer.saturating_sub(1)
        };
        encode_meta(page, &Meta { txid, ..*meta })
    })
}

/// The meta that follows another one.
pub(super) fn next_meta(meta: &Meta, root: u64, high_water: u64) -> Meta {
    // Both metas are written, so that any number will do; one that is about to overflow will not.
    let txid = meta.txid.checked_add(1).filter(|t| *t < u64::MAX / 2);
    Meta {
        root,
        high_water,
        freelist: NO_FREELIST,
        txid: txid.unwrap_or(2),
        ..*meta
    }
}
