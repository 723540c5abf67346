//! A restore as a transaction: when it may be resumed or rolled back, and what it found out.

use jiff::SignedDuration;
use serde_json::Value;

use super::identity;
use super::info::RestoreInfo;
use super::others::{Circle, Own, patiently};
use crate::change::transaction::context::StepContext;
use crate::change::transaction::rollback::{self, Returned};
use crate::change::transaction::runner::Journalled;
use crate::change::transaction::steps::NodeStep;
use crate::change::transaction::unsettled::RESTORE;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::Consistency;
use crate::journal::{Known, Operation, State, StepState};

/// A plan that is no older was made just after the other members were asked.
const JUST_BEGUN: SignedDuration = SignedDuration::from_secs(60);

/// A restore from a backup or from a member's own data directory.
#[derive(Debug)]
pub struct Restore;

impl Journalled for Restore {
    type Info = RestoreInfo;
    const KIND: &'static str = RESTORE;
    const COMMAND: &'static str = "restore";

    fn rolled_back(known: &Known) -> String {
        format!("restoring failed, and {}", Returned::of(known).sentence())
    }

    async fn check_resume(
        node: &StepContext,
        info: &RestoreInfo,
        operation: &Operation<NodeStep>,
    ) -> Result<()> {
        refuse_beside_others(node, info, operation).await
    }

    async fn check_rollback(node: &StepContext, operation: &Operation<NodeStep>) -> Result<()> {
        let progress = operation.progress();
        if progress.state != State::Completed {
            return Ok(());
        }
        refuse_if_joined(node).await?;
        let aside = operation.steps().iter().find_map(|step| match step {
            NodeStep::SetDataAside {
                data_dir, aside, ..
            } => Some((node.host(data_dir), node.host(aside))),
            _ => None,
        });
        match aside {
            Some((data_dir, aside)) => {
                rollback::prepare(node, &data_dir, &aside, &progress.known).await
            }
            None => Ok(()),
        }
    }
}

/// What is true of etcd after a restore.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The new cluster's id, in hexadecimal.
    pub cluster_id: Option<String>,
    /// The member's id, in hexadecimal.
    pub member_id: Option<String>,
    /// The revision that clients see first.
    pub revision: Option<i64>,
    /// The snapshot's own.
    pub snapshot_revision: Option<i64>,
    /// Keys at the restored revision.
    pub keys: Option<u64>,
    /// What etcd runs.
    pub etcd_version: Option<String>,
}

impl Facts {
    /// What the steps found out.
    pub fn of(known: &Known) -> Self {
        let text = |name: &str| known.field(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| known.field(name).and_then(Value::as_i64);
        Self {
            cluster_id: text("clusterId"),
            member_id: text("memberId"),
            revision: number("revision"),
            snapshot_revision: number("snapshotRevision"),
            keys: known.field("keys").and_then(Value::as_u64),
            etcd_version: text("etcdVersion"),
        }
    }
}

/// Refuses to resume if other members have been started since: next to them, the restored member
/// would be a second cluster. A plan that was just made needs no second look.
///
/// # Errors
/// [`Kind::Refused`], after which only a rollback is left.
async fn refuse_beside_others(
    node: &StepContext,
    info: &RestoreInfo,
    operation: &Operation<NodeStep>,
) -> Result<()> {
    let progress = operation.progress();
    let starts = |step: &NodeStep| matches!(step, NodeStep::StartPods { .. });
    let first = operation.steps().iter().position(starts);
    let started = first.and_then(|at| progress.steps.get(at));
    let fresh = node.context.now.duration_since(progress.last) < JUST_BEGUN;
    // Once etcd was started, the second cluster exists, and a refusal changes nothing.
    if fresh || started.is_some_and(|state| *state != StepState::Pending) {
        return Ok(());
    }
    let circle = Circle {
        members: info.others.clone(),
        own: Own {
            name: info.etcd.member.clone(),
            ..Own::default()
        },
        ..Circle::default()
    };
    if circle.members.is_empty() {
        return Ok(());
    }
    let options = node.options().ok().map(patiently);
    let asking = async { Ok(circle.ask(options.as_ref()).await) };
    let found = node.context.cancel.guard(asking).await?;
    let refusals =
        found.refusals("they were started after this restore began; stop them, or roll it back");
    let refused = identity::refused(refusals, &found.names);
    refused.map_or(Ok(()), |failure| Err(failure.firmly()))
}

/// Refuses to roll back if other members have joined: they would be left without their cluster.
async fn refuse_if_joined(node: &StepContext) -> Result<()> {
    let listed = async {
        let connection = node.etcd().await?;
        connection.member_list(Consistency::Local).await
    };
    let members = match listed.await {
        Ok(list) => list.members,
        // A restored etcd that does not answer is a reason to roll back.
        Err(failure) if failure.kind() == Kind::Unreachable => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let others: Vec<String> = members
        .iter()
        .filter(|member| member.name != node.facts.etcd.member)
        .map(|member| member.label())
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let what = format!(
        "other members have joined the restored cluster: {}",
        others.join(", ")
    );
    Err(Failure::refused_for_good("members-joined", what))
}
