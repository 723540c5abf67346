//! Reading bbolt databases, the files that etcd keeps its data in.
//!
//! The file is a sequence of equal pages: two metas, then branch and leaf pages of B+trees and
//! perhaps a freelist ([`layout`]). [`Metas::read`] judges the metas and chooses one, a
//! [`Walker`] walks the trees and judges every page, [`Walker::finish`] accounts for the rest.
//! [`check`] does it all for a database of any content.
//!
//! A file may be hostile: every size and reference is checked before it is used, no page is
//! followed twice, and memory does not grow with the file, but for one bit a page.
//!
//! The page format: bbolt's `internal/common` (`page.go`, `meta.go`, `bucket.go`) and its
//! `Tx.Check`; go.etcd.io/bbolt.

pub(crate) mod elements;
mod frames;
mod freelist;
pub mod layout;
pub mod meta;
mod pageset;
mod single;
mod sink;
pub mod source;
pub mod visit;
pub mod walk;
mod window;
pub mod write;

use std::io;

pub(crate) use elements::Item;
pub use freelist::Usage;
pub use meta::{Meta, Metas, Origin};
pub(crate) use single::{leaf_again, single_leaf, used_branch};
pub use source::{FileSource, ReadAt};
pub use visit::{Entry, Known, Large, Leaf, Nested, Order, Root, ShortKey, Visitor};
pub use walk::Walker;

use crate::finding::Findings;

/// Checks a whole database of any content: `data` is its length without a trailer. Nothing comes
/// back when no meta is valid.
pub fn check(
    source: &dyn ReadAt,
    data: u64,
    origin: Origin,
    findings: &mut Findings,
) -> io::Result<Option<Usage>> {
    let Some(metas) = Metas::read(source, data, origin, findings)? else {
        return Ok(None);
    };
    let meta = metas.chosen;
    let mut walker = Walker::new(source, data, &meta, &|_| {});
    walker.walk(
        Root::Page(meta.root),
        Order::Ascending,
        Nested::Check,
        &mut visit::Unseen,
        findings,
    )?;
    walker.finish(&meta, findings).map(Some)
}
