//! The next command to type, made from a failure's kind and facts.

use super::operation;
use crate::error::{Fact, Failure, Kind};
use crate::ops::restore::switch;

/// The hint for a failure of a command, where there is a true one.
pub(super) fn hint(command: &str, failure: &Failure) -> Option<String> {
    if let Some(unfinished) = failure.facts().iter().find_map(unfinished) {
        return Some(unfinished);
    }
    let remains = failure.facts().iter().find_map(|fact| match fact {
        Fact::MemberRemains(member) => Some(member),
        _ => None,
    });
    if let Some(member) = remains {
        return Some(format!(
            "to remove what remains: etcd-dr member-remove {member}"
        ));
    }
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
    if matches!(failure.refusal(), Some("unknown-entry" | "long-tail")) {
        return Some(format!(
            "to leave the log to etcd: etcd-dr {command} --bump-revision 0"
        ));
    }
    let names = failure.facts().iter().find_map(|fact| match fact {
        Fact::Candidates(names) => Some(names.as_slice()),
        _ => None,
    });
    if let Some(missing) = failure
        .facts()
        .iter()
        .find_map(|fact| missing(command, fact))
    {
        return Some(match names {
            Some(names) if !names.is_empty() => {
                format!("{missing}  (one of: {})", names.join(", "))
            }
            _ => missing,
        });
    }
    for fact in failure.facts() {
        match fact {
            Fact::Candidates(names) if !names.is_empty() => {
                return Some(format!("one of: {}", names.join(", ")));
            }
            Fact::Candidates(_) if command != "backup" => {
                return Some("to take a backup: etcd-dr backup".to_owned());
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

/// The way on and the way back.
fn unfinished(fact: &Fact) -> Option<String> {
    let Fact::Unfinished { id, goes_back, .. } = fact else {
        return None;
    };
    if id.starts_with(switch::KIND) {
        return Some("to go back: etcd-dr enable".to_owned());
    }
    let command = operation::command_of(id);
    Some(if *goes_back {
        format!("to finish going back: etcd-dr {command} --rollback")
    } else {
        format!("to go on: etcd-dr {command} --resume  (to go back: etcd-dr {command} --rollback)")
    })
}

/// The option that gives what was not given.
fn missing(command: &str, fact: &Fact) -> Option<String> {
    Some(match fact {
        Fact::Missing("node-name") => format!("name it: etcd-dr --node-name NAME {command}"),
        Fact::Missing("endpoint") => {
            format!("name it: etcd-dr --endpoints https://ADDRESS:2379 {command}")
        }
        Fact::Missing("ca") => format!("give it: etcd-dr --cacert FILE {command}"),
        Fact::Missing("cert" | "key") => {
            format!("give both: etcd-dr --cert FILE --key FILE {command}")
        }
        Fact::Missing("set") => {
            format!("name one: etcd-dr {command} latest  (they are in: etcd-dr list)")
        }
        Fact::Missing("yes") => "to agree beforehand: --yes".to_owned(),
        Fact::Missing("scope") => {
            format!("restore etcd alone: etcd-dr {command} SET --scope etcd")
        }
        Fact::Missing("profile") => {
            format!("say where to look: etcd-dr --profile openshift|kubeadm|bare {command}")
        }
        Fact::Missing("identity") => format!("give it: etcd-dr {command} --identity FILE"),
        Fact::Missing("keep-rule") => {
            format!("to see what a rule would do: etcd-dr {command} --keep-last 20 --dry-run")
        }
        Fact::Mounted(root) => {
            let root = root.display();
            format!("the node's file system is at {root}: etcd-dr --root {root} {command}")
        }
        _ => return None,
    })
}
