use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::Server;

use super::*;

/// What the fake says to one method.
#[derive(Clone)]
enum Answer {
    Message(Vec<u8>),
    Framed(Vec<u8>),
    /// A whole message, but no status behind it.
    CutOff,
    Status(i32, &'static str),
    Hang,
}

type Script = Arc<BTreeMap<&'static str, Answer>>;

/// A fake runtime that plays a script; `ALPHA` is the older service's name.
#[derive(Clone)]
struct Fake<const ALPHA: bool>(Script);

impl<const ALPHA: bool> NamedService for Fake<ALPHA> {
    const NAME: &'static str = SERVICES[ALPHA as usize];
}

impl<const ALPHA: bool> Service<Request<Body>> for Fake<ALPHA> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let answer = self.0.get(method).cloned();
        Box::pin(async move {
            let reply = Response::builder().header("content-type", "application/grpc");
            let framed = match answer.unwrap_or(Answer::Status(12, "unknown method")) {
                Answer::Message(bytes) => {
                    let mut framed = vec![0];
                    framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
                    framed.extend(bytes);
                    framed
                }
                Answer::Framed(bytes) => bytes,
                Answer::CutOff => {
                    let body = Full::new(Bytes::from_static(&[0; 5]));
                    return Ok(reply.body(Body::new(body)).unwrap());
                }
                Answer::Hang => std::future::pending().await,
                Answer::Status(code, message) => {
                    let reply = reply.header("grpc-status", code);
                    let reply = reply.header("grpc-message", message);
                    return Ok(reply.body(Body::empty()).unwrap());
                }
            };
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), 0.into())]);
            let body = Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok(trailers)) });
            Ok(reply.body(Body::new(body)).unwrap())
        })
    }
}

