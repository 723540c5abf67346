//! What the operator does after a restore, with this cluster's own names filled in.
//!
//! OpenShift: the product's documentation, "Restoring to a previous cluster state", by release;
//! kubeadm: Kubernetes' documentation, "Operating etcd clusters".

use crate::change::restore::info::RestoreInfo;
use crate::change::transaction::info::Scope;

/// The first release whose `cluster-restore.sh` leaves the other static pods running, and whose other
/// members come back by themselves: OpenShift 4.18.
const FEWER_STEPS: (u32, u32) = (4, 18);

/// The steps, each a sentence and the commands below it.
pub(super) fn steps(about: &RestoreInfo) -> Vec<String> {
    let others: Vec<&str> = about
        .nodes
        .iter()
        .map(String::as_str)
        .filter(|node| *node != about.node)
        .collect();
    let mut steps = match about.profile.as_str() {
        "kubeadm" if about.etcd_alone => etcd_alone(&others),
        "openshift" => openshift(about, &others),
        _ => kubeadm(about, &others),
    };
    steps.push(
        "When all is well, delete what was kept for a rollback:\netcd-dr restore --commit"
            .to_owned(),
    );
    steps
}

/// Major and minor.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn openshift(about: &RestoreInfo, others: &[&str]) -> Vec<String> {
    let release = about
        .source
        .as_ref()
        .and_then(|source| source.ocp_version.as_deref());
    let release = release.and_then(self::release);
    let newer = release.is_some_and(|release| release >= FEWER_STEPS);
    let mut steps = Vec::new();
    if others.is_empty() {
        steps.push(
            "Wait until the operators have settled:\noc adm wait-for-stable-cluster".to_owned(),
        );
        steps.push(redeploy(
            "etcd",
            "If etcd's operator creates no new revision within 15 minutes, force one:",
        ));
        return steps;
    }
    let names = others.join(", ");
    steps.push(format!(
        "Make sure that etcd stays stopped on the other control-plane nodes ({names}), on each:\netcd-dr disable    (or: sudo -E /usr/local/bin/disable-etcd.sh)"
    ));
    steps.push(
        "Turn the quorum guard off:\noc patch etcd/cluster --type=merge -p '{\"spec\": {\"unsupportedConfigOverrides\": {\"useUnsupportedUnsafeNonHANonProductionUnstableEtcd\": true}}}'"
            .to_owned(),
    );
    match newer {
        true => steps.push(format!(
            "Let the other control-plane nodes rejoin with empty data directories ({names}); etcd's pod archives their old data, which belongs to another cluster:\netcd-dr enable"
        )),
        false => steps.extend(replace_machines(&about.node, others)),
    }
    let components: &[&str] = match about.scope {
        Scope::Etcd if newer => &["etcd"],
        _ => &[
            "etcd",
            "kubeapiserver",
            "kubecontrollermanager",
            "kubescheduler",
        ],
    };
    for component in components {
        let why = if newer {
            format!("If {component} creates no new revision within 15 minutes, force one:")
        } else {
            format!("Force a new revision of {component}, and wait until all nodes run it:")
        };
        steps.push(redeploy(component, &why));
    }
    steps.push("Wait until the operators have settled:\noc adm wait-for-stable-cluster".to_owned());
    steps.push(
        "Turn the quorum guard on again:\noc patch etcd/cluster --type=merge -p '{\"spec\": {\"unsupportedConfigOverrides\": null}}'"
            .to_owned(),
    );
    steps
}

/// What the documentation tells to do with the other nodes before [`FEWER_STEPS`].
fn replace_machines(node: &str, others: &[&str]) -> [String; 3] {
    let names = others.join(", ");
    [
        format!(
            "Restart the kubelet on every control-plane node ({node}, {names}), on each:\nsudo systemctl restart kubelet.service"
        ),
        "Approve pending certificate requests, repeatedly until none are pending:\noc get csr\noc adm certificate approve NAME"
            .to_owned(),
        format!(
            "Delete the other machines one by one and have them recreated, or, if they are not managed, remove and reinstall them ({names}):\noc get machines -n openshift-machine-api -o wide"
        ),
    ]
}

fn redeploy(component: &str, why: &str) -> String {
    format!(
        "{why}\noc patch {component} cluster --type=merge -p '{{\"spec\": {{\"forceRedeploymentReason\": \"recovery-'\"$(date --rfc-3339=ns)\"'\"}}}}'"
    )
}

