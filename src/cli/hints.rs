//! The next command to type, made from a failure's kind and facts.

use crate::error::{Fact, Failure, Kind};

/// The hint for a failure of a command, where there is a true one.
pub(super) fn hint(command: &str, failure: &Failure) -> Option<String> {
    let refusals = failure.facts().iter().filter_map(|fact| match fact {
        Fact::Refusal {
            name,
            allowable: true,
        } => Some(*name),
        _ => None,
    });
    let names: Vec<_> = refusals.collect();
    if !names.is_empty() {
        let names = names.join(",");
        return Some(format!(
            "to go on all the same: etcd-dr {command} --allow {names}"
        ));
    }
    for fact in failure.facts() {
        match fact {
            Fact::Candidates(candidates) if !candidates.is_empty() => {
                return Some(format!("one of: {}", candidates.join(", ")));
            }
            Fact::Candidates(_) if command != "backup" => {
                return Some("to take a backup: etcd-dr backup".to_owned());
            }
            Fact::Missing("node-name") => {
                return Some(format!("name it: etcd-dr --node-name NAME {command}"));
            }
            Fact::Missing("endpoint") => {
                return Some(format!(
                    "name it: etcd-dr --endpoints https://ADDRESS:2379 {command}"
                ));
            }
            Fact::Missing("profile") => {
                return Some(format!(
                    "say where to look: etcd-dr --profile openshift|kubeadm|bare {command}"
                ));
            }
            Fact::Missing("host-root") => {
                return Some(format!(
                    "the node's file system is at /host: etcd-dr --root /host {command}"
                ));
            }
            Fact::Holder { pid, .. } => return Some(format!("to see what it does: ps -fp {pid}")),
            _ => {}
        }
    }
    match failure.kind() {
        Kind::BadBackup => Some("to find one that is good: etcd-dr verify --all".to_owned()),
        _ => None,
    }
}
