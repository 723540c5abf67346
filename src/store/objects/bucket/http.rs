//! What stands between `object_store` and the network: nothing is buffered by a size that a peer
//! announces, no redirect is followed, no secret of the machine's own goes through a proxy.
//!
//! `object_store` collects answers whole and asks again on every status from 500 on; both are
//! decided here, where each answer passes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE,
};

use super::super::Settings;
use super::page;
use crate::error::{self, Doing, Failure, Kind, Result};

/// How long one request may take: a part at 28 KB/s.
const REQUEST: Duration = Duration::from_secs(300);
/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(15);
/// How long one to the machine's own metadata may take: it is a hop away or not there.
const CONNECT_NEAR: Duration = Duration::from_secs(1);
/// Bytes of an answer that is read whole: a page of 5,000 long names is half of it.
const MAX_ANSWER: usize = 32 << 20;
/// Stands for the ETag of an object where the service sends none; nobody asks for it again.
const NO_ETAG: HeaderValue = HeaderValue::from_static("\"\"");

/// Marks a request whose answer is an object's content: it is streamed, and its reader counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content;

/// Until when an object is retained, as the head of an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retained(pub(super) Timestamp);

/// The headers that tell it: S3's Object Lock (RFC 3339) and Azure Blob's immutability policy (RFC 7231).
const RETAINED: [&str; 2] = [
    "x-amz-object-lock-retain-until-date",
    "x-ms-immutability-policy-until-date",
];

fn retained(headers: &HeaderMap) -> Option<Retained> {
    let told = RETAINED.iter().find_map(|name| headers.get(*name))?;
    let told = told.to_str().ok()?;
    let time = told.parse::<Timestamp>().ok();
    let time = time.or_else(|| {
        jiff::fmt::rfc2822::parse(told)
            .ok()
            .map(|at| at.timestamp())
    });
    time.map(Retained)
}

/// An answer that asking again would not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answered {
    /// The service has no such call (501).
    NotImplemented(String),
    /// A range was asked for, and cannot be had (416), or the whole object came.
    NoRange,
    /// A redirect, which is not followed.
    Redirect(String),
    /// A web page in place of the service's own form.
    WebPage,
    /// More came than such an answer ever has.
    TooLong,
    /// The machine has no metadata service.
    NoMetadata(String),
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotImplemented(text) => write!(f, "the service does not implement this call (501): {text}"),
            Self::NoRange => f.write_str("the service does not support ranges of this object"),
            Self::Redirect(to) => write!(
                f,
                "the service redirects to {to}, and redirects are not followed: set the region or the endpoint of the bucket"
            ),
            Self::WebPage => f.write_str(
                "the answer is a web page: no object store listens there, or a proxy is in front of it; check the endpoint's URL",
            ),
            Self::TooLong => write!(f, "the answer has more than {MAX_ANSWER} bytes"),
            Self::NoMetadata(why) => {
                write!(f, "this machine has no instance metadata service: {why}")
            }
        }
    }
}

impl std::error::Error for Answered {}

impl From<Answered> for HttpError {
    /// Of a kind that is not asked for again.
    fn from(answered: Answered) -> Self {
        Self::new(HttpErrorKind::Unknown, answered)
    }
}

