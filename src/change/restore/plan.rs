//! The plan of a restore before it is begun.

use super::journalled::Restore;
use crate::change::transaction::runner::Plan;
use crate::error::{Failure, Result};

/// What a plan says of its rollback.
pub(super) const WAY_BACK: &str = "rollback: until etcd serves the restored data, the present data comes back byte for byte; after that, with its revision bumped above all that was served, so that clients re-list";

/// A plan, and what people must know of it.
#[derive(Debug)]
pub struct RestorePlan {
    /// What is carried out.
    pub plan: Plan<Restore>,
    /// What was decided and why, for people.
    pub notes: Vec<String>,
    /// What the operation itself is refused for, where the plan is only shown.
    pub refused: Option<Failure>,
}

impl RestorePlan {
    /// What comes of a plan and of what was found against it: a refusal ends a real run, and comes with
    /// the plan where that is only shown.
    pub(super) fn unless_refused(plan: Result<Self>, refused: Option<Failure>) -> Result<Self> {
        match (refused, plan) {
            (None, plan) => plan,
            (refused, Ok(plan)) => Ok(Self { refused, ..plan }),
            (Some(refused), Err(_)) => Err(refused),
        }
    }
}
