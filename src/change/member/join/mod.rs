//! `member-add --join` on the node that joins: one transaction with a way back.
//!
//! [`plan::plan`] looks at the node and the cluster, refuses what must be refused and plans the steps;
//! [`Join`](journalled::Join) is what the runner carries out.
//!
//! There is no way back once the member votes: taken out of a cluster that counts on it, it could
//! cost the quorum. `member-remove` weighs that; after it the way back is open again.

pub mod info;
pub mod journalled;
pub mod plan;
mod planner;
