//! The container runtime: what runs on the node, asked over the CRI, the interface that the
//! kubelet itself uses (kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`).
//!
//! The question behind it is "has it stopped?", so that a doubt is always an error: no answer in
//! time, a state that the CRI does not have, a container that nothing names are never "stopped".

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message;
use rustix::fs::OFlags;
use tokio::net::UnixStream;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

mod messages;
mod socket;
#[cfg(test)]
mod tests;

pub use socket::find_socket;

use crate::error::{Fact, Failure, Kind, Result, cut};

/// The service, newest first: runtimes from before Kubernetes 1.20 know only the second.
const SERVICES: [&str; 2] = [
    "runtime.v1.RuntimeService",
    "runtime.v1alpha2.RuntimeService",
];
/// The version of itself that the kubelet sends; runtimes ignore it (kubernetes,
/// `pkg/kubelet/kuberuntime/kuberuntime_manager.go`).
const KUBELET_API_VERSION: &str = "0.1.0";
/// A longer reply is refused: the bound that the kubelet sets itself (kubernetes,
/// `pkg/kubelet/cri/remote/utils.go`).
const MAX_REPLY: usize = 16 << 20;
/// The longest path that fits into a socket's address, its final zero apart (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// The kubelet's labels of a container (kubernetes, `pkg/kubelet/types/labels.go`).
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_UID: &str = "io.kubernetes.pod.uid";

/// A connection to the node's container runtime. A lost one is made again by the next call.
#[derive(Debug, Clone)]
pub struct Runtime {
    channel: Channel,
    socket: PathBuf,
    timeout: Duration,
    service: &'static str,
    info: RuntimeInfo,
}

/// What the runtime says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeInfo {
    /// Its name: `cri-o`, `containerd`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of the CRI that is spoken: `v1` or `v1alpha2`.
    pub api: String,
}

/// A container's state, as the CRI has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started yet.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime itself does not know; it may run.
    Unknown,
}

/// A container of a pod, running or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// The pod's namespace; empty if it has ended and nothing tells the pod any more.
    pub pod_namespace: String,
    /// The pod's name; a static pod's ends with its node's ([`static_pod_name`]).
    pub pod_name: String,
    /// The pod's uid; a static pod's is a hash of its manifest.
    pub pod_uid: String,
    /// The sandbox it belongs to.
    pub sandbox_id: String,
    /// How many there were before it in this pod.
    pub attempt: u32,
    /// Its state.
    pub state: ContainerState,
    /// The image as the pod names it, or else by its digest.
    pub image: String,
    /// When it was made: nanoseconds since 1970.
    pub created: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A pod as the runtime knows it: what its containers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// How many there were before it for this pod.
    pub attempt: u32,
    /// Whether it stands; containers of one that does not have ended.
    pub ready: bool,
    /// When it was made: nanoseconds since 1970.
    pub created: i64,
    /// Its labels, the pod's among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations; `kubernetes.io/config.source` is `file` for a static pod.
    pub annotations: BTreeMap<String, String>,
}

/// The name under which the kubelet runs a static pod: the manifest's, a hyphen and the node's in
/// lower case (kubernetes, `pkg/kubelet/config/common.go`).
pub fn static_pod_name(pod: &str, node: &str) -> String {
    format!("{pod}-{}", node.to_lowercase())
}

impl Runtime {
    /// Connects to a runtime and asks what it is. `timeout` bounds this and each later call.
    ///
    /// # Errors
    /// [`Kind::Unreachable`], naming the socket, where none listens or answers in time.
    pub async fn connect(socket: &Path, timeout: Duration) -> Result<Self> {
        let mut runtime = Self {
            channel: channel(socket),
            socket: socket.to_owned(),
            timeout,
            service: SERVICES[0],
            info: RuntimeInfo::default(),
        };
        let asked = runtime.bounded("version", runtime.ask_version()).await?;
        (runtime.service, runtime.info) = asked;
        Ok(runtime)
    }

    /// What the runtime said of itself.
    pub fn info(&self) -> &RuntimeInfo {
        &self.info
    }

    /// The socket it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// All containers, whatever their state, in the runtime's order. After a static pod went and
    /// came back, its earlier containers are still among them.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if there is no answer in time, or one that cannot be relied on.
    pub async fn containers(&self) -> Result<Vec<Container>> {
        self.bounded("containers", self.list_containers()).await
    }

