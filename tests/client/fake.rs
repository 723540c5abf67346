//! A FAKE etcd: a gRPC server that knows only `Maintenance`, and plays a script at any call there.
//! It stands in for misbehaving servers; what a true etcd does is tested on true ones.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use etcd_dr::etcd::client::{ConnectOptions, Connection, Endpoint};
use http_body::Frame;
use http_body_util::StreamBody;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

/// What the fake does next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends these bytes as they are, framing included.
    Raw(Vec<u8>),
    /// Sends a message.
    Send(Message),
    /// Does nothing for a while.
    Wait(Duration),
    /// Breaks the stream off.
    Reset,
    /// Ends with a status.
    Status(i32, &'static str),
}

/// `etcdserverpb.SnapshotResponse`, written by a library that is not ours.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(uint64, tag = "2")]
    pub(crate) remaining_bytes: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) blob: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(crate) version: String,
}

/// A message in gRPC's framing.
pub(crate) fn framed(message: &Message) -> Vec<u8> {
    let bytes = prost::Message::encode_to_vec(message);
    let mut framed = vec![0];
    framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    framed.extend(bytes);
    framed
}

/// Bytes of a database's length that are no database.
pub(crate) fn database(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from((index / 7 + index % 251) % 256).unwrap())
        .collect()
}

/// A stream as etcd sends it: pieces of the database, then the digest alone.
pub(crate) fn honest(database: &[u8], piece: usize, version: &str) -> Vec<Step> {
    let mut remaining = database.len() as u64;
    let mut steps: Vec<Step> = database
        .chunks(piece)
        .map(|blob| {
            remaining -= blob.len() as u64;
            send(remaining, blob, version)
        })
        .collect();
    steps.push(send(0, &Sha256::digest(database), version));
    steps.push(Step::Status(0, ""));
    steps
}

pub(crate) fn send(remaining_bytes: u64, blob: &[u8], version: &str) -> Step {
    Step::Send(Message {
        remaining_bytes,
        blob: blob.to_vec(),
        version: version.to_owned(),
    })
}

/// Starts the fake; it lives as long as the test's runtime.
pub(crate) async fn serve(script: Vec<Step>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Fake(Arc::new(script));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    address
}

#[derive(Clone)]
struct Fake(Arc<Vec<Step>>);

impl NamedService for Fake {
    const NAME: &'static str = "etcdserverpb.Maintenance";
}

impl Service<Request<Body>> for Fake {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let script = self.0.clone();
        Box::pin(async move {
            let (frames, receiver) = mpsc::channel(1);
            tokio::spawn(play(script, frames));
            Ok(Response::builder()
                .header("content-type", "application/grpc")
                .body(Body::new(StreamBody::new(ReceiverStream::new(receiver))))
                .unwrap())
        })
    }
}

type FrameResult = Result<Frame<Bytes>, tonic::Status>;

async fn play(script: Arc<Vec<Step>>, frames: mpsc::Sender<FrameResult>) {
    for step in script.iter() {
        let frame = match step {
            Step::Raw(bytes) => Ok(Frame::data(Bytes::from(bytes.clone()))),
            Step::Send(message) => Ok(Frame::data(Bytes::from(framed(message)))),
            Step::Wait(duration) => {
                tokio::time::sleep(*duration).await;
                continue;
            }
            Step::Reset => Err(tonic::Status::internal("the fake breaks off")),
            Step::Status(code, message) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", (*code).into());
                trailers.insert("grpc-message", message.parse().unwrap());
                Ok(Frame::trailers(trailers))
            }
        };
        // The client may have gone.
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// A connection to a fake that plays this script.
pub(crate) async fn connect(script: Vec<Step>) -> Connection {
    let address = serve(script).await;
    let endpoint = Endpoint::parse(&format!("http://{address}"), false).unwrap();
    Connection::open(&endpoint, &ConnectOptions::default())
        .await
        .unwrap()
}
