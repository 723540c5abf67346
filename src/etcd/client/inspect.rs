//! What an address shows below etcd's API: whether anything serves there, the certificates it
//! presents, its page of metrics, and what a peer port says of the members.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::endpoint::Endpoint;
use super::options::ConnectOptions;
use super::tls::TlsConfig;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::ids::MemberId;
use crate::etcd::snapshot;
use crate::sys::crypto;

/// The largest page of metrics that is read.
const PAGE_LIMIT: u64 = 8 << 20;

/// What a member's page of metrics says.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The member's clock, in whole seconds as HTTP gives it, rounded down.
    pub date: Option<Timestamp>,
    /// When the request was sent, and when the answer began: the clock was read between.
    pub asked: Instant,
    /// See `asked`.
    pub answered: Instant,
    /// The quota of the database (`etcd_server_quota_backend_bytes`, 3.4 and later), in bytes.
    pub quota: Option<u64>,
    /// The members that it is connected to (`etcd_network_active_peers`): what etcd itself goes by
    /// when it judges whether its members are connected.
    pub active_peers: BTreeSet<MemberId>,
}

/// The certificates that a server presents, in DER, its own first. Nothing is checked and nothing
/// is sent: it is a look, and the connection ends with it.
///
/// # Errors
/// [`Kind::Unreachable`] if no TLS server answers.
pub async fn presented_certificates(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<Vec<Vec<u8>>> {
    let doing = || format!("looking at the certificate of {host}:{port}");
    let shaking = async {
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.doing(Kind::Unreachable, doing)?;
        Ok(shake_hands(host, stream, limit).await)
    };
    match timeout(limit, shaking).await {
        Ok(Ok((seen, _))) if !seen.is_empty() => Ok(seen),
        Ok(Ok((_, Some(Err(error))))) => Err(Failure::wrap(Kind::Unreachable, error, doing())),
        Ok(Ok((_, Some(Ok(()))))) => {
            Err(Failure::new(Kind::Unreachable, "it presents no certificate").doing(doing()))
        }
        Ok(Err(failure)) => Err(failure),
        Ok(Ok((_, None))) | Err(_) => {
            Err(Failure::new(Kind::Unreachable, "timed out").doing(doing()))
        }
    }
}

/// Shakes hands over TLS and checks nothing: the certificates seen, and how it ended, if it ended
/// in time. A server that demands our certificate ends it after it has shown its own.
async fn shake_hands(
    host: &str,
    stream: TcpStream,
    limit: Duration,
) -> (Vec<Vec<u8>>, Option<std::io::Result<()>>) {
    let recorder = Arc::new(Recorder {
        seen: Mutex::default(),
        provider: crypto::provider(),
    });
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(recorder.clone())
                .with_no_client_auth()
        });
    let name = ServerName::try_from(host.to_owned());
    let ended = match (config, name) {
        (Ok(config), Ok(name)) => {
            let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
            let ended = timeout(limit, shaking).await.ok();
            ended.map(|ended| ended.map(|_| ()))
        }
        (Err(error), _) => Some(Err(std::io::Error::other(error))),
        (_, Err(error)) => Some(Err(std::io::Error::other(error))),
    };
    let seen = recorder.seen.lock();
    (seen.map(|seen| seen.clone()).unwrap_or_default(), ended)
}

/// The result of a knock at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Knock {
    /// A server answers: it spoke TLS or HTTP.
    Answers,
    /// Nothing serves there: the connection was refused, or no host answered in time.
    Silent,
    /// The connection was accepted and no word came; why that is not enough to go by.
    Unclear(String),
    /// The question never left this machine: no address for the name, no route; why.
    Untried(String),
}

/// Knocks at an address, without a certificate: whether anything serves there.
pub async fn knock(tls: bool, host: &str, port: u16, limit: Duration) -> Knock {
    let deadline = Instant::now() + limit;
    let addresses = match timeout_at(deadline, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Knock::Untried(format!("{host} does not resolve: {error}")),
        Err(_) => return Knock::Untried(format!("{host} was not resolved in time")),
    };
    let mut last = Knock::Untried(format!("{host} has no address"));
    for address in addresses {
        match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return spoken_to(tls, host, stream, limit).await,
            Ok(Err(error)) => {
                use std::io::ErrorKind as E;
                last = match error.kind() {
                    E::ConnectionRefused
                    | E::HostUnreachable
                    | E::TimedOut
                    | E::ConnectionReset => Knock::Silent,
                    _ => Knock::Untried(error.to_string()),
                };
            }
            // As of a machine that is switched off.
            Err(_) => last = Knock::Silent,
        }
    }
    last
}