    /// All pod sandboxes, ready or not, in the runtime's order.
    ///
    /// # Errors
    /// As those of [`containers`](Self::containers).
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        self.bounded("pods", self.list_sandboxes()).await
    }

    /// Asks a container to end, as the kubelet does, and has it killed after `grace`. Returns once it
    /// has ended.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if the runtime refuses, or has not answered long after the grace.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let request = messages::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        };
        let limit = self.timeout.saturating_add(grace);
        self.act("stop a container", limit, "StopContainer", request)
            .await
    }

    /// Removes a container that has exited, with what the runtime remembers of it. The caller must
    /// have seen it exited: one that runs would be killed.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if the runtime refuses or does not answer in time.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = messages::RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        self.act(
            "remove a container",
            self.timeout,
            "RemoveContainer",
            request,
        )
        .await
    }

    /// Removes a pod that does not stand any more, with its containers. The caller must have seen
    /// them all exited: those that run would be killed.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if the runtime refuses or does not answer in time.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = messages::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.act("remove a pod", self.timeout, "RemovePodSandbox", request)
            .await
    }

    async fn act<Q: Message + Send + Sync + 'static>(
        &self,
        what: &'static str,
        limit: Duration,
        method: &str,
        request: Q,
    ) -> Result<()> {
        let call = self.call::<Q, messages::NothingResponse>(self.service, method, request);
        let socket = self.socket.display();
        let doing = || format!("asking the container runtime at {socket} to {what}");
        self.within(limit, call).await.map(drop).map_err(|what| {
            Failure::new(Kind::Unreachable, what)
                .doing(doing())
                .with(Fact::Endpoint(format!("unix://{socket}")))
        })
    }

    async fn ask_version(&self) -> Result<(&'static str, RuntimeInfo), Cause> {
        let request = messages::VersionRequest {
            version: KUBELET_API_VERSION.to_owned(),
        };
        let mut refusal = Cause::Reply("it does not serve the CRI".to_owned());
        for service in SERVICES {
            let asked: Result<messages::VersionResponse, _> =
                self.call(service, "Version", request.clone()).await;
            match asked {
                Ok(version) if version.runtime_name.is_empty() => {
                    return Err(Cause::Reply(
                        "expected a runtime's name, found none".to_owned(),
                    ));
                }
                Ok(version) => {
                    let api = service.split('.').nth(1).unwrap_or_default().to_owned();
                    let info = RuntimeInfo {
                        name: version.runtime_name,
                        version: version.runtime_version,
                        api,
                    };
                    return Ok((service, info));
                }
                Err(Cause::Call(status)) if status.code() == Code::Unimplemented => {
                    refusal = Cause::Call(status);
                }
                Err(cause) => return Err(cause),
            }
        }
        Err(refusal)
    }

    async fn list_containers(&self) -> Result<Vec<Container>, Cause> {
        let reply: messages::ListContainersResponse = self
            .call(self.service, "ListContainers", messages::ListRequest {})
            .await?;
        let mut containers = reply
            .containers
            .into_iter()
            .map(Container::read)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Cause::Reply)?;
        distinct("container", containers.iter().map(|c| c.id.as_str()))?;
        if containers.iter().any(|c| c.pod_name.is_empty()) {
            name_pods(&mut containers, &self.list_sandboxes().await?)?;
        }
        Ok(containers)
    }

    async fn list_sandboxes(&self) -> Result<Vec<Sandbox>, Cause> {
        let reply: messages::ListPodSandboxResponse = self
            .call(self.service, "ListPodSandbox", messages::ListRequest {})
            .await?;
        let sandboxes = reply
            .items
            .into_iter()
            .map(Sandbox::read)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Cause::Reply)?;
        distinct("pod", sandboxes.iter().map(|s| s.id.as_str()))?;
        Ok(sandboxes)
    }

    async fn call<Q, A>(&self, service: &str, method: &str, request: Q) -> Result<A, Cause>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/{service}/{method}"))
            .map_err(|error| Cause::Reply(error.to_string()))?;
        let mut client =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY);
        let broken = |error| Cause::Call(Box::new(Status::from_error(Box::new(error))));
        client.ready().await.map_err(broken)?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let reply = client.unary(Request::new(request), path, codec).await;
        Ok(reply
            .map_err(|status| Cause::Call(Box::new(status)))?
            .into_inner())
    }

    /// A call within the time it may take; `what` is what was asked for.
    async fn bounded<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T> {
        let socket = self.socket.display();
        let doing = || format!("asking the container runtime at {socket} for its {what}");
        self.within(self.timeout, call).await.map_err(|asked| {
            Failure::new(Kind::Unreachable, asked)
                .doing(doing())
                .with(Fact::Endpoint(format!("unix://{socket}")))
        })
    }

    /// The reply, or why it is missing.
    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, String> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Cause::Call(status))) => Err(describe(&status)),
            Ok(Err(Cause::Reply(what))) => Err(what),
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }
}

