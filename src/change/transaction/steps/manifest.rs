//! kubeadm's manifest of etcd with the flags of a joining member.
//!
//! kubeadm writes one flag per line (`cmd/kubeadm/app/phases/etcd/local.go`). Only the lines of two
//! flags change, so everything else stays as the operator knows it.

use crate::error::{Failure, Result};
use crate::node::pod::PodManifest;

const CLUSTER: &str = "initial-cluster";
const STATE: &str = "initial-cluster-state";

/// The text with `--initial-cluster` set to this, and `--initial-cluster-state=existing`.
///
/// # Errors
/// [`Kind::Refused`] if the flags are not on lines of their own.
pub(crate) fn joining(text: &str, initial_cluster: &str) -> Result<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut cluster_at = None;
    let mut has_state = false;
    for line in text.lines() {
        match flag(line) {
            Some((indent, CLUSTER)) => {
                cluster_at = Some((lines.len(), indent.to_owned()));
                lines.push(item(indent, CLUSTER, initial_cluster));
            }
            Some((indent, STATE)) => {
                has_state = true;
                lines.push(item(indent, STATE, "existing"));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    let Some((at, indent)) = cluster_at else {
        return Err(unfit(
            "expected a line - --initial-cluster=LIST, found none",
        ));
    };
    if !has_state {
        lines.insert(at + 1, item(&indent, STATE, "existing"));
    }
    let changed = lines.join("\n") + "\n";
    // It was edited as lines; the kubelet will read it as YAML.
    let pod = PodManifest::parse(changed.as_bytes())?;
    let has = |name: &str, value: &str| {
        pod.containers
            .iter()
            .any(|container| container.flag(name) == Some(value))
    };
    if has(CLUSTER, initial_cluster) && has(STATE, "existing") {
        Ok(changed)
    } else {
        Err(unfit(
            "the edited manifest does not contain the expected flags",
        ))
    }
}

/// The indentation, and the name of the flag that an item of a list sets.
fn flag(line: &str) -> Option<(&str, &str)> {
    let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
    let word = rest.strip_prefix("- ")?.trim_start();
    let word = word.trim_start_matches(['"', '\'']);
    let (name, _) = word.strip_prefix("--")?.split_once('=')?;
    Some((indent, name))
}

fn item(indent: &str, name: &str, value: &str) -> String {
    // Names and URLs contain nothing that YAML's single quotes would need to escape.
    format!("{indent}- '--{name}={}'", value.replace('\'', "''"))
}

fn unfit(what: &'static str) -> Failure {
    Failure::refused_for_good("manifest-unsupported", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "kind: Pod\nmetadata: {name: etcd}\nspec:\n  containers:\n  - name: etcd\n    \
                       command:\n    - etcd\n    - --initial-cluster=m0=https://10.0.0.1:2380\n    \
                       - --name=m0\n";

    #[test]
    fn two_lines_change() {
        let wanted = "m1=https://10.0.0.2:2380,m0=https://10.0.0.1:2380";
        let changed = joining(POD, wanted).unwrap();
        let kept: Vec<&str> = changed
            .lines()
            .filter(|line| !line.contains("--initial-cluster"))
            .collect();
        let before: Vec<&str> = POD
            .lines()
            .filter(|line| !line.contains("--initial-cluster"))
            .collect();
        assert_eq!(kept, before);
        assert!(changed.contains(&format!("    - '--initial-cluster={wanted}'\n")));
        assert!(changed.contains("    - '--initial-cluster-state=existing'\n"));
        // Again nothing changes.
        assert_eq!(joining(&changed, wanted).unwrap(), changed);
    }

    #[test]
    fn another_form_is_refused() {
        let flow = "kind: Pod\nmetadata: {name: etcd}\nspec: {containers: [{name: etcd, command: \
                    [etcd, --initial-cluster=a=b]}]}";
        let failure = joining(flow, "m=https://a:2380").unwrap_err();
        assert_eq!(failure.refusal(), Some("manifest-unsupported"));
    }
}
