//! The archives of a set: static-pod resources and certificates, as `tar.gz`.
//!
//! # Format
//!
//! What `tar -cpzf FILE -C /etc/kubernetes static-pod-resources/<component>-pod-<N> …` makes
//! (cluster-etcd-operator, `bindata/etcd/cluster-backup.sh`), so that
//! `tar -C /etc/kubernetes -xzf FILE static-pod-resources` restores it:
//!
//! | part | value |
//! | --- | --- |
//! | compression | one gzip member, nothing after it |
//! | headers | GNU format; a name or link target over 100 bytes in a `L` or `K` record before |
//! | names | relative, no `./`, no `..`; directories end in `/` |
//! | order | the selection's, each directory before what it holds, that by bytes of the name |
//! | owners | numeric; user and group names only for root (0) |
//! | times | modification in whole seconds, as GNU format has them; before 1970 counts as 0 |
//! | types | directories, regular files, symbolic links; hard links become files |
//! | attributes | extended ones as PAX records `SCHILY.xattr.<name>` in an `x` record before; `%` and `=` in a name as `%25` and `%3D`, as GNU tar does |
//! | end | two zero blocks; readers accept more of them (GNU tar pads to 10,240 bytes) |
//!
//! Archives of others are read too: GNU tar's with hard links, and the Go command's, which hold
//! regular files only (cluster-etcd-operator, `pkg/cmd/backuprestore`). Nothing in an archive is
//! trusted: see [`check_archive`], and [`extract_archive`], which checks before it writes.

mod certificates;
mod check;
mod compare;
mod contents;
mod entry;
mod extract;
mod left;
mod links;
mod links_out;
mod names;
mod node;
mod pax;
mod selection;
mod stream;
mod tree;
mod write;

pub use certificates::{Certificate, Certificates, Unreadable};
pub use check::{ArchiveReport, Rules, check_archive};
pub use compare::{Difference, compare_with_tree};
pub use contents::{ArchiveContents, ArchivedRevision, Entry, EntryKind, STATIC_POD_RESOURCES};
pub use extract::{Extracted, extract_archive, extract_to_look};
pub use left::LeftOut;
pub use selection::Selection;
pub use write::{Packing, write_archive, write_packed};

#[cfg(test)]
mod tests;
