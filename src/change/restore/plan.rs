//! The plan of a restore before it is begun.

use super::journalled::Restore;
use crate::change::transaction::runner::Plan;
use crate::error::{Failure, Result};

/// The note on the rollback in every plan.
pub(super) const WAY_BACK: &str = "rollback: until etcd serves the restored data, the present data comes back byte for byte; after that, with its revision bumped above all that was served, so that clients re-list";

/// A plan, and what the operator must know of it.
#[derive(Debug)]
pub struct RestorePlan {
    /// What is carried out.
    pub plan: Plan<Restore>,
    /// What was decided and why, as sentences.
    pub notes: Vec<String>,
    /// Why the operation would be refused, if the plan is only shown.
    pub refused: Option<Failure>,
}

impl RestorePlan {
    /// Combines a plan that is only shown with its refusal. If there is no plan, the refusal is the
    /// failure: it explains more.
    pub(super) fn unless_refused(plan: Result<Self>, refused: Option<Failure>) -> Result<Self> {
        match (refused, plan) {
            (None, plan) => plan,
            (refused, Ok(plan)) => Ok(Self { refused, ..plan }),
            (Some(refused), Err(_)) => Err(refused),
        }
    }
}
