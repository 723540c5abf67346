//! What the steps of a change act upon: the node's files, its container runtime and its etcd.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::info::{NodeFacts, PodInfo};
use super::relisted::Relisted;
use crate::cluster::connect::{self, PemFiles};
use crate::context::{self, Context};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::client::{ConnectOptions, Connection, Endpoint};
use crate::event::Event;
use crate::node::kubelet::node_names;
use crate::node::layout::NodeLayout;
use crate::node::runtime::{Container, ContainerState, Runtime, Sandbox, static_pod_name};

/// The interval of a wait's looks at the node, at first and later.
const LOOK: Duration = Duration::from_millis(100);
const LATER_LOOK: Duration = Duration::from_millis(500);
/// How long a wait looks often: a healthy node needs no longer.
const OFTEN: Duration = Duration::from_secs(60);
/// How often the missing parts are reported.
const TELL: Duration = Duration::from_secs(5);
/// The bound on one question to the container runtime.
pub(crate) const RUNTIME_TIMEOUT: Duration = Duration::from_secs(10);

/// What the steps of a change act upon.
pub struct StepContext {
    /// The node's paths.
    pub(crate) layout: NodeLayout,
    /// What the journal says of the node.
    pub(crate) facts: NodeFacts,
    /// Who watches, and whether to stop.
    pub(crate) context: Context,
    /// The containers that ran when manifests were last moved away.
    pub(crate) ran: Mutex<BTreeSet<String>>,
    /// When the kubelet knows of everything that was removed from the runtime.
    pub(crate) relisted: Relisted,
}

/// What a wait looks for.
pub(crate) enum Look {
    /// It is there.
    There,
    /// It is not, and what is missing.
    NotYet(String),
    /// Not yet, but the kubelet has begun: the bound counts from the first look that sees this.
    Begun(String),
}

/// Explains a wait to the operator: asked less often than the node, since it costs more.
#[derive(Default)]
pub(crate) struct Explanation(RefCell<Option<(Instant, Option<String>)>>);

impl Explanation {
    /// The last one, or, where that is old, what `ask` says now.
    pub(crate) async fn get(&self, ask: impl Future<Output = Option<String>>) -> Option<String> {
        let known = self.0.borrow().clone();
        if let Some((at, what)) = known
            && at.elapsed() < LATER_LOOK
        {
            return what;
        }
        let what = ask.await;
        self.0.replace(Some((Instant::now(), what.clone())));
        what
    }
}

/// What is said where nobody acts on the manifests.
pub(crate) const NOBODY_ACTS: &str = "the kubelet has not acted on the manifests: check that it runs (systemctl status kubelet; journalctl -u kubelet)";

impl StepContext {
    /// The node with these paths, of which the journal says this.
    pub(crate) fn new(context: &Context, layout: &NodeLayout, facts: NodeFacts) -> Self {
        Self {
            layout: layout.clone(),
            facts,
            context: context.clone(),
            ran: Mutex::default(),
            relisted: Relisted::default(),
        }
    }

    /// The same, which a request to stop does not reach.
    pub(crate) fn unstopped(&self) -> Self {
        Self::new(&self.context.unstopped(), &self.layout, self.facts.clone())
    }

    /// The host path of a node path.
    pub(crate) fn host(&self, path: &Path) -> PathBuf {
        self.layout.host(path)
    }

