//! Sets in stores away from the node.
//!
//! ```text
//! <cluster>/<node>/backup-12/
//!   claim-1f0c….json      first: whose folder it is
//!   snapshot_….db         the set's files, as they are or compressed and encrypted
//!   snapshot_….db.done    what was learnt when that object arrived; gone once the set is there
//!   remote.json           the objects, their sizes and hashes as stored
//!   backup.json           the Manifest, as it is; last: with it the set is there
//! <cluster>/<node>/changes/…                       recorded changes
//! <cluster>/<node>/catalog-00000000.json.zst       a cache of the small objects of all its sets
//! ```
//!
//! A transfer that is cut leaves a folder without a Manifest, which is never a backup; the next one
//! continues with the objects that did not arrive. Two who copy the same set at once put the same
//! bytes under the same names, or, encrypted, under names of their own; either one's index is whole.
//! A folder that another set claims is left alone, and the next number is taken.

mod catalog;
mod changes;
mod fetch;
mod folder;
mod form;
mod header;
mod index;
mod kept;
mod place;
mod prune;
mod recordings;
mod records;
mod upload;

/// What the fuzz targets call: parsers of what a store holds.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use crate::backup::Manifest;

    /// Reads any bytes as an age file, as far as that goes without an identity.
    pub fn age_file(data: &[u8]) {
        if let Ok(bounded) = super::header::bounded(data) {
            // An error is as good as a result; only a panic is a fault.
            let _ = age::Decryptor::new_buffered(bounded);
        }
    }

    /// Reads any bytes as the catalog of a node's folder.
    pub use super::kept::fuzzed as catalog;

    /// Reads any bytes as the index of a set.
    pub fn index(data: &[u8], manifest: &Manifest, sha256: &str) {
        if let Ok(index) = super::Index::parse(data, manifest, sha256) {
            assert_eq!(index.objects.len(), manifest.files.len());
        }
    }
}

pub use catalog::{Seen, foreign_of, list, list_recorded, look, resolve};
pub use changes::{Place as ChangePlace, bring_changes, list_changes, put_change};
pub use fetch::{Part, fetch, import, record};
pub use form::{Form, Identities};
pub use index::{Claim, Index, ObjectEntry};
pub use place::{INDEX, Place};
pub use prune::{plan_prune, prune, prune_beside};
pub use recordings::Recordings;
pub use records::chains;
pub use upload::{Copied, copy_backup};
