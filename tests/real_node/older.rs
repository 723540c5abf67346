//! The same container runtime as one from before Kubernetes 1.20: what knows both versions of the
//! CRI, reached through a relay that knows the older one alone.

use std::convert::Infallible;
use std::path::Path;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Error, Server, Uri};
use tower::ServiceExt;

/// Hands every call on as it is.
#[derive(Clone)]
struct Relay(Channel);

impl NamedService for Relay {
    const NAME: &'static str = "runtime.v1alpha2.RuntimeService";
}

impl Service<Request<Body>> for Relay {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.0.clone();
        Box::pin(async move { Ok(channel.oneshot(request).await.expect("relaying a call")) })
    }
}

/// Listens on `socket` for calls of the older version, and hands them on to `runtime`.
pub fn relay(runtime: &Path, socket: &Path) -> JoinHandle<Result<(), Error>> {
    let runtime = runtime.to_owned();
    let dial = tower::service_fn(move |_: Uri| {
        let runtime = runtime.clone();
        async move { UnixStream::connect(runtime).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(dial);
    let listener = UnixListener::bind(socket).expect("listening for the relay");
    let server = Server::builder().add_service(Relay(channel));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)))
}