/// What stopped a request, if it is an answer that asking again would not change.
pub(super) fn answered<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e Answered> {
    let mut next = Some(cause);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Answered>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Makes the clients of a store.
#[derive(Debug)]
pub(super) struct Connector {
    patience: Duration,
    certificates: Vec<reqwest::Certificate>,
}

impl Connector {
    /// # Errors
    /// [`Kind::Usage`] if the CA that was given holds no certificate.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let mut certificates = Vec::new();
        if let Some(pem) = &settings.ca {
            certificates = reqwest::Certificate::from_pem_bundle(pem)
                .doing(Kind::Usage, || "reading the CA for stores")?;
            if certificates.is_empty() {
                let what = "reading the CA for stores: it holds no certificate";
                return Err(Failure::new(Kind::Usage, what));
            }
        }
        Ok(Self {
            patience: settings.patience,
            certificates,
        })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |cause: reqwest::Error| object_store::Error::Generic {
            store: "HTTP",
            source: Box::new(cause),
        };
        // An endpoint that is given as http is meant so; no other is spoken to in the clear.
        let clear = options.get_config_value(&ClientConfigKey::AllowHttp);
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("etcd-dr/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .http1_only()
        };
        // Proxy variables are read by the client itself, as every program reads them.
        let far = builder()
            .timeout(REQUEST)
            .connect_timeout(CONNECT.min(self.patience))
            .https_only(clear.as_deref() != Some("true"))
            .tls_certs_merge(self.certificates.iter().cloned())
            .build()
            .map_err(failed)?;
        let near = builder()
            .timeout(CONNECT)
            .connect_timeout(CONNECT_NEAR)
            .no_proxy()
            .tls_certs_only([])
            .build()
            .map_err(failed)?;
        Ok(HttpClient::new(Service { far, near }))
    }
}

/// Whether a host is on the machine's own link, as the clouds' metadata and credentials are. What
/// is said to it is in the clear, and a proxy would answer for another machine.
fn is_near(host: &str) -> bool {
    const NAMES: [&str; 2] = ["metadata.google.internal", "metadata"];
    /// AWS's unique local network for the same (Amazon EC2, "Use the Instance Metadata Service").
    const OF_AWS: u16 = 0xfd00;
    const OF_AWS_NEXT: u16 = 0x0ec2;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => Ipv4Addr::is_link_local(&ip),
        Ok(IpAddr::V6(ip)) => {
            Ipv6Addr::is_unicast_link_local(&ip)
                || matches!(ip.segments(), [OF_AWS, OF_AWS_NEXT, ..])
                || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_link_local())
        }
        Err(_) => NAMES.contains(&host.trim_end_matches('.')),
    }
}

/// Sends requests and reads answers within bounds.
#[derive(Debug)]
struct Service {
    far: reqwest::Client,
    /// Straight, past every proxy.
    near: reqwest::Client,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let about = About::of(&request);
        if request.uri().host().is_some_and(is_near) {
            // Asked once: a cloud's metadata answers at once, and no other machine has any.
            let answer = HttpService::call(&self.near, request).await;
            return match answer {
                Ok(answer) => about.bound(answer).await,
                Err(cause) => Err(Answered::NoMetadata(innermost(&cause)).into()),
            };
        }
        about
            .bound(HttpService::call(&self.far, request).await?)
            .await
    }
}

fn innermost(cause: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = cause;
    while let Some(below) = deepest.source() {
        deepest = below;
    }
    error::cut(deepest.to_string())
}

/// What of a request decides how its answer is read.
struct About {
    is_put: bool,
    /// Whether it puts a part, whose ETag is needed to join it to the others.
    is_part: bool,
    is_listing: bool,
    is_content: bool,
    /// Bytes that were asked for.
    range: Option<u64>,
}

impl About {
    fn of(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let has = |word: &str| query.split('&').any(|pair| pair.starts_with(word));
        Self {
            is_put: request.method() == reqwest::Method::PUT,
            is_part: has("partNumber="),
            is_listing: has("list-type=") || has("comp=list"),
            is_content: request.extensions().get::<Content>().is_some(),
            range: range(request.headers()),
        }
    }