    /// Looks until `look` finds it, the bound is reached, or the operator asks to stop. An error of
    /// `look` ends the wait: it is not taken for an absence.
    pub(crate) async fn wait<F: Future<Output = Result<Look>>>(
        &self,
        what: &'static str,
        mut look: impl FnMut() -> F,
    ) -> Result<()> {
        let limit = self.facts.wait;
        let first = Instant::now();
        let mut began = first;
        let mut told = began;
        let mut acts = false;
        loop {
            let missing = match self.context.cancel.guard(look()).await? {
                Look::There => return Ok(()),
                Look::NotYet(missing) => missing,
                Look::Begun(missing) => {
                    if !acts {
                        began = Instant::now();
                    }
                    acts = true;
                    missing
                }
            };
            let waited = began.elapsed();
            if waited >= limit {
                return Err(Failure::new(
                    Kind::Unreachable,
                    format!("waited {} s for {what}: {missing}", limit.as_secs()),
                ));
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                self.context.tell(Event::Waiting {
                    what,
                    missing,
                    seconds: waited.as_secs(),
                    limit: limit.as_secs(),
                });
            }
            let pace = if first.elapsed() < OFTEN {
                LOOK
            } else {
                LATER_LOOK
            };
            let pause = pace.min(limit.saturating_sub(waited));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.context.cancel.cancelled() => return Err(context::interrupted()),
            }
        }
    }

    /// The container runtime.
    pub(crate) async fn runtime(&self) -> Result<Runtime> {
        Runtime::connect(&self.host(&self.facts.runtime), RUNTIME_TIMEOUT).await
    }

    /// How the kubelet calls the node's static pods.
    pub(crate) fn static_pods(&self) -> StaticPods {
        StaticPods::of(&self.layout, &self.facts.node)
    }

    /// Ends the running containers of this name in the control plane's namespaces, and returns
    /// their number. The kubelet starts them again.
    pub(crate) async fn end_containers(&self, name: &str, grace: Duration) -> Result<usize> {
        let runtime = self.runtime().await?;
        let containers = runtime.containers().await?;
        let is = |container: &&Container| {
            let namespace = container.pod_namespace.as_str();
            container.name == name
                && container.state == ContainerState::Running
                && (namespace == "kube-system" || namespace.starts_with("openshift-"))
        };
        let ours: Vec<&Container> = containers.iter().filter(is).collect();
        for container in &ours {
            runtime.stop_container(&container.id, grace).await?;
        }
        Ok(ours.len())
    }

    /// Whether the kubelet has begun to start one of these pods: it has a ready sandbox or a
    /// container.
    pub(crate) async fn is_begun(&self, pods: &[&PodInfo]) -> Result<bool> {
        let runtime = self.runtime().await?;
        let sandboxes = runtime.sandboxes().await?;
        let names = self.static_pods();
        let of_ours = |sandbox: &&Sandbox| pods.iter().any(|pod| names.is_sandbox(pod, sandbox));
        Ok(sandboxes
            .iter()
            .filter(of_ours)
            .any(|sandbox| sandbox.ready))
    }

    /// How many containers the kubelet has made in the standing sandbox of this pod.
    pub(crate) async fn containers_made(&self, runtime: &Runtime, pod: &PodInfo) -> Result<usize> {
        let sandboxes = runtime.sandboxes().await?;
        let containers = runtime.containers().await?;
        let names = self.static_pods();
        let stands = |sandbox: &&Sandbox| sandbox.ready && names.is_sandbox(pod, sandbox);
        let standing: Vec<&Sandbox> = sandboxes.iter().filter(stands).collect();
        let made = containers
            .iter()
            .filter(|container| standing.iter().any(|s| s.id == container.sandbox_id));
        Ok(made.count())
    }

    /// The failure of a wait for pods that the kubelet has not begun to start.
    pub(crate) fn if_nobody_acts(begun: bool, failure: Failure) -> Failure {
        // The container runtime's failure may say so already.
        let told = failure.to_string().contains("systemctl status kubelet");
        match failure.kind() == Kind::Unreachable && !begun && !told {
            true => Failure::new(Kind::Unreachable, format!("{failure}; {NOBODY_ACTS}")),
            false => failure,
        }
    }

    /// Connects to the node's etcd.
    pub(crate) async fn etcd(&self) -> Result<Connection> {
        let etcd = &self.facts.etcd;
        let endpoint = Endpoint::parse(&etcd.endpoint, etcd.ca.is_some())?;
        Connection::open(&endpoint, &self.options()?).await
    }

    /// How etcd's members are asked.
    pub(crate) fn options(&self) -> Result<ConnectOptions> {
        let etcd = &self.facts.etcd;
        let endpoint = Endpoint::parse(&etcd.endpoint, etcd.ca.is_some())?;
        let mut options = ConnectOptions::default();
        if endpoint.is_tls() {
            let host = |path: &Option<PathBuf>| path.as_ref().map(|path| self.host(path));
            let (ca, cert, key) = (host(&etcd.ca), host(&etcd.cert), host(&etcd.key));
            options.tls = Some(connect::tls(&PemFiles {
                ca: ca.as_deref(),
                cert: cert.as_deref(),
                key: key.as_deref(),
            })?);
        }
        Ok(options)
    }

    /// Runs work that blocks on its own thread.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(work).await;
        done.doing(Kind::Unexpected, || "running a thread")?
    }
}

/// The kubelet's names of the node's static pods: the manifest's name, a hyphen, the node's name.
pub(crate) struct StaticPods {
    /// The names that the node may go by.
    nodes: Vec<String>,
    /// The names of all pods that have a manifest here, with their namespaces.
    manifests: Vec<(String, String)>,
}

impl StaticPods {
    /// The names by the node's files; `node` is the assumed name of the node.
    pub(crate) fn of(layout: &NodeLayout, node: &str) -> Self {
        let mut nodes = vec![node.to_lowercase()];
        nodes.extend(node_names(layout));
        let manifests = layout.static_pod_keys();
        Self { nodes, manifests }
    }

    /// Whether a sandbox is this static pod's. Another pod's name may begin with this one's
    /// (`etcd`, `etcd-events`), so the rest must be the node's name.
    pub(crate) fn is_sandbox(&self, pod: &PodInfo, sandbox: &Sandbox) -> bool {
        if sandbox.pod_namespace != pod.namespace {
            return false;
        }
        let name = sandbox.pod_name.as_str();
        if self
            .nodes
            .iter()
            .any(|n| name == static_pod_name(&pod.name, n))
        {
            return true;
        }
        let from_file = sandbox
            .annotations
            .get("kubernetes.io/config.source")
            .is_some_and(|source| source == "file");
        let begins = |with: &str| {
            let rest = name.strip_prefix(with);
            rest.is_some_and(|rest| rest.starts_with('-'))
        };
        // If no file tells the node's name, a sandbox that fits no other pod is this one's.
        let ends_as_ours = self.nodes.iter().any(|node| {
            let rest = name.strip_suffix(node.as_str());
            rest.is_some_and(|rest| rest.ends_with('-'))
        });
        let others = self.manifests.iter().any(|(namespace, other)| {
            *namespace == pod.namespace && other.len() > pod.name.len() && begins(other)
        });
        from_file && begins(&pod.name) && !ends_as_ours && !others
    }

