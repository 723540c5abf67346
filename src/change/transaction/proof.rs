//! The proof at the end of a restore: etcd serves the restored data, and the pods run the restored
//! revisions.

use std::cell::{Cell, RefCell};

use serde_json::{Value, json};

use super::context::{Explanation, Look, StaticPods, StepContext};
use super::ended;
use super::info::PodInfo;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::{Connection, Status};
use crate::etcd::datadir::Layout;
use crate::journal::Known;
use crate::node::component::Component;
use crate::node::pod::{MAX_BYTES, PodManifest};
use crate::node::runtime::{Container, ContainerState, Sandbox};
use crate::sys::small;

/// The size up to which etcd opens a database within a few seconds, even from a cold disk (bytes).
const OPENED_SOON: u64 = 1 << 30;

/// What etcd must be found to be.
struct Expected {
    cluster_id: String,
    member_id: String,
    revision: i64,
    /// Where they could be counted before.
    keys: Option<u64>,
}

/// Waits until etcd answers; then requires that it is the member that was built, has every key at
/// the restored revision, has no alarm and accepts writes.
///
/// Keys are counted at the restored revision, since leases expire and others write at once.
pub(crate) async fn etcd(node: &StepContext, known: &Known) -> Result<Value> {
    let expected = Expected {
        cluster_id: known.read("clusterId")?,
        member_id: known.read("memberId")?,
        revision: known.read("revision")?,
        keys: known.read("keys").unwrap_or_default(),
    };
    let (connection, status) = serving(node).await?;
    let keys = held_against(&connection, &status, &expected).await?;
    accepts_writes(node, &connection).await?;
    Ok(json!({
        "etcdVersion": status.version,
        "revisionNow": status.header.revision,
        "keysProved": keys,
    }))
}

/// Waits until the node's etcd answers and commits: the leader that it names may be gone.
pub(crate) async fn serving(node: &StepContext) -> Result<(Connection, Status)> {
    let found = RefCell::new(None);
    let begun = Cell::new(false);
    let explained = Explanation::default();
    let pods = node.facts.pods.iter();
    let etcd: Vec<&PodInfo> = pods
        .filter(|pod| pod.component == Component::Etcd.name())
        .collect();
    let waited = node
        .wait("etcd to serve", || async {
            let missing = match answer(node).await {
                Ok((connection, status)) if status.leader.is_some() => {
                    match agrees(&connection).await {
                        Ok(()) => {
                            found.replace(Some((connection, status)));
                            return Ok(Look::There);
                        }
                        Err(failure) => {
                            format!("it answers and has a leader, but commits nothing: {failure}")
                        }
                    }
                }
                Ok(_) => {
                    "it has no leader: too few of the other members run, or it cannot reach them"
                        .to_owned()
                }
                Err(failure) if failure.kind() == Kind::Unreachable => {
                    match explained.get(ended::why(node)).await {
                        Some(why) => format!("{failure}; {why}"),
                        None => failure.to_string(),
                    }
                }
                Err(failure) => return Err(failure),
            };
            // The runtime may fail here: only etcd counts.
            begun.set(begun.get() || node.is_begun(&etcd).await.unwrap_or(true));
            Ok(match begun.get() {
                true => Look::Begun(missing),
                false => Look::NotYet(missing),
            })
        })
        .await;
    waited.map_err(|failure| StepContext::if_nobody_acts(begun.get(), failure))?;
    found
        .into_inner()
        .ok_or_else(|| Failure::new(Kind::Unexpected, "etcd answered, but is gone"))
}

/// Waits until the pods that use etcd may start: once the kubelet works on etcd's pod, and so does
/// not back off, and etcd itself is about to start. They take about as long to start, and then wait
/// for it. Much earlier would be late: an API server that finds no etcd tries again after 1 s, 1.6 s,
/// 2.6 s and so on (google.golang.org/grpc, `backoff/backoff.go`). And it gives up after 20 s, so
/// with a database that etcd may take that long to open, they wait until etcd serves.
pub(crate) async fn others_may_start(node: &StepContext) -> Result<()> {
    let data_dir = node.host(&node.facts.etcd.data_dir);
    let database = Layout::new(&data_dir, None).db();
    let size = database.metadata().map(|found| found.len());
    if size.is_ok_and(|size| size > OPENED_SOON) {
        return serving(node).await.map(drop);
    }
    let mut pods = node.facts.pods.iter();
    let Some(etcd) = pods.find(|pod| pod.component == Component::Etcd.name()) else {
        return Ok(());
    };
    let wanted = first_containers(before_etcd(node, etcd));
    let runtime = node.runtime().await?;
    let begun = Cell::new(false);
    let waited = node
        .wait("etcd's pod to start", || async {
            let made = node.containers_made(&runtime, etcd).await?;
            begun.set(made > 0);
            Ok(match made {
                made if made >= wanted => Look::There,
                0 => Look::NotYet("it has no container".to_owned()),
                made => Look::Begun(format!("it has {made} of its first {wanted} containers")),
            })
        })
        .await;
    waited.map_err(|failure| StepContext::if_nobody_acts(begun.get(), failure))
}