    async fn bound(&self, answer: HttpResponse) -> std::result::Result<HttpResponse, HttpError> {
        let (mut head, body) = answer.into_parts();
        let status = head.status;
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let to = head.headers.get(LOCATION).map(HeaderValue::as_bytes);
            let to = to.map_or("nowhere".into(), |to| String::from_utf8_lossy(to));
            return Err(Answered::Redirect(error::cut(to.into_owned())).into());
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE && self.range.is_some() {
            return Err(Answered::NoRange.into());
        }
        if !status.is_success() {
            let text = refusal(&head.headers, body).await;
            if status == StatusCode::NOT_IMPLEMENTED {
                return Err(Answered::NotImplemented(text).into());
            }
            return Ok(HttpResponse::from_parts(head, text.into()));
        }
        if self.is_content {
            let Some(length) = self.range else {
                return Ok(HttpResponse::from_parts(head, body));
            };
            if status != StatusCode::PARTIAL_CONTENT {
                return Err(Answered::NoRange.into());
            }
            return Ok(HttpResponse::from_parts(head, first(body, length)));
        }
        if is_web_page(&head.headers) {
            return Err(Answered::WebPage.into());
        }
        if let Some(until) = retained(&head.headers) {
            head.extensions.insert(until);
        }
        if self.is_put && !self.is_part {
            // What was put whole is not asked for by its ETag.
            head.headers.entry(ETAG).or_insert(NO_ETAG);
        }
        let mut content = whole(body).await?;
        if self.is_listing {
            content = page::of_names(content);
            // It is the length of what came, and the page may be shorter now.
            head.headers.remove(CONTENT_LENGTH);
        }
        Ok(HttpResponse::from_parts(head, content.into()))
    }
}

/// How many bytes a request asks for: `bytes=A-B`.
fn range(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(RANGE)?.to_str().ok()?;
    let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = (start.parse::<u64>().ok()?, end.parse::<u64>().ok()?);
    end.checked_sub(start)?.checked_add(1)
}

fn is_web_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"text/html"))
}

/// The beginning of what a service says when it refuses; the rest is not read.
async fn refusal(headers: &HeaderMap, body: HttpResponseBody) -> String {
    let mut kept = Vec::new();
    let mut pieces = body.into_data_stream();
    while kept.len() <= error::MAX_TEXT {
        match pieces.next().await {
            Some(Ok(piece)) => kept.extend_from_slice(&piece),
            // The status is reported, whatever happens to the text.
            Some(Err(_)) | None => break,
        }
    }
    let came = kept.len();
    kept.truncate(error::MAX_TEXT);
    let mut text = String::from_utf8_lossy(&kept).into_owned();
    if came > kept.len() {
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let length = length.and_then(|length| length.parse::<u64>().ok());
        match length.and_then(|length| length.checked_sub(kept.len() as u64)) {
            Some(more) => text.push_str(&format!("… {more} bytes more")),
            None => text.push_str("… and more"),
        }
    }
    if is_web_page(headers) {
        text = format!("a web page instead of an object store's answer: {text}");
    }
    text
}

/// The whole of an answer, as it comes and never by what it says of its length.
async fn whole(body: HttpResponseBody) -> std::result::Result<Bytes, HttpError> {
    let mut content = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if content.len().saturating_add(piece.len()) > MAX_ANSWER {
            return Err(Answered::TooLong.into());
        }
        content.extend_from_slice(&piece);
    }
    Ok(content.into())
}

