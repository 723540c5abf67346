//! `member-add --join` on the node that joins: one transaction that can be rolled back.
//!
//! [`plan::plan`] looks at the node and the cluster, refuses what must be refused and plans the steps;
//! [`Join`](journalled::Join) is what the runner carries out.
//!
//! Once the member votes, a rollback is refused: to remove it could cost the quorum.
//! `member-remove` judges that; after it, the rollback is possible again.

pub mod info;
pub mod journalled;
pub mod plan;
mod planner;