/// Says something over a connection that was accepted, and waits for any word.
async fn spoken_to(tls: bool, host: &str, mut stream: TcpStream, limit: Duration) -> Knock {
    let nothing = |why: String| Knock::Unclear(format!("it accepts connections, but {why}"));
    if tls {
        return match shake_hands(host, stream, limit).await {
            (seen, _) if !seen.is_empty() => Knock::Answers,
            (_, Some(Ok(()))) => Knock::Answers,
            // Any word of the server's, also one that is no TLS, is a server's.
            (_, Some(Err(error))) if error.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => {
                Knock::Answers
            }
            (_, Some(Err(error))) => nothing(format!("closes them: {error}")),
            (_, None) => nothing("never answers".to_owned()),
        };
    }
    let asking = async {
        let request = format!("GET /version HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.read_exact(&mut [0; 1]).await
    };
    match timeout(limit, asking).await {
        Ok(Ok(_)) => Knock::Answers,
        Ok(Err(error)) => nothing(format!("closes them: {error}")),
        Err(_) => nothing("never answers".to_owned()),
    }
}

/// What a member's peer port says.
#[derive(Debug, Clone)]
pub struct PeerSays {
    /// Its cluster's id.
    pub cluster_id: Option<u64>,
    /// The members, as it knows them.
    pub members: Vec<snapshot::Member>,
}

/// The members as a member's peer port lists them: `GET /members`, which etcd has served there
/// since before 3.4.
///
/// # Errors
/// [`Kind::Unreachable`] if it does not answer, or with something else.
pub async fn peer_members(endpoint: &Endpoint, options: &ConnectOptions) -> Result<PeerSays> {
    let doing = || format!("asking {endpoint} for the members");
    let limit = options.connect_timeout.saturating_add(options.call_timeout);
    let asking = read_page(endpoint, options.tls.as_ref(), "/members");
    let page = match timeout(limit, asking).await {
        Ok(page) => page.doing(Kind::Unreachable, doing)?,
        Err(_) => return Err(Failure::new(Kind::Unreachable, "timed out").doing(doing())),
    };
    let (head, body) = page.text.split_once("\r\n\r\n").unwrap_or_default();
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let mut ids = headers.filter(|(name, _)| name.eq_ignore_ascii_case("x-etcd-cluster-id"));
    let id = ids.next().map(|(_, id)| id.trim());
    Ok(PeerSays {
        cluster_id: id.and_then(|id| u64::from_str_radix(id, 16).ok()),
        members: serde_json::from_str(body).doing(Kind::Unreachable, doing)?,
    })
}

/// Reads a member's page of metrics, over plain HTTP/1.0 or the same over TLS.
///
/// # Errors
/// [`Kind::Unreachable`].
pub async fn metrics(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Metrics> {
    let doing = || format!("reading the metrics of {endpoint}");
    let limit = options.connect_timeout.saturating_add(options.call_timeout);
    let reading = async {
        let page = read_page(endpoint, options.tls.as_ref(), "/metrics").await?;
        check_page(&page.text)?;
        anyhow::Ok(page)
    };
    match timeout(limit, reading).await {
        Ok(page) => page.doing(Kind::Unreachable, doing).map(|page| Metrics {
            date: date(&page.text),
            quota: quota(&page.text),
            active_peers: active_peers(&page.text),
            asked: page.asked,
            answered: page.answered,
        }),
        Err(_) => Err(Failure::new(Kind::Unreachable, "timed out").doing(doing())),
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A page and when it came.
struct Page {
    text: String,
    asked: Instant,
    answered: Instant,
}

async fn read_page(
    endpoint: &Endpoint,
    tls: Option<&TlsConfig>,
    path: &str,
) -> anyhow::Result<Page> {
    let address = endpoint.as_str().split_once("://").map(|(_, rest)| rest);
    let (Some(host), Some(address)) = (endpoint.host(), address) else {
        anyhow::bail!("a Unix socket has no such page");
    };
    let stream = TcpStream::connect(address).await?;
    let mut stream: Box<dyn Stream> = match tls {
        Some(tls) if endpoint.is_tls() => {
            let mut config = tls.client_config(Arc::default())?;
            // Pages come over HTTP/1.
            config.alpn_protocols.clear();
            let name = tls.name_for(host)?;
            Box::new(
                TlsConnector::from(Arc::new(config))
                    .connect(name, stream)
                    .await?,
            )
        }
        _ => Box::new(stream),
    };
    let asked = Instant::now();
    // With HTTP/1.0 the page ends where the connection ends.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut page = Vec::new();
    let mut first = [0; 1];
    // The page's `Date` is of when it begins, however long it is.
    stream.read_exact(&mut first).await?;
    let answered = Instant::now();
    page.extend_from_slice(&first);
    match stream.take(PAGE_LIMIT).read_to_end(&mut page).await {
        // Go's server may close a TLS connection without the word for it.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => {}
    }
    Ok(Page {
        text: String::from_utf8_lossy(&page).into_owned(),
        asked,
        answered,
    })
}

/// A server that serves gRPC alone, or something else than etcd, answers too.
fn check_page(page: &str) -> anyhow::Result<()> {
    let status = page.lines().next().unwrap_or_default();
    let code = status
        .strip_prefix("HTTP/")
        .and_then(|rest| rest.split(' ').nth(1));
    match code {
        Some("200") if page.contains("\netcd_server_") => Ok(()),
        Some("200") => anyhow::bail!("the page is not from etcd"),
        Some(code) => anyhow::bail!("it answers {}", code.escape_debug()),
        None => anyhow::bail!("no HTTP server answers"),
    }
}

/// The `Date` among the page's headers.
fn date(page: &str) -> Option<Timestamp> {
    let headers = page.lines().take_while(|line| !line.is_empty());
    let (_, value) = headers
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("date"))?;
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value.trim())
        .ok()
}

/// The quota among the metrics: a number in Go's notation, as `8.589934592e+09`.
fn quota(page: &str) -> Option<u64> {
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix("etcd_server_quota_backend_bytes "))?;
    let bytes: f64 = value.trim().parse().ok()?;
    // Beyond 2^53 no whole number is exact, and no quota sensible.
    (1.0..9e15).contains(&bytes).then_some(bytes as u64)
}

/// The peers among the metrics whose connection is up. One that never was has no line.
fn active_peers(page: &str) -> BTreeSet<MemberId> {
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("etcd_network_active_peers{"));
    lines
        .filter_map(|line| {
            let (labels, value) = line.rsplit_once('}')?;
            let remote = labels
                .split(',')
                .find_map(|label| label.trim().strip_prefix("Remote=\""))?;
            let id = u64::from_str_radix(remote.strip_suffix('"')?, 16).ok()?;
            let up: f64 = value.trim().parse().ok()?;
            (up > 0.0).then_some(MemberId(id))
        })
        .collect()
}

