//! Builds a data directory: the parts that a restore of a snapshot ([`restore`](super::restore))
//! and one from a surviving member's disk ([`survivor`](super::survivor)) share.
//!
//! Both copy a database next to its future place, check the copy, amend it, write a WAL and a
//! `.snap` file, make all of it durable, read it again as etcd will, and rename it into place.

mod agree;
mod amended;
mod behind;
mod bump;
mod room;
mod target_dir;
mod watch;

pub use bump::{Bump, Decision, Evidence, HIGHEST, Question, SLACK, decide, decide_at};
pub use target_dir::{HIDDEN, LOST_AND_FOUND};
pub use watch::{Phase, Watch};

pub(super) use agree::{agree, disagreement};
pub(super) use amended::{chosen, write_amendment};
pub(super) use behind::Behind;
pub(super) use room::check_room;
pub(super) use target_dir::TargetDir;
pub(super) use watch::stop_if;
