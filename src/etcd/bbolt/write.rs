//! Writing bbolt databases: a few changes to a copy, or a full rewrite.
//!
//! [`amend`] leaves every page of the database where it is and as it is. It makes the pages that
//! differ again, behind the last page, and the two metas that lead to them: the whole change takes
//! effect with the metas. What the old pages leave is free, since no freelist is stored. That costs
//! next to nothing beyond the copy, and keeps what free pages hold.
//!
//! [`rewrite`] writes all buckets in order into fresh pages, as a defragmentation does: nothing
//! but live entries is left. [`WrittenCheck`] judges those pages in the order of the file.
//!
//! Invariants of both: a page's id is its place, the tree's root and all children are below the
//! high-water mark, elements ascend, the file ends at the high-water mark, and both metas are
//! valid and lead to the same tree, so that a write torn later leaves one of them. The meta of
//! transaction *t* is in page *t* mod 2, as bbolt puts it (bbolt, `internal/common/meta.go`).

mod amend;
mod changes;
mod cut;
mod digest;
mod edge;
mod input;
mod pages;
mod rewrite;
mod tree;
mod written;

pub use amend::{Amendment, amend};
pub use changes::{Change, Changes, Edit, meta_pages};
pub use digest::{Digest, digests, digests_left, root_bucket, small_bucket};
pub use input::Input;
pub use rewrite::{Rewriting, rewrite};
pub use written::WrittenCheck;
