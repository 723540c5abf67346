//! The stand-in container runtime: the CRI over a Unix socket, as far as a restore asks.

use std::convert::Infallible;
use std::future::pending;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Code, Status};

use super::faults::{Answer, Faults, Lie};
use super::messages::{self as cri, ContainerState, PodSandboxState};
use super::records::ContainerRecord;
use super::{Api, Shared, lock};

/// Listens on the socket, and serves until told to stop.
pub async fn serve(
    listener: UnixListener,
    shared: Arc<Shared>,
    api: Api,
    stop: oneshot::Receiver<()>,
) {
    let v1 = matches!(api, Api::Both | Api::V1).then(|| Cri::<false>(shared.clone()));
    let alpha = matches!(api, Api::Both | Api::V1alpha2).then(|| Cri::<true>(shared));
    let server = Server::builder()
        .add_optional_service(v1)
        .add_optional_service(alpha)
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! {
        ended = server => ended.expect("serving the CRI"),
        // The end of the bench; calls that still wait get no answer.
        _ = stop => {}
    }
}

/// Binds a socket, through its directory: an address holds 107 bytes, and a scratch node's path
/// can be longer.
pub fn bind(socket: &Path) -> UnixListener {
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        panic!("{} is no place for a socket", socket.display());
    };
    std::fs::create_dir_all(dir).expect("making the socket's directory");
    if let Err(error) = std::fs::remove_file(socket) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    }
    let dir = std::fs::File::open(dir).expect("opening the socket's directory");
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
    UnixListener::bind(short.join(name))
        .unwrap_or_else(|error| panic!("listening on {}: {error}", socket.display()))
}

/// The service; `ALPHA` is its older name.
#[derive(Clone)]
struct Cri<const ALPHA: bool>(Arc<Shared>);

impl<const ALPHA: bool> NamedService for Cri<ALPHA> {
    const NAME: &'static str = match ALPHA {
        false => "runtime.v1.RuntimeService",
        true => "runtime.v1alpha2.RuntimeService",
    };
}

impl<const ALPHA: bool> Service<Request<Body>> for Cri<ALPHA> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            Ok(match method {
                "Version" => {
                    answer(request, shared, |_: cri::VersionRequest, _| {
                        Ok(version(ALPHA))
                    })
                    .await
                }
                "ListContainers" => {
                    answer(request, shared, |asked: cri::ListRequest, shared| {
                        unfiltered(&asked)?;
                        let containers = containers(shared);
                        Ok(cri::ListContainersResponse { containers })
                    })
                    .await
                }
                "ListPodSandbox" => {
                    answer(request, shared, |asked: cri::ListRequest, shared| {
                        unfiltered(&asked)?;
                        let items = sandboxes(shared);
                        Ok(cri::ListPodSandboxResponse { items })
                    })
                    .await
                }
                "StopContainer" => {
                    answer(
                        request,
                        shared,
                        |asked: cri::StopContainerRequest, shared| stop_container(&asked, shared),
                    )
                    .await
                }
                "RemoveContainer" => {
                    answer(
                        request,
                        shared,
                        |asked: cri::RemoveContainerRequest, shared| {
                            remove_container(&asked, shared)
                        },
                    )
                    .await
                }
                "RemovePodSandbox" => {
                    let takes = lock(&shared.faults).removal;
                    shared.say_each("the runtime is told to remove a pod");
                    tokio::time::sleep(takes).await;
                    answer(
                        request,
                        shared,
                        |asked: cri::RemovePodSandboxRequest, shared| {
                            remove_sandbox(&asked, shared)
                        },
                    )
                    .await
                }
                other => Status::unimplemented(format!("the stand-in has no {other}")).into_http(),
            })
        })
    }
}

fn version(alpha: bool) -> cri::VersionResponse {
    cri::VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: "stand-in".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: if alpha { "v1alpha2" } else { "v1" }.to_owned(),
    }
}

/// Answers one call, unless a fault has it otherwise.
async fn answer<Q, A>(
    request: Request<Body>,
    shared: Arc<Shared>,
    handle: impl Fn(Q, &Shared) -> Result<A, Status> + Clone + Send + 'static,
) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
{
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        let (shared, handle) = (shared.clone(), handle.clone());
        async move {
            let fault = lock(&shared.faults).answer.clone();
            match fault {
                Answer::Normal => {}
                Answer::Error(code, message) => {
                    return Err(Status::new(Code::from_i32(code), message));
                }
                Answer::Hang => pending().await,
            }
            handle(request.into_inner(), &shared).map(tonic::Response::new)
        }
    });
    tonic::server::Grpc::new(tonic_prost::ProstCodec::<A, Q>::default())
        .unary(service, request)
        .await
}

/// Has the kubelet's thread, whose processes they are, stop it; answers before it has ended, where
/// a true runtime answers after.
fn stop_container(
    asked: &cri::StopContainerRequest,
    shared: &Shared,
) -> Result<cri::StopContainerResponse, Status> {
    let records = lock(&shared.records);
    let mut known = records.containers.iter().filter(|c| !c.removed);
    let container = known.find(|container| container.id == asked.container_id);
    let container = container.ok_or_else(|| Status::not_found("no such container"))?;
    shared.say(format!(
        "the runtime is told to stop {} of {} within {} s",
        container.name, container.manifest_name, asked.timeout
    ));
    // The kubelet's thread locks them in the other order.
    drop(records);
    let grace = Duration::from_secs(u64::try_from(asked.timeout).unwrap_or_default());
    lock(&shared.stops).push((asked.container_id.clone(), Instant::now() + grace));
    Ok(cri::StopContainerResponse {})
}

