//! `/metrics`, `/healthz` and `/readyz` by HTTP/1.1, plain or by TLS.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
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
use tokio::task::AbortHandle;

use super::Metrics;
use super::tls::Tls;
use crate::context::Context;
use crate::error::{Doing, Kind, Result};
use crate::keep::schedule::Pulse;

/// How many connections there are at most; for one more the oldest is closed.
const MAX_CONNECTIONS: usize = 64;
/// How many one address has at most.
const MAX_OF_AN_ADDRESS: usize = 16;
/// The longest a connection lasts.
const LONGEST: Duration = Duration::from_secs(10);
/// The longest a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is served.
#[derive(Debug, Default)]
pub struct Served {
    /// The metrics.
    pub metrics: Metrics,
    /// Whether the schedule is alive.
    pub pulse: Pulse,
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
/// [`Kind::Usage`] if the address cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .doing(Kind::Usage, || format!("listening on {address}"))
}

/// The connections there are, the oldest first.
#[derive(Debug, Default)]
struct Connections(VecDeque<(IpAddr, AbortHandle)>);

impl Connections {
    /// Makes room for one from an address: whoever connects is heard, and who says nothing loses its
    /// place to others, those of its own address first. An answer takes moments, so that the oldest
    /// are those that wait for nothing but time.
    fn make_room(&mut self, address: IpAddr) {
        self.0.retain(|(_, task)| !task.is_finished());
        let of_it = |(of, _): &&(IpAddr, AbortHandle)| *of == address;
        let oldest = if self.0.iter().filter(of_it).count() >= MAX_OF_AN_ADDRESS {
            self.0.iter().position(|(of, _)| *of == address)
        } else {
            (self.0.len() >= MAX_CONNECTIONS).then_some(0)
        };
        if let Some((_, task)) = oldest.and_then(|place| self.0.remove(place)) {
            task.abort();
        }
    }
}

/// Serves until it is dropped, by TLS where that is given.
pub async fn serve(
    listener: TcpListener,
    served: Arc<Served>,
    tls: Option<Arc<Tls>>,
    context: Context,
) {
    let mut connections = Connections::default();
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Out of descriptors, for one: it may pass.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        connections.make_room(from.ip());
        let (served, tls, context) = (served.clone(), tls.clone(), context.clone());
        let task = tokio::spawn(async move {
            let work = async {
                match tls {
                    None => connection(stream, served, true).await,
                    Some(tls) => secured(stream, served, &tls, &context).await,
                }
            };
            // A reader that goes away is its own affair.
            let _ = tokio::time::timeout(LONGEST, work).await;
        });
        connections.0.push_back((from.ip(), task.abort_handle()));
    }
}

/// A connection by TLS. If the handshake fails, the reader learns why from TLS itself.
async fn secured(stream: TcpStream, served: Arc<Served>, tls: &Tls, context: &Context) {
    let (acceptor, wrong) = tls.acceptor();
    if let Some(failure) = wrong {
        let what = format!("the files read before stay in use: {failure}");
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
        // Prometheus asks once in a while: a connection that stays open only takes a place.
        .keep_alive(false)
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    let _ = connection.await;
}

fn answer(method: &Method, path: &str, served: &Served, may_read: bool) -> Response<Full<Bytes>> {
    let (status, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") if !may_read => (
            StatusCode::UNAUTHORIZED,
            "a client certificate is required\n".to_owned(),
        ),
        (&Method::GET | &Method::HEAD, "/metrics") => match served.metrics.render() {
            Ok(text) => (StatusCode::OK, text),
            Err(failure) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{failure}\n")),
        },
        (&Method::GET | &Method::HEAD, "/readyz") if !served.ready.load(Ordering::SeqCst) => {
            (StatusCode::SERVICE_UNAVAILABLE, "not yet\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/healthz" | "/readyz") => match served.pulse.trouble() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
        },
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::context::Cancel;
    use crate::event::Silent;

    async fn get(address: SocketAddr, path: &str) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, asked).await.expect("an answer")
    }

    #[tokio::test]
    async fn a_probe_is_answered_while_others_hold_half_a_request_each() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(Served::default());
        let context = Context {
            observer: Arc::new(Silent),
            now: jiff::Timestamp::UNIX_EPOCH,
            cancel: Cancel::default(),
        };
        let serving = tokio::spawn(serve(listener, served.clone(), None, context));
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS + MAX_OF_AN_ADDRESS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some are closed by now.
            let _ = stream.write_all(b"GET /metrics HT").await;
            held.push(stream);
        }
        for _ in 0..3 {
            let answer = get(address, "/healthz").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        // Probes get what is wrong with the schedule.
        let token = Arc::new(());
        served.set_ready(true);
        served.pulse.gave_up(Arc::downgrade(&token));
        for path in ["/healthz", "/readyz"] {
            let answer = get(address, path).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{path}: {answer}");
            assert!(answer.contains("has not ended"), "{path}: {answer}");
        }
        drop(token);
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        serving.abort();
    }

    #[tokio::test]
    async fn the_oldest_of_an_address_goes_first_and_then_the_oldest_of_all() {
        let mut connections = Connections::default();
        let mut tasks = Vec::new();
        let mut come = |last: u8, connections: &mut Connections| {
            let address = IpAddr::from([10, 0, 0, last]);
            connections.make_room(address);
            let task = tokio::spawn(std::future::pending::<()>());
            connections.0.push_back((address, task.abort_handle()));
            tasks.push(task);
        };
        come(1, &mut connections);
        for _ in 0..=MAX_OF_AN_ADDRESS {
            come(2, &mut connections);
        }
        let of = |last: u8, connections: &Connections| {
            let address = IpAddr::from([10, 0, 0, last]);
            connections
                .0
                .iter()
                .filter(|(of, _)| *of == address)
                .count()
        };
        assert_eq!(
            (of(1, &connections), of(2, &connections)),
            (1, MAX_OF_AN_ADDRESS)
        );
        for last in 3..=(MAX_CONNECTIONS as u8) {
            come(last, &mut connections);
        }
        assert_eq!(connections.0.len(), MAX_CONNECTIONS);
        assert_eq!(of(1, &connections), 0);
    }
}
