//! What remains to do on OpenShift after a member is removed: its secrets, its node, its machine.
//!
//! The order is that of "Replacing an unhealthy etcd member" in the OpenShift documentation. The
//! etcd operator's quorum guard blocks rollouts while it sees too few members; it is turned off for
//! that time.

use serde::Serialize;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NextStep {
    /// What it is for.
    pub what: String,
    /// The command.
    pub command: String,
}

/// What remains once the member of a node is removed; on OpenShift a member has its node's name.
pub fn after_removal(node: &str) -> Vec<NextStep> {
    let step = |what: &str, command: String| NextStep {
        what: what.to_owned(),
        command,
    };
    let secrets: Vec<String> = ["peer", "serving", "serving-metrics"]
        .iter()
        .map(|kind| format!("etcd-{kind}-{node}"))
        .collect();
    vec![
        step(
            "turn the quorum guard off",
            "oc patch etcd/cluster --type=merge -p '{\"spec\": {\"unsupportedConfigOverrides\": \
             {\"useUnsupportedUnsafeNonHANonProductionUnstableEtcd\": true}}}'"
                .to_owned(),
        ),
        step(
            "delete the node, if its machine is lost",
            format!("oc delete node {node}"),
        ),
        step(
            "delete the member's certificates; the operator recreates them",
            format!("oc -n openshift-etcd delete secret {}", secrets.join(" ")),
        ),
        step(
            "find its machine, and delete it to have it recreated",
            format!("oc -n openshift-machine-api get machines -o wide | grep -F {node}"),
        ),
        step(
            "when the new member has joined, turn the quorum guard on again",
            "oc patch etcd/cluster --type=merge -p '{\"spec\": {\"unsupportedConfigOverrides\": \
             null}}'"
                .to_owned(),
        ),
        step(
            "if only two etcd pods start, force a new rollout",
            "oc patch etcd/cluster --type=merge -p '{\"spec\": {\"forceRedeploymentReason\": \
             \"recovery-'\"$(date --rfc-3339=ns)\"'\"}}'"
                .to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in() {
        let steps = after_removal("master-1.ocp");
        assert!(steps.iter().any(|step| step.command
            == "oc -n openshift-etcd delete secret etcd-peer-master-1.ocp \
                etcd-serving-master-1.ocp etcd-serving-metrics-master-1.ocp"));
        assert!(steps.iter().all(|step| !step.command.contains('\n')));
        assert!(
            steps
                .iter()
                .any(|step| step.command == "oc delete node master-1.ocp")
        );
    }
}
