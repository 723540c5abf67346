//! A join as a transaction: when it may be rolled back, and what it found out.

use serde_json::Value;

use super::info::JoinInfo;
use crate::change::transaction::context::StepContext;
use crate::change::transaction::runner::Journalled;
use crate::change::transaction::steps::NodeStep;
use crate::change::transaction::steps::join::votes;
use crate::change::transaction::unsettled::JOIN;
use crate::error::{Failure, Result};
use crate::etcd::client::Id;
use crate::journal::{Known, Operation};

/// The member votes: refused when a join is planned, and when one is rolled back.
pub const MEMBER_VOTES: &str = "already-voting";

/// A node's member joins its cluster.
#[derive(Debug)]
pub struct Join;

impl Journalled for Join {
    type Info = JoinInfo;
    const KIND: &'static str = JOIN;
    const COMMAND: &'static str = "member-add --join";

    fn rolled_back(_: &Known) -> String {
        "joining failed; the node and the members are as before".to_owned()
    }

    async fn stays(node: &StepContext, operation: &Operation<NodeStep>) -> Option<String> {
        match has_vote(node, operation).await {
            Ok(None) => None,
            Ok(Some(id)) => Some(format!(
                "member {id} is a voting member by now, and is not removed again"
            )),
            Err(why) => Some(format!(
                "left as it is, because no member could say whether the new one votes ({why})"
            )),
        }
    }

    async fn check_rollback(node: &StepContext, operation: &Operation<NodeStep>) -> Result<()> {
        match has_vote(node, operation).await? {
            None => Ok(()),
            Some(id) => {
                let what = format!(
                    "member {id} is a voting member: remove it first, with member-remove {id}"
                );
                Err(Failure::refused_for_good(MEMBER_VOTES, what))
            }
        }
    }
}

/// The id of the member that this operation added, if it votes by now.
async fn has_vote(node: &StepContext, operation: &Operation<NodeStep>) -> Result<Option<Id>> {
    let known = &operation.progress().known;
    match known.field("memberId") {
        Some(_) => votes(node, known).await,
        None => Ok(None),
    }
}

/// What a join found out.
#[derive(Debug, Clone, Default)]
pub struct Joined {
    /// The member's id, in hexadecimal.
    pub member_id: Option<String>,
    /// What it runs.
    pub etcd_version: Option<String>,
    /// The revision at which its HashKV was another member's.
    pub hash_revision: Option<i64>,
}

impl Joined {
    /// What the steps found out.
    pub fn of(known: &Known) -> Self {
        let text = |name: &str| known.field(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            member_id: text("memberId"),
            etcd_version: text("etcdVersion"),
            hash_revision: known.field("hashRevision").and_then(Value::as_i64),
        }
    }
}