struct Bench {
    dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("crio.sock");
        Self { dir, socket }
    }

    /// Serves the given versions of the service: the newer one, the older one.
    fn serve(self, v1: bool, alpha: bool, script: &[(&'static str, Answer)]) -> Self {
        let mut script: BTreeMap<_, _> = script.iter().cloned().collect();
        script.entry("Version").or_insert(version());
        let script = Arc::new(script);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let server = Server::builder()
            .add_optional_service(v1.then(|| Fake::<false>(script.clone())))
            .add_optional_service(alpha.then_some(Fake::<true>(script)));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        self
    }

    async fn connect(&self) -> Result<Runtime> {
        Runtime::connect(&self.socket, Duration::from_secs(10)).await
    }

    async fn hurried(&self) -> Result<Runtime> {
        Runtime::connect(&self.socket, Duration::from_millis(200)).await
    }

    fn fails<T: std::fmt::Debug>(&self, result: Result<T>, why: &str) {
        let failure = result.unwrap_err();
        assert_eq!(failure.kind(), Kind::Unreachable);
        let text = failure.to_string();
        assert!(text.contains(self.socket.to_str().unwrap()), "{text}");
        assert!(text.contains(why), "{text}");
    }
}

fn version() -> Answer {
    Answer::Message(
        messages::VersionResponse {
            runtime_name: "fake".to_owned(),
            runtime_version: "1.2".to_owned(),
            runtime_api_version: "v1".to_owned(),
        }
        .encode_to_vec(),
    )
}

fn container(id: &str, name: &str, state: i32) -> messages::Container {
    messages::Container {
        id: id.to_owned(),
        pod_sandbox_id: "s1".to_owned(),
        metadata: Some(messages::ContainerMetadata {
            name: name.to_owned(),
            attempt: 3,
        }),
        image: None,
        image_ref: "sha256:1".to_owned(),
        state,
        created_at: 7,
        labels: [
            (POD_NAMESPACE, "kube-system"),
            (POD_NAME, "etcd-a"),
            (POD_UID, "u"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
    }
}

fn containers(list: Vec<messages::Container>) -> (&'static str, Answer) {
    let reply = messages::ListContainersResponse { containers: list };
    ("ListContainers", Answer::Message(reply.encode_to_vec()))
}

fn sandbox(id: &str, name: &str, state: i32) -> messages::PodSandbox {
    messages::PodSandbox {
        id: id.to_owned(),
        metadata: Some(messages::PodSandboxMetadata {
            name: name.to_owned(),
            uid: "u2".to_owned(),
            namespace: "openshift-etcd".to_owned(),
            attempt: 1,
        }),
        state,
        created_at: 9,
        ..Default::default()
    }
}

fn sandboxes(items: Vec<messages::PodSandbox>) -> (&'static str, Answer) {
    let reply = messages::ListPodSandboxResponse { items };
    ("ListPodSandbox", Answer::Message(reply.encode_to_vec()))
}

#[test]
fn a_static_pods_name_ends_with_its_nodes() {
    assert_eq!(
        static_pod_name("etcd", "Master-0.Example.com"),
        "etcd-master-0.example.com"
    );
}

#[tokio::test]
async fn both_versions_of_the_service_are_used() {
    for (v1, alpha, api) in [
        (true, true, "v1"),
        (true, false, "v1"),
        (false, true, "v1alpha2"),
    ] {
        let listed = [
            containers(vec![container("c1", "etcd", 1), container("c2", "etcd", 2)]),
            sandboxes(vec![sandbox("s1", "etcd-a", 0), sandbox("s0", "etcd-a", 1)]),
        ];
        let bench = Bench::new().serve(v1, alpha, &listed);
        let runtime = bench.connect().await.unwrap();
        assert_eq!(runtime.socket(), bench.socket);
        assert_eq!(
            runtime.info(),
            &RuntimeInfo {
                name: "fake".into(),
                version: "1.2".into(),
                api: api.into()
            }
        );
        let found = runtime.containers().await.unwrap();
        assert_eq!(found.len(), 2);
        let first = &found[0];
        assert_eq!((first.id.as_str(), first.name.as_str()), ("c1", "etcd"));
        assert_eq!(first.pod_name, "etcd-a");
        assert_eq!(first.pod_namespace, "kube-system");
        assert_eq!((first.pod_uid.as_str(), first.attempt), ("u", 3));
        assert_eq!((first.image.as_str(), first.created), ("sha256:1", 7));
        assert_eq!(first.state, ContainerState::Running);
        assert_eq!(found[1].state, ContainerState::Exited);
        let pods = runtime.sandboxes().await.unwrap();
        assert_eq!((pods[0].ready, pods[1].ready), (true, false));
        assert_eq!(pods[0].pod_namespace, "openshift-etcd");
        assert_eq!((pods[0].pod_uid.as_str(), pods[0].attempt), ("u2", 1));
    }
    let neither = Bench::new().serve(false, false, &[]);
    neither.fails(neither.connect().await, "Unimplemented");
}

#[tokio::test]
async fn what_cannot_be_relied_on_is_an_error() {
    let nameless = messages::Container {
        metadata: None,
        ..container("c9", "", 1)
    };
    for (list, why) in [
        (vec![container("c1", "etcd", 4)], "found 4"),
        (vec![container("c1", "etcd", -1)], "found -1"),
        (vec![container("", "etcd", 1)], "an id"),
        (vec![nameless], "a name of container c9"),
        (
            vec![container("c1", "etcd", 1), container("c1", "etcd", 2)],
            "c1 twice",
        ),
    ] {
        let bench = Bench::new().serve(true, false, &[containers(list)]);
        let runtime = bench.connect().await.unwrap();
        bench.fails(runtime.containers().await, why);
    }
    for (list, why) in [
        (vec![sandbox("s1", "etcd-a", 2)], "found 2"),
        (vec![sandbox("", "etcd-a", 0)], "an id"),
        (vec![sandbox("s1", "", 0)], "a name of pod s1"),
    ] {
        let bench = Bench::new().serve(true, false, &[sandboxes(list)]);
        let runtime = bench.connect().await.unwrap();
        bench.fails(runtime.sandboxes().await, why);
    }
}

#[tokio::test]
async fn a_container_without_labels_gets_its_pod_from_the_sandbox() {
    let bare = |state| messages::Container {
        labels: BTreeMap::new(),
        ..container("c1", "etcd", state)
    };
    let known = [
        containers(vec![bare(1)]),
        sandboxes(vec![sandbox("s1", "etcd-b", 0)]),
    ];
    let bench = Bench::new().serve(true, false, &known);
    let found = bench.connect().await.unwrap().containers().await.unwrap();
    assert_eq!(found[0].pod_name, "etcd-b");
    assert_eq!(found[0].pod_namespace, "openshift-etcd");
    for (state, fails) in [(0, true), (1, true), (2, false), (3, true)] {
        let orphan = [containers(vec![bare(state)]), sandboxes(vec![])];
        let bench = Bench::new().serve(true, false, &orphan);
        let found = bench.connect().await.unwrap().containers().await;
        assert_eq!(found.is_err(), fails, "state {state}");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_an_error() {
    let silent = Bench::new();
    let _listener = std::os::unix::net::UnixListener::bind(&silent.socket).unwrap();
    silent.fails(silent.hurried().await, "no answer within 200ms");

    let hanging = Bench::new().serve(true, false, &[("Version", Answer::Hang)]);
    hanging.fails(hanging.hurried().await, "no answer within 200ms");

    let hang = [
        ("ListContainers", Answer::Hang),
        ("ListPodSandbox", Answer::Hang),
    ];
    let later = Bench::new().serve(true, false, &hang);
    let mut runtime = later.connect().await.unwrap();
    runtime.timeout = Duration::from_millis(100);
    later.fails(
        runtime.containers().await,
        "its containers: no answer within",
    );
    later.fails(runtime.sandboxes().await, "its pods: no answer within");
}

#[tokio::test]
async fn whoever_refuses_is_named() {
    let absent = Bench::new();
    absent.fails(absent.connect().await, "No such file");
    let dead = Bench::new();
    drop(std::os::unix::net::UnixListener::bind(&dead.socket).unwrap());
    dead.fails(dead.connect().await, "Connection refused");
    let says_no = ("ListContainers", Answer::Status(7, "not for you"));
    let bench = Bench::new().serve(true, true, &[says_no]);
    let runtime = bench.connect().await.unwrap();
    bench.fails(runtime.containers().await, "PermissionDenied: not for you");
    let nobody = Answer::Message(Vec::new());
    let bench = Bench::new().serve(true, true, &[("Version", nobody)]);
    bench.fails(bench.connect().await, "a runtime's name");
}

#[tokio::test]
async fn garbage_and_floods_are_refused() {
    let garbage = Bench::new();
    let listener = UnixListener::bind(&garbage.socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    garbage.fails(garbage.connect().await, "");

    let mut flood = vec![0];
    flood.extend(u32::try_from(MAX_REPLY + 1).unwrap().to_be_bytes());
    flood.resize(4096, 0);
    for (answer, why) in [
        (Answer::Framed(flood), "16777217"),
        (Answer::Framed(vec![0, 0, 0, 0, 9, 1]), ""),
        (Answer::Framed(Vec::new()), ""),
        (Answer::CutOff, ""),
        (Answer::Message(vec![0xff; 40]), ""),
        (Answer::Message(vec![0x0a, 0x7f, 1]), ""),
    ] {
        let bench = Bench::new().serve(true, false, &[("ListContainers", answer)]);
        let runtime = bench.connect().await.unwrap();
        bench.fails(runtime.containers().await, why);
    }
}

#[tokio::test]
async fn a_long_path_is_reached_and_a_restarted_runtime_again() {
    let mut bench = Bench::new();
    let deep = bench.dir.path().join("d".repeat(60)).join("e".repeat(60));
    std::fs::create_dir_all(&deep).unwrap();
    let served = Bench::new().serve(true, false, &[containers(vec![])]);
    bench.socket = deep.join("crio.sock");
    std::fs::rename(&served.socket, &bench.socket).unwrap();
    assert!(bench.socket.as_os_str().len() > MAX_SOCKET_PATH);
    let runtime = bench.connect().await.unwrap();
    assert_eq!(runtime.containers().await.unwrap(), []);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let first = Bench::new();
    let listener = UnixListener::bind(&first.socket).unwrap();
    let script: Script = Arc::new([("Version", version())].into());
    let server = Server::builder()
        .add_service(Fake::<false>(script))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
            drop(stopped.await)
        });
    let server = tokio::spawn(server);
    let runtime = first.connect().await.unwrap();
    drop(stop);
    // The server closes its connections once they are idle.
    server.await.unwrap().unwrap();
    first.fails(runtime.containers().await, "");
    std::fs::remove_file(&first.socket).unwrap();
    let again = first.serve(true, false, &[containers(vec![container("c1", "etcd", 1)])]);
    assert_eq!(runtime.containers().await.unwrap().len(), 1);
    drop(again);
}