/// kubeadm's nodes of an external etcd: the control plane is elsewhere.
fn etcd_alone(others: &[&str]) -> Vec<String> {
    let mut steps: Vec<String> = others
        .iter()
        .map(|node| {
            format!("{node}: let its etcd join as a new member:\netcd-dr member-add --join")
        })
        .collect();
    steps.push(
        "On the control-plane nodes, see that the API server answers:\nkubectl --kubeconfig /etc/kubernetes/admin.conf get nodes".to_owned(),
    );
    steps
}

fn kubeadm(about: &RestoreInfo, others: &[&str]) -> Vec<String> {
    let mut steps = vec![
        "See that the API server answers:\nkubectl --kubeconfig /etc/kubernetes/admin.conf get nodes".to_owned(),
    ];
    for node in others {
        steps.push(format!(
            "On {node}: rejoin with an empty data directory, one node at a time; the old data is set aside:\netcd-dr --endpoints {} member-add --join",
            about.etcd.endpoint
        ));
    }
    if !others.is_empty() {
        steps.push(format!(
            "On every other node, once {} serves, restart what caches the API's data:\nsystemctl restart kubelet",
            about.node
        ));
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::change::transaction::info::{EtcdInfo, SourceInfo};

    fn about(profile: &str, version: Option<&str>, nodes: &[&str], scope: Scope) -> RestoreInfo {
        RestoreInfo {
            source: Some(SourceInfo {
                name: "backup-1".to_owned(),
                dir: PathBuf::new(),
                created: None,
                kv_revision: None,
                ocp_version: version.map(str::to_owned),
                cluster_uuid: None,
                node: None,
                to: None,
                roll_forward: None,
                recorded: None,
            }),
            profile: profile.to_owned(),
            node: "m0".to_owned(),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            scope,
            etcd: EtcdInfo {
                endpoint: String::new(),
                ca: None,
                cert: None,
                key: None,
                data_dir: PathBuf::new(),
                member: "m0".to_owned(),
                peer_urls: Vec::new(),
            },
            runtime: PathBuf::new(),
            pods: Vec::new(),
            wait_seconds: 1,
            grace_seconds: None,
            etcd_served: None,
            alarms_allowed: false,
            safety: Vec::new(),
            former_clusters: Vec::new(),
            others: Vec::new(),
            etcd_alone: false,
        }
    }

    #[test]
    fn a_node_of_etcd_alone_has_no_api_server() {
        let mut about = about("kubeadm", None, &["m0", "m1"], Scope::Etcd);
        about.etcd_alone = true;
        let steps = super::steps(&about).join("\n");
        assert!(steps.contains("m1: let its etcd join"), "{steps}");
        assert!(steps.contains("On the control-plane nodes"), "{steps}");
        assert!(!steps.contains("kubeadm join"), "{steps}");
    }

    #[test]
    fn every_topology_has_its_own_steps_with_its_own_names() {
        let three = ["m0", "m1", "m2"];
        let old = steps(&about(
            "openshift",
            Some("4.14.3"),
            &three,
            Scope::ControlPlane,
        ))
        .join("\n");
        assert!(
            old.contains("m1, m2") && old.contains("m0, m1, m2"),
            "{old}"
        );
        assert!(old.contains("kubelet.service") && old.contains("oc patch kubescheduler"));
        let new = steps(&about("openshift", Some("4.18.1"), &three, Scope::Etcd)).join("\n");
        assert!(
            !new.contains("kubelet") && !new.contains("kubescheduler"),
            "{new}"
        );
        assert!(
            new.contains("etcd-dr enable") && new.contains("unsupportedConfigOverrides\": null")
        );
        let single = steps(&about(
            "openshift",
            Some("4.18.1"),
            &["m0"],
            Scope::ControlPlane,
        ))
        .join("\n");
        assert!(!single.contains("unsupported") && single.contains("wait-for-stable"));
        let plain = steps(&about("kubeadm", None, &three, Scope::ControlPlane)).join("\n");
        assert!(plain.contains("On m1: ") && plain.contains("On m2: ") && !plain.contains("oc "));
        assert!(plain.contains("member-add --join"));
        assert!(plain.ends_with("etcd-dr restore --commit"));
    }
}