/// How many containers etcd's pod must have for the others to start, if it has so many init
/// containers: all but the last, since pods of the API server have one themselves.
fn first_containers(init_containers: usize) -> usize {
    init_containers.saturating_sub(1).max(1)
}

/// How many init containers etcd's pod runs first, one after the other. The kubelet starts each when
/// it has listed that the one before has ended, once a second.
fn before_etcd(node: &StepContext, etcd: &PodInfo) -> usize {
    let manifest = etcd.manifest.as_ref().map(|place| node.host(place));
    let read = manifest.and_then(|place| small::read(&place, MAX_BYTES).ok()?);
    // What cannot be read here is reported by the kubelet, which does not start the pod.
    let pod = read.and_then(|bytes| PodManifest::parse(&bytes).ok());
    pod.map_or(0, |pod| pod.init_containers.len())
}

/// Whether etcd answers a request that goes through raft, and a linearizable read.
async fn agrees(connection: &Connection) -> Result<()> {
    connection.alarms().await?;
    connection.prove_readable().await
}

async fn answer(node: &StepContext) -> Result<(Connection, Status)> {
    let connection = node.etcd().await?;
    let status = connection.status().await?;
    Ok((connection, status))
}

async fn held_against(
    connection: &Connection,
    status: &Status,
    expected: &Expected,
) -> Result<Option<u64>> {
    let wrong = |what: String| {
        let proving = "proving that etcd serves what was restored";
        Err(Failure::new(Kind::Unexpected, what).doing(proving))
    };
    let (cluster, member) = (
        status.header.cluster_id.to_string(),
        status.header.member_id.to_string(),
    );
    // Compared first: if another member answers at this address, nothing else that it says counts.
    if cluster != expected.cluster_id || member != expected.member_id {
        return wrong(format!(
            "expected member {} of cluster {}, found member {member} of cluster {cluster}",
            expected.member_id, expected.cluster_id
        ));
    }
    if status.header.revision < expected.revision {
        return wrong(format!(
            "expected revision {} or later, found {}",
            expected.revision, status.header.revision
        ));
    }
    let Some(counted) = expected.keys else {
        return Ok(None);
    };
    let keys = connection.count_at(expected.revision).await?;
    if keys != counted {
        return wrong(format!(
            "expected {counted} keys at revision {}, found {keys}",
            expected.revision
        ));
    }
    Ok(Some(keys))
}

/// Requires that no alarm is raised and that writes succeed. If the backup's own alarms were
/// allowed, reports what they block instead.
async fn accepts_writes(node: &StepContext, connection: &Connection) -> Result<()> {
    // Asked first: an alarm blocks writes, and its name says more than the write that fails.
    let alarms = connection.alarms().await?;
    let Some(alarm) = alarms.first() else {
        return connection.prove_writable().await;
    };
    let what = format!(
        "the alarm {} of member {} is raised",
        alarm.kind, alarm.member_id
    );
    if node.facts.alarms_allowed {
        node.context.warn("alarm-raised", what);
        return Ok(());
    }
    Err(Failure::new(Kind::Unexpected, what).doing("proving that etcd accepts writes"))
}

/// Waits until every pod's containers run at the restored revision.
pub(crate) async fn pods(node: &StepContext) -> Result<Value> {
    pods_run(node, &node.facts.pods).await?;
    Ok(json!({ "podsProved": node.facts.pods.len() }))
}

/// Waits until the containers of all these pods run.
pub(crate) async fn pods_run(node: &StepContext, pods: &[PodInfo]) -> Result<()> {
    let runtime = node.runtime().await?;
    let names = node.static_pods();
    let begun = Cell::new(false);
    let waited = node
        .wait("every pod to run the restored revision", || async {
            let sandboxes = runtime.sandboxes().await?;
            let containers = runtime.containers().await?;
            let missing: Vec<String> = pods
                .iter()
                .filter_map(|pod| lacks(&names, pod, &sandboxes, &containers))
                .collect();
            if missing.is_empty() {
                return Ok(Look::There);
            }
            let stands = |pod: &PodInfo| {
                let mut ready = sandboxes.iter().filter(|sandbox| sandbox.ready);
                ready.any(|sandbox| names.is_sandbox(pod, sandbox))
            };
            begun.set(begun.get() || pods.iter().any(stands));
            Ok(match begun.get() {
                true => Look::Begun(missing.join(", ")),
                false => Look::NotYet(missing.join(", ")),
            })
        })
        .await;
    waited.map_err(|failure| StepContext::if_nobody_acts(begun.get(), failure))
}