    /// Whether a container is of this static pod.
    pub(crate) fn is_container(
        &self,
        pod: &PodInfo,
        container: &Container,
        sandboxes: &[Sandbox],
    ) -> bool {
        let of_pod = |node: &String| container.pod_name == static_pod_name(&pod.name, node);
        let by_name = container.pod_namespace == pod.namespace && self.nodes.iter().any(of_pod);
        let sandbox = sandboxes
            .iter()
            .find(|sandbox| sandbox.id == container.sandbox_id);
        by_name || sandbox.is_some_and(|sandbox| self.is_sandbox(pod, sandbox))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sandbox(namespace: &str, name: &str, source: &str) -> Sandbox {
        Sandbox {
            id: "s".to_owned(),
            pod_namespace: namespace.to_owned(),
            pod_name: name.to_owned(),
            pod_uid: "u".to_owned(),
            attempt: 0,
            ready: true,
            created: 0,
            labels: BTreeMap::new(),
            annotations: BTreeMap::from([(
                "kubernetes.io/config.source".to_owned(),
                source.to_owned(),
            )]),
        }
    }

    fn pod(name: &str) -> PodInfo {
        PodInfo {
            component: name.to_owned(),
            namespace: "openshift-etcd".to_owned(),
            name: name.to_owned(),
            revision: Some(7),
            containers: vec![name.to_owned()],
            manifest: None,
        }
    }

    fn pods(nodes: &[&str], manifests: &[&str]) -> StaticPods {
        let key = |name: &&str| ("openshift-etcd".to_owned(), (*name).to_owned());
        StaticPods {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            manifests: manifests.iter().map(key).collect(),
        }
    }

    #[test]
    fn only_the_static_pod_is_meant() {
        let names = pods(&["master-0"], &["etcd"]);
        let is = |namespace, name, source| {
            names.is_sandbox(&pod("etcd"), &sandbox(namespace, name, source))
        };
        assert!(is("openshift-etcd", "etcd-master-0", "file"));
        assert!(is("openshift-etcd", "etcd-master-0", "api"));
        // The node goes by another name than we think.
        assert!(is("openshift-etcd", "etcd-master-0.example.com", "file"));
        assert!(!is("openshift-etcd", "etcd-guard-master-0", "api"));
        assert!(!is("openshift-etcd", "etcd-guard-master-0", "file"));
        assert!(!is("openshift-etcd", "etcdx-master-0", "file"));
        assert!(!is("kube-system", "etcd-master-0", "file"));
    }

    #[test]
    fn a_pod_whose_name_begins_with_anothers_is_its_own() {
        let both = ["etcd", "etcd-events", "kube-scheduler", "kube-scheduler-2"];
        for (nodes, manifests, node) in [
            (vec!["cp-0"], vec![], "cp-0"),
            (vec!["cp-0.example-1.com"], vec![], "cp-0.example-1.com"),
            (vec!["m1", "events-cp-0"], vec![], "events-cp-0"),
            // Nothing tells the node's name; the manifests tell the pods.
            (vec!["m1"], both.to_vec(), "cp-0"),
        ] {
            let names = pods(&nodes, &manifests);
            let is = |wanted: &str, manifest: &str| {
                let name = static_pod_name(manifest, node);
                names.is_sandbox(&pod(wanted), &sandbox("openshift-etcd", &name, "file"))
            };
            for wanted in both {
                for found in both {
                    assert_eq!(
                        is(wanted, found),
                        wanted == found,
                        "{wanted} {found} {node}"
                    );
                }
            }
        }
        // Of two readings the one with a name that is known counts.
        let names = pods(&["cp-0", "events-cp-0"], &["etcd"]);
        let found = sandbox("openshift-etcd", "etcd-events-cp-0", "file");
        assert!(names.is_sandbox(&pod("etcd"), &found));
    }

    #[test]
    fn a_container_without_labels_is_its_sandboxs() {
        let names = pods(&["cp-0"], &["etcd", "etcd-events"]);
        let sandboxes = [sandbox("openshift-etcd", "etcd-events-cp-0", "file")];
        let container = Container {
            id: "c".to_owned(),
            name: "etcd".to_owned(),
            pod_namespace: "openshift-etcd".to_owned(),
            pod_name: "etcd-events-cp-0".to_owned(),
            pod_uid: "u".to_owned(),
            sandbox_id: "s".to_owned(),
            attempt: 0,
            state: ContainerState::Running,
            image: String::new(),
            created: 0,
            labels: BTreeMap::new(),
        };
        assert!(!names.is_container(&pod("etcd"), &container, &sandboxes));
        assert!(names.is_container(&pod("etcd-events"), &container, &sandboxes));
    }
}
