//! The plan of a restore before it is begun.

use super::info::RestoreInfo;
use super::journalled::Restore;
use crate::change::transaction::runner::Plan;
use crate::change::transaction::steps::NodeStep;
use crate::error::{Failure, Result};

/// What a plan says of its rollback.
pub(super) const WAY_BACK: &str = "rollback: until etcd serves the restored data, the present data comes back byte for byte; after that, with its revision bumped above all that was served, so that clients re-list";

/// A plan before it is begun.
#[derive(Debug)]
pub struct RestorePlan {
    /// The operation's name.
    pub id: String,
    /// What the journal keeps.
    pub info: RestoreInfo,
    /// The steps.
    pub steps: Vec<NodeStep>,
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

impl Plan for RestorePlan {
    type Change = Restore;

    fn id(&self) -> &str {
        &self.id
    }

    fn info(&self) -> &RestoreInfo {
        &self.info
    }

    fn steps(&self) -> &[NodeStep] {
        &self.steps
    }
}