/// What a pod lacks to be proved.
fn lacks(
    names: &StaticPods,
    pod: &PodInfo,
    sandboxes: &[Sandbox],
    containers: &[Container],
) -> Option<String> {
    let name = &pod.component;
    let mut standing = sandboxes
        .iter()
        .filter(|sandbox| sandbox.ready && names.is_sandbox(pod, sandbox));
    let Some(sandbox) = standing.next() else {
        return Some(format!("{name} is not running"));
    };
    if standing.next().is_some() {
        return Some(format!("{name} is running twice"));
    }
    if let Some(revision) = pod.revision {
        let runs = sandbox.labels.get("revision").map(String::as_str);
        if runs != Some(revision.to_string().as_str()) {
            return Some(format!(
                "{name} runs revision {}, not {revision}",
                runs.unwrap_or("unknown")
            ));
        }
    }
    let runs = |wanted: &&String| {
        containers.iter().any(|container| {
            container.sandbox_id == sandbox.id
                && container.name == **wanted
                && container.state == ContainerState::Running
        })
    };
    let missing: Vec<&str> = pod
        .containers
        .iter()
        .filter(|wanted| !runs(wanted))
        .map(String::as_str)
        .collect();
    (!missing.is_empty()).then(|| format!("{name} lacks {}", missing.join(" and ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::node::layout::NodeLayout;

    fn sandbox(id: &str, revision: &str, ready: bool) -> Sandbox {
        Sandbox {
            id: id.to_owned(),
            pod_namespace: "openshift-etcd".to_owned(),
            pod_name: "etcd-m".to_owned(),
            pod_uid: "u".to_owned(),
            attempt: 0,
            ready,
            created: 0,
            labels: BTreeMap::from([("revision".to_owned(), revision.to_owned())]),
            annotations: BTreeMap::new(),
        }
    }

    fn container(sandbox: &str, name: &str, state: ContainerState) -> Container {
        Container {
            id: format!("{sandbox}{name}"),
            name: name.to_owned(),
            pod_namespace: "openshift-etcd".to_owned(),
            pod_name: "etcd-m".to_owned(),
            pod_uid: "u".to_owned(),
            sandbox_id: sandbox.to_owned(),
            attempt: 0,
            state,
            image: String::new(),
            created: 0,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn the_others_start_one_init_container_before_etcd() {
        // kubeadm's etcd has no init container, OpenShift's has three.
        for (init_containers, wanted) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 3)] {
            assert_eq!(first_containers(init_containers), wanted);
        }
    }

    #[test]
    fn a_pod_is_proved_by_its_one_standing_sandbox() {
        let pod = PodInfo {
            component: "etcd".to_owned(),
            namespace: "openshift-etcd".to_owned(),
            name: "etcd".to_owned(),
            revision: Some(7),
            containers: vec!["etcd".to_owned(), "etcdctl".to_owned()],
            manifest: None,
        };
        let running = [
            container("new", "etcd", ContainerState::Running),
            container("new", "etcdctl", ContainerState::Running),
            container("old", "etcd", ContainerState::Exited),
        ];
        let names = StaticPods::of(&NodeLayout::new("/nowhere"), "m");
        let lacks = |sandboxes: &[Sandbox], containers: &[Container]| {
            super::lacks(&names, &pod, sandboxes, containers)
        };
        let good = [sandbox("old", "9", false), sandbox("new", "7", true)];
        assert_eq!(lacks(&good, &running), None);
        let not = |sandboxes: &[Sandbox], containers: &[Container], what: &str| {
            let found = lacks(sandboxes, containers).unwrap();
            assert!(found.contains(what), "{found}");
        };
        not(&[], &running, "is not running");
        not(
            &[sandbox("new", "9", true)],
            &running,
            "runs revision 9, not 7",
        );
        not(
            &[sandbox("new", "7", true), sandbox("old", "7", true)],
            &running,
            "twice",
        );
        not(&good, &running[..1], "lacks etcdctl");
        let exited = [
            container("new", "etcd", ContainerState::Exited),
            container("old", "etcd", ContainerState::Running),
        ];
        not(&good, &exited, "lacks etcd and etcdctl");
    }
}
