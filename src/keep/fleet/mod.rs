//! Many clusters at a glance: for each node its newest good backup, in whichever store it is, and whether that
//! is recent. What is read of a store is what `list` reads of it.

mod expect;
mod lines;
mod look;
mod recorded;

pub use expect::{Expected, parse as parse_expected};
pub use lines::{Counts, Fleet, Line, Newest, Point, Proof, Rules, State};
pub use look::{Gap, look};
pub use recorded::{Missing, Recorded};
