//! Why etcd does not serve, by the container runtime.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::context::{StaticPods, StepContext};
use super::info::PodInfo;
use crate::error::Result;
use crate::node::component::Component;
use crate::node::runtime::{Container, ContainerState, Sandbox};
use crate::sys::quote::printable;

/// Where the kubelet keeps containers' logs (kubernetes, `pkg/kubelet/kuberuntime/helpers.go`).
const LOGS: &str = "/var/log/pods";
/// How much of a log's end is read for its last line (bytes), and how much of the line is shown
/// (characters).
const TAIL: u64 = 16 << 10;
const SHOWN: usize = 300;

/// Why etcd's container does not serve: it has ended, or was never started.
pub(crate) async fn why(node: &StepContext) -> Option<String> {
    let etcd = Component::Etcd.to_string();
    let pod = node.facts.pods.iter().find(|pod| pod.component == etcd)?;
    let (containers, sandboxes) = match listed(node).await {
        Ok(listed) => listed,
        Err(failure) => return Some(failure.to_string()),
    };
    let ours = StaticPods::of(&node.layout, &node.facts.node);
    let (newest, ended) = newest(&ours, pod, &containers, &sandboxes);
    let Some(newest) = newest else {
        return Some(
            "the kubelet has not started a container of its pod; to see why: systemctl status kubelet"
                .to_owned(),
        );
    };
    if newest.state != ContainerState::Exited {
        return None;
    }
    let last = last_line(&node.host(&log(newest)));
    let last = last.map(|line| format!(" with {line:?}"));
    Some(format!(
        "its container has exited{}, {ended} so far; to see why: crictl logs {}",
        last.unwrap_or_default(),
        newest.id.get(..13).unwrap_or(&newest.id)
    ))
}

async fn listed(node: &StepContext) -> Result<(Vec<Container>, Vec<Sandbox>)> {
    let runtime = node.runtime().await?;
    Ok((runtime.containers().await?, runtime.sandboxes().await?))
}

/// The pod's newest etcd container, and how many have ended.
fn newest<'c>(
    ours: &StaticPods,
    pod: &PodInfo,
    containers: &'c [Container],
    sandboxes: &[Sandbox],
) -> (Option<&'c Container>, usize) {
    let etcd = Component::Etcd.to_string();
    let etcds: Vec<&Container> = containers
        .iter()
        .filter(|container| container.name == etcd && ours.is_container(pod, container, sandboxes))
        .collect();
    let ended = etcds
        .iter()
        .filter(|container| container.state == ContainerState::Exited);
    let ended = ended.count();
    let newest = etcds
        .into_iter()
        .max_by_key(|container| (container.created, container.attempt));
    (newest, ended)
}

fn log(container: &Container) -> PathBuf {
    let pod = format!(
        "{}_{}_{}",
        container.pod_namespace, container.pod_name, container.pod_uid
    );
    Path::new(LOGS)
        .join(pod)
        .join(&container.name)
        .join(format!("{}.log", container.attempt))
}

/// The last line of a log, without the time and the stream that the runtime writes before it. A log
/// that cannot be read is not a failure: the message names the command that shows it.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    // The format of the CRI: time, stream, a tag (F or P), then the line itself.
    let said = match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
        [_, "stdout" | "stderr", _, said] => said,
        _ => line,
    };
    let said: String = said.chars().take(SHOWN).collect();
    Some(printable(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_log_is_what_the_container_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("3.log");
        assert_eq!(last_line(&path), None);
        std::fs::write(
            &path,
            "2026-11-29T01:02:03.4Z stderr F first\n2026-11-29T01:02:04.4Z stderr F tocommit(65) is \
             out of range\n\n",
        )
        .unwrap();
        let said = last_line(&path);
        assert_eq!(said.as_deref(), Some("tocommit(65) is out of range"));
        std::fs::write(&path, "plain words").unwrap();
        assert_eq!(last_line(&path).as_deref(), Some("plain words"));
    }
}
