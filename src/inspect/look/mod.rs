//! Looking inside a database: its objects, by kind, namespace and name.
//!
//! Nothing is unpacked or started. The keys are found in one pass over the database, and only the values that are asked
//! for are read and decoded ([`crate::etcd::keyspace`], [`crate::objects`]).

mod diff;
mod history;
pub mod live;
mod loss;
mod overview;
mod reader;
mod select;
mod source;

pub use diff::{Counts, Difference, Differing, Rules, Summary, diff};
pub use history::{Change, ChangeKind, History, history};
pub use loss::{Loss, Names};
pub use overview::{Cell, KindRow, Overview, overview};
pub use reader::{Found, Opened, Reader};
pub use select::{Selection, Words};
pub use source::Source;