/// Why a call gave nothing.
enum Cause {
    /// No answer, or a refusal.
    Call(Box<Status>),
    /// An answer that cannot be relied on.
    Reply(String),
}

/// A channel that connects with its first call, and again after a loss.
fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let dial = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { dial(&socket).await.map(TokioIo::new) }
    });
    // The name is only the HTTP/2 authority, which means nothing on a Unix socket.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(dial)
}

/// Connects to a socket, through its directory where the path is too long for an address.
async fn dial(socket: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return UnixStream::connect(socket).await;
    };
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return UnixStream::connect(socket).await;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let dir = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(dir)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
    UnixStream::connect(short.join(name)).await
}

/// What a status says: the innermost cause where there is one, as the words above it only repeat
/// that something went wrong.
fn describe(status: &Status) -> String {
    let mut innermost: Option<&(dyn Error + 'static)> = status.source();
    while let Some(below) = innermost.and_then(Error::source) {
        innermost = Some(below);
    }
    match innermost {
        Some(cause) => cut(cause.to_string()),
        None => cut(format!("{:?}: {}", status.code(), status.message())),
    }
}

fn distinct<'a>(what: &str, ids: impl Iterator<Item = &'a str>) -> Result<(), Cause> {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(Cause::Reply(format!(
                "expected each {what} once, found {id} twice"
            )));
        }
    }
    Ok(())
}

/// Names the pods of containers without the kubelet's labels by their sandboxes. One that may
/// run and belongs to nothing is an error: whoever waits for a pod's end would miss it.
fn name_pods(containers: &mut [Container], sandboxes: &[Sandbox]) -> Result<(), Cause> {
    for container in containers.iter_mut().filter(|c| c.pod_name.is_empty()) {
        match sandboxes.iter().find(|s| s.id == container.sandbox_id) {
            Some(sandbox) => {
                container.pod_namespace.clone_from(&sandbox.pod_namespace);
                container.pod_name.clone_from(&sandbox.pod_name);
                container.pod_uid.clone_from(&sandbox.pod_uid);
            }
            None if container.state == ContainerState::Exited => {}
            None => {
                return Err(Cause::Reply(format!(
                    "expected the pod of container {} ({}), found none",
                    container.id, container.name
                )));
            }
        }
    }
    Ok(())
}

impl Container {
    fn read(raw: messages::Container) -> Result<Self, String> {
        let id = identified("container", raw.id)?;
        let metadata = raw.metadata.unwrap_or_default();
        if metadata.name.is_empty() {
            return Err(format!("expected a name of container {id}, found none"));
        }
        let state = match raw.state {
            0 => ContainerState::Created,
            1 => ContainerState::Running,
            2 => ContainerState::Exited,
            3 => ContainerState::Unknown,
            other => {
                return Err(format!(
                    "expected a state of 0 to 3 of container {id} ({}), found {other}",
                    metadata.name
                ));
            }
        };
        let label = |name: &str| raw.labels.get(name).cloned().unwrap_or_default();
        let image = raw.image.map(|spec| spec.image).unwrap_or_default();
        Ok(Self {
            id,
            name: metadata.name,
            pod_namespace: label(POD_NAMESPACE),
            pod_name: label(POD_NAME),
            pod_uid: label(POD_UID),
            sandbox_id: raw.pod_sandbox_id,
            attempt: metadata.attempt,
            state,
            image: if image.is_empty() {
                raw.image_ref
            } else {
                image
            },
            created: raw.created_at,
            labels: raw.labels,
        })
    }
}

impl Sandbox {
    fn read(raw: messages::PodSandbox) -> Result<Self, String> {
        let id = identified("pod", raw.id)?;
        let metadata = raw.metadata.unwrap_or_default();
        if metadata.name.is_empty() {
            return Err(format!("expected a name of pod {id}, found none"));
        }
        let ready = match raw.state {
            0 => true,
            1 => false,
            other => {
                return Err(format!(
                    "expected a state of 0 or 1 of pod {id} ({}), found {other}",
                    metadata.name
                ));
            }
        };
        Ok(Self {
            id,
            pod_namespace: metadata.namespace,
            pod_name: metadata.name,
            pod_uid: metadata.uid,
            attempt: metadata.attempt,
            ready,
            created: raw.created_at,
            labels: raw.labels,
            annotations: raw.annotations,
        })
    }
}

fn identified(what: &str, id: String) -> Result<String, String> {
    if id.is_empty() {
        return Err(format!("expected an id of every {what}, found one without"));
    }
    Ok(id)
}
