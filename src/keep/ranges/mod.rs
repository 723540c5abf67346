//! What of the past can be reached: each backup's own history, and the changes recorded after it.

mod chain;
mod continuation;
mod proof;
mod pruning;
mod reachable;

pub use chain::{Chain, chains};
pub use continuation::{Continuation, Recorded, continuation};
pub use proof::{HashKvFound, Proven, prove, prove_newest, unproven};
pub use pruning::{ChangesPlan, Staying, needed, plan, size_of};
pub use reachable::{Gap, GapCause, Range, Reachable, reachable};