/// As the CRI has it, one that runs would be killed; nobody here may ask for that.
fn remove_container(
    asked: &cri::RemoveContainerRequest,
    shared: &Shared,
) -> Result<cri::RemoveContainerResponse, Status> {
    let mut records = lock(&shared.records);
    let mut all = records.containers.iter_mut();
    let found = all.find(|container| container.id == asked.container_id);
    match found {
        Some(container) if container.running => {
            Err(Status::failed_precondition("the container runs"))
        }
        Some(container) => {
            container.removed = true;
            Ok(cri::RemoveContainerResponse {})
        }
        None => Ok(cri::RemoveContainerResponse {}),
    }
}

/// With all its containers; a pod that stands, or has a container that runs, may not be removed.
fn remove_sandbox(
    asked: &cri::RemovePodSandboxRequest,
    shared: &Shared,
) -> Result<cri::RemovePodSandboxResponse, Status> {
    let mut records = lock(&shared.records);
    let id = &asked.pod_sandbox_id;
    let of_pod = |container: &&mut ContainerRecord| container.sandbox_id == *id;
    let stands = records.sandboxes.iter().any(|s| s.id == *id && s.ready);
    if stands
        || records
            .containers
            .iter_mut()
            .filter(of_pod)
            .any(|c| c.running)
    {
        return Err(Status::failed_precondition("the pod stands"));
    }
    records
        .containers
        .iter_mut()
        .filter(of_pod)
        .for_each(|container| container.removed = true);
    let mut sandboxes = records.sandboxes.iter_mut();
    if let Some(sandbox) = sandboxes.find(|sandbox| sandbox.id == *id) {
        sandbox.removed = true;
    }
    shared.say_each("the runtime has removed a pod");
    Ok(cri::RemovePodSandboxResponse {})
}

/// The stand-in knows no filters; to ignore one would be a lie.
fn unfiltered(asked: &cri::ListRequest) -> Result<(), Status> {
    match asked.filter.as_deref() {
        None | Some([]) => Ok(()),
        Some(_) => Err(Status::unimplemented("the stand-in has no filters")),
    }
}

fn containers(shared: &Shared) -> Vec<cri::Container> {
    let faults = lock(&shared.faults).clone();
    let records = lock(&shared.records);
    let mut listed = Vec::new();
    for record in records.containers.iter().filter(|record| !record.removed) {
        let lie = lie(&faults, &record.manifest_name);
        let running = match lie {
            Lie::Gone => continue,
            Lie::None => record.running,
            Lie::Ended => false,
            Lie::RunsForEver => true,
            Lie::Stands => record.running,
        };
        let later = u32::from(faults.earlier_attempts);
        if later == 1 && record.attempt == 0 {
            let mut earlier = record.clone();
            earlier.id = record.id.chars().rev().collect();
            listed.push(container(&earlier, 0, false));
        }
        listed.push(container(record, record.attempt + later, running));
    }
    listed
}

fn container(record: &ContainerRecord, attempt: u32, running: bool) -> cri::Container {
    let state = match running {
        true => ContainerState::Running,
        false => ContainerState::Exited,
    };
    cri::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox_id.clone(),
        metadata: Some(cri::ContainerMetadata {
            name: record.name.clone(),
            attempt,
        }),
        image: Some(cri::ImageSpec {
            image: record.image.clone(),
        }),
        image_ref: record.image.clone(),
        state: state as i32,
        created_at: record.created,
        labels: record.labels.clone(),
        ..Default::default()
    }
}

fn sandboxes(shared: &Shared) -> Vec<cri::PodSandbox> {
    let faults = lock(&shared.faults).clone();
    let records = lock(&shared.records);
    let mut listed = Vec::new();
    for record in records.sandboxes.iter().filter(|record| !record.removed) {
        let ready = match lie(&faults, &record.manifest_name) {
            Lie::Gone => continue,
            Lie::None => record.ready,
            Lie::Ended => false,
            Lie::RunsForEver | Lie::Stands => true,
        };
        let state = match ready {
            true => PodSandboxState::Ready,
            false => PodSandboxState::NotReady,
        };
        listed.push(cri::PodSandbox {
            id: record.id.clone(),
            metadata: Some(cri::PodSandboxMetadata {
                name: record.name.clone(),
                uid: record.uid.clone(),
                namespace: record.namespace.clone(),
                attempt: record.attempt,
            }),
            state: state as i32,
            created_at: record.created,
            labels: record.labels.clone(),
            annotations: record.annotations.clone(),
            runtime_handler: String::new(),
        });
    }
    listed
}

fn lie(faults: &Faults, pod: &str) -> Lie {
    match faults.is_about(pod) {
        true => faults.lie,
        false => Lie::None,
    }
}