/// Accepts whatever is presented, and keeps it.
#[derive(Debug)]
struct Recorder {
    seen: Mutex<Vec<Vec<u8>>>,
    provider: rustls::crypto::CryptoProvider,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut seen) = self.seen.lock() {
            let all = std::iter::once(own).chain(others);
            *seen = all.map(|der| der.to_vec()).collect();
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_and_quota_are_read_from_a_page() {
        let page = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\
                    Date: Sat, 21 Nov 2026 06:15:30 GMT\r\n\r\n# HELP etcd_server_quota_backend_bytes x\n\
                    etcd_server_quota_backend_bytes 8.589934592e+09\nother 1\n";
        assert_eq!(
            date(page),
            Some("2026-11-21T06:15:30Z".parse().unwrap()),
            "{page}"
        );
        assert_eq!(quota(page), Some(8 << 30));
        assert_eq!(quota("etcd_server_quota_backend_bytes NaN\n"), None);
        assert_eq!(quota("etcd_server_quota_backend_bytes -1\n"), None);
        assert_eq!(date("HTTP/1.0 200 OK\r\n\r\nDate: x\n"), None);
        assert!(check_page(page).is_ok());
        for other in [
            "",
            "\0\0\u{6}\u{4}",
            "HTTP/1.1 404 Not Found\r\n\r\n\netcd_server_x 1",
            "HTTP/1.1 200 OK\r\n\r\nhello",
        ] {
            assert!(check_page(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn only_peers_whose_connection_is_up_are_active() {
        let page = "# TYPE etcd_network_active_peers gauge\n\
                    etcd_network_active_peers{Local=\"c7\",Remote=\"1597c57207605797\"} 1\n\
                    etcd_network_active_peers{Local=\"c7\",Remote=\"f3d49f2c8b346ff1\"} 0\n\
                    etcd_network_active_peers{Local=\"c7\",Remote=\"x\"} 1\n";
        let active = active_peers(page);
        assert_eq!(active, BTreeSet::from([MemberId(0x1597_c572_0760_5797)]));
    }
}