/// The first bytes of a body: a range has no more, whatever is sent.
fn first(body: HttpResponseBody, length: u64) -> HttpResponseBody {
    let pieces = body.into_data_stream().scan(length, |left, piece| {
        let piece = match piece {
            _ if *left == 0 => None,
            Ok(mut piece) => {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            Err(cause) => Some(Err(cause)),
        };
        std::future::ready(piece)
    });
    HttpResponseBody::new(StreamBody::new(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_of_clouds_is_asked_past_every_proxy_and_nothing_else_is() {
        for near in [
            "169.254.169.254",
            "169.254.170.2",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "metadata.google.internal",
            "metadata.google.internal.",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in [
            "127.0.0.1",
            "10.0.0.1",
            "[fd00::1]",
            "s3.amazonaws.com",
            "169.254.169.254.example",
            "metadata.example",
        ] {
            assert!(!is_near(far), "{far}");
        }
    }

    /// A body without an end, which counts what is taken of it.
    fn endless(taken: &std::sync::Arc<std::sync::atomic::AtomicUsize>) -> HttpResponseBody {
        let taken = std::sync::Arc::clone(taken);
        let pieces = futures_util::stream::repeat_with(move || {
            taken.fetch_add(1 << 16, std::sync::atomic::Ordering::SeqCst);
            Ok(Frame::data(Bytes::from_static(&[b'x'; 1 << 16])))
        });
        HttpResponseBody::new(StreamBody::new(pieces))
    }

    fn about() -> About {
        About {
            is_put: false,
            is_part: false,
            is_listing: false,
            is_content: false,
            range: None,
        }
    }

    async fn answer(
        about: About,
        status: u16,
        headers: &[(reqwest::header::HeaderName, &'static str)],
    ) -> (std::result::Result<HttpResponse, HttpError>, usize) {
        let taken = std::sync::Arc::default();
        let mut answer = HttpResponse::new(endless(&taken));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            answer.headers_mut().insert(name, value);
        }
        let mut bound = about.bound(answer).await;
        if let Ok(answer) = bound {
            let (head, body) = answer.into_parts();
            let content = body.into_data_stream().take(64).collect::<Vec<_>>().await;
            let content: Vec<u8> = content.into_iter().flat_map(|p| p.unwrap()).collect();
            bound = Ok(HttpResponse::from_parts(head, content.into()));
        }
        (bound, taken.load(std::sync::atomic::Ordering::SeqCst))
    }

    #[tokio::test]
    async fn no_answer_is_buffered_by_its_announced_length() {
        const HUGE: &str = "1099511627776";
        // A refusal: its first words.
        let (refused, taken) = answer(about(), 403, &[(CONTENT_LENGTH, HUGE)]).await;
        let text = refused.unwrap().into_body().bytes().await.unwrap();
        assert!(text.ends_with("… 1099511623680 bytes more".as_bytes()));
        assert!(
            text.len() < error::MAX_TEXT + 64 && taken <= 1 << 17,
            "{taken}"
        );
        // An answer that is read whole: up to its bound.
        let (long, taken) = answer(about(), 200, &[(CONTENT_LENGTH, HUGE)]).await;
        assert_eq!(answered(&long.unwrap_err()), Some(&Answered::TooLong));
        assert!(taken <= MAX_ANSWER + (1 << 16), "{taken}");
        // A range: as much as was asked for.
        let ranged = || About {
            is_content: true,
            range: Some(100_000),
            ..about()
        };
        let (part, taken) = answer(ranged(), 206, &[(CONTENT_LENGTH, HUGE)]).await;
        let part = part.unwrap().into_body().bytes().await.unwrap();
        assert_eq!((part.len(), taken <= 3 << 16), (100_000, true), "{taken}");
        // The whole in place of a range: none of it.
        for status in [200, 416] {
            let (whole, taken) = answer(ranged(), status, &[(CONTENT_LENGTH, HUGE)]).await;
            assert_eq!(answered(&whole.unwrap_err()), Some(&Answered::NoRange));
            assert_eq!(taken, 0);
        }
    }

    #[tokio::test]
    async fn what_asking_again_cannot_change_is_an_answer() {
        let (none, _) = answer(about(), 501, &[]).await;
        let none = none.unwrap_err();
        assert_eq!(none.kind(), HttpErrorKind::Unknown, "it is not asked again");
        assert!(matches!(answered(&none), Some(Answered::NotImplemented(_))));
        let (moved, taken) = answer(about(), 307, &[(LOCATION, "http://elsewhere/")]).await;
        let moved = moved.unwrap_err();
        assert_eq!(
            answered(&moved),
            Some(&Answered::Redirect("http://elsewhere/".into()))
        );
        assert_eq!((moved.kind(), taken), (HttpErrorKind::Unknown, 0));
        let (page, taken) = answer(about(), 200, &[(CONTENT_TYPE, "Text/HTML; charset=x")]).await;
        assert_eq!(answered(&page.unwrap_err()), Some(&Answered::WebPage));
        assert_eq!(taken, 0);
    }
}
