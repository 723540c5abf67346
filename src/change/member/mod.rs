//! Members: add, remove and move them without losing quorum.
//!
//! Each operation surveys the cluster, judges the change by the arithmetic of votes, asks etcd for
//! it, and waits until its effect is visible. etcd makes its own checks, too; its refusals get
//! names as well.

pub mod add;
pub(crate) mod catchup;
pub mod join;
pub mod openshift;
pub mod remove;
pub mod start;
pub mod update;

use crate::context::Context;
use crate::error::{Fact, Failure, Result};
use crate::event::Event;
use crate::node::detection::Detection;

/// A voting member does not answer, sees no leader or reports an error, or an alarm is raised.
pub const UNHEALTHY_CLUSTER: &str = "unhealthy-cluster";
/// A member has the name.
pub const NAME_TAKEN: &str = "name-taken";
/// A member has the peer URL.
pub const PEER_URL_TAKEN: &str = "peer-url-taken";
/// A member has peer URLs at `localhost` only, where other machines find themselves.
pub const PEER_URL_LOOPBACK: &str = "peer-url-loopback";
/// etcd takes no further learner.
pub const TOO_MANY_LEARNERS: &str = "too-many-learners";
/// A member is older than 3.4, which brought learners.
pub const LEARNERS_UNSUPPORTED: &str = "learners-unsupported";
/// No other member can lead.
pub const LEADER_CANNOT_MOVE: &str = "leader-cannot-move";
/// Pacemaker owns etcd on this node.
pub const TWO_NODE_FENCING: &str = "two-node-fencing";

/// Every name that can be allowed.
pub const ALLOWABLE: [&str; 5] = [
    UNHEALTHY_CLUSTER,
    crate::cluster::quorum::WOULD_LOSE_QUORUM,
    LEADER_CANNOT_MOVE,
    PEER_URL_LOOPBACK,
    TWO_NODE_FENCING,
];

/// Turns a refusal that is allowed by its name into a warning.
fn unless_allowed(context: &Context, allow: &[String], refusal: Failure) -> Result<()> {
    let allowable = |fact: &Fact| match fact {
        Fact::Refusal {
            name,
            allowable: true,
        } if allow.iter().any(|allowed| allowed == name) => Some(*name),
        _ => None,
    };
    match refusal.facts().iter().find_map(allowable) {
        Some(name) => {
            context.warn(name, format!("{refusal}; allowed"));
            Ok(())
        }
        None => Err(refusal),
    }
}

/// On two nodes with fencing Pacemaker adds and removes members itself.
fn refuse_fencing(context: &Context, allow: &[String], detection: &Detection) -> Result<()> {
    let Some(sign) = detection.two_node_fencing.first() else {
        return Ok(());
    };
    let why = format!(
        "this is a control plane of two nodes with fencing ({sign}): Pacemaker owns etcd and its \
         members"
    );
    unless_allowed(context, allow, Failure::refused(TWO_NODE_FENCING, why))
}

/// Says what a wait is at.
fn tell(context: &Context, phase: &'static str, message: String) {
    context.tell(Event::PhaseStatus { phase, message });
}
