//! `/metrics`, `/healthz` and `/readyz` by HTTP/1.1, plain or by TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Metrics;
use super::tls::Tls;
use crate::error::{Doing, Kind, Result};
use crate::ops::Context;

/// How many are served at once; more wait.
const AT_ONCE: usize = 16;
/// The longest a connection lasts.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is served.
#[derive(Debug, Default)]
pub struct Served {
    /// The metrics.
    pub metrics: Metrics,
    ready: AtomicBool,
}

impl Served {
    /// From now on `/readyz` says yes, or no: whether the schedule is followed.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }
}

/// Listens.
///
/// # Errors
/// [`Kind::Usage`] where the address cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .doing(Kind::Usage, || format!("listening on {address}"))
}

/// Serves until it is dropped, by TLS where that is given.
pub async fn serve(
    listener: TcpListener,
    served: Arc<Served>,
    tls: Option<Arc<Tls>>,
    context: Context,
) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for one: it may pass.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let (served, tls, context) = (served.clone(), tls.clone(), context.clone());
        tokio::spawn(async move {
            let work = async {
                match tls {
                    None => connection(stream, served, true).await,
                    Some(tls) => secured(stream, served, &tls, &context).await,
                }
            };
            // A reader that goes away is its own affair.
            let _ = tokio::time::timeout(LONGEST, work).await;
            drop(slot);
        });
    }
}

/// A connection by TLS. A handshake that fails is the reader's affair: it is told why.
async fn secured(stream: TcpStream, served: Arc<Served>, tls: &Tls, context: &Context) {
    let (acceptor, wrong) = tls.acceptor();
    if let Some(failure) = wrong {
        let what = format!("what was read before is used on: {failure}");
        context.warn("metrics-certificate", what);
    }
    let shaken = tokio::time::timeout(HEAD, acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = shaken else { return };
    // The handshake has verified it.
    let known = stream.get_ref().1.peer_certificates().is_some();
    connection(stream, served, known || !tls.asks()).await;
}

/// Answers on one connection; `may_read` says whether the metrics are for who is there.
async fn connection<S>(stream: S, served: Arc<Served>, may_read: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &served, may_read);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    let _ = connection.await;
}

fn answer(method: &Method, path: &str, served: &Served, may_read: bool) -> Response<Full<Bytes>> {
    let (status, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") if !may_read => (
            StatusCode::UNAUTHORIZED,
            "a client certificate is needed\n".to_owned(),
        ),
        (&Method::GET | &Method::HEAD, "/metrics") => match served.metrics.render() {
            Ok(text) => (StatusCode::OK, text),
            Err(failure) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{failure}\n")),
        },
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") if served.ready.load(Ordering::SeqCst) => {
            (StatusCode::OK, "ok\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, "not yet\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "not found\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
