//! Why a call to etcd failed, dug out of the layers below (gRPC, HTTP/2, TLS, TCP).

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};
use tonic::Code;

use crate::error;

/// What failed, in words that an operator can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(super) enum Cause {
    /// The host's name could not be resolved.
    Resolve { host: String, detail: String },
    /// Nobody listens there.
    Refused,
    /// A phase of the connection took longer than its bound.
    Timeout { phase: Phase, after: Duration },
    /// Some other failure of the network.
    Network(String),
    /// The connection broke: what the system said of it.
    Broken(String),
    /// The server closed the connection without an answer.
    Closed,
    /// The server closed it when TLS was to begin.
    ClosedInHandshake,
    /// Without TLS, the server closed it before it had answered anything.
    ClosedUnanswered,
    /// An `http` endpoint answered with a TLS record.
    SpeaksTls,
    /// An `https` endpoint answered with something other than TLS.
    SpeaksNoTls,
    /// TLS was established, but without a protocol that both sides know.
    NoHttp2,
    /// The server's certificate was refused by us.
    ServerCertificate(ServerCertificate),
    /// The server refused us over our certificate, or over having none.
    ClientCertificate(ClientCertificate),
    /// TLS failed in another way.
    Tls(String),
    /// etcd answered with an error.
    Answer { code: Code, message: String },
    /// The answer does not follow the protocol.
    Protocol(String),
}

/// The phases of connecting whose time is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Resolve,
    Connect,
    Tls,
    Call,
}

/// A server's certificate that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerCertificate {
    pub(super) fault: String,
    /// "for {subject}, issued by {issuer}", if the certificate can be read.
    pub(super) described: Option<String>,
    /// The files of the trusted certificates, where these are what matters.
    pub(super) ca: Vec<PathBuf>,
}

/// What the server said of the certificate we gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    pub(super) alert: String,
    /// The certificate's file and what it says of itself; none if none was given.
    pub(super) given: Option<String>,
}

impl Cause {
    /// Whether this says more of the matter than that a connection went away.
    pub(super) fn is_telling(&self) -> bool {
        !matches!(self, Self::Broken(_) | Self::Closed | Self::Network(_))
    }

    /// Sorts an I/O error, looking into it for one of TLS.
    pub(super) fn of_io(error: &io::Error, given: Option<&str>) -> Self {
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::of_tls(tls, given);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted => Self::Broken(plain(error)),
            _ => Self::Network(plain(error)),
        }
    }

    fn of_tls(error: &rustls::Error, given: Option<&str>) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert, given),
            rustls::Error::InvalidMessage(_) => Self::SpeaksNoTls,
            rustls::Error::NoApplicationProtocol => Self::NoHttp2,
            rustls::Error::InvalidCertificate(fault) => {
                Self::ServerCertificate(ServerCertificate {
                    fault: describe_fault(fault),
                    described: None,
                    ca: Vec::new(),
                })
            }
            other => Self::Tls(other.to_string()),
        }
    }

    /// What is wrong with a certificate.
    pub(super) fn of_certificate(fault: &CertificateError) -> String {
        describe_fault(fault)
    }

    fn of_alert(alert: AlertDescription, given: Option<&str>) -> Self {
        use AlertDescription as A;
        let word = match alert {
            A::CertificateRequired | A::NoCertificate => "a client certificate is required",
            A::BadCertificate => "bad certificate",
            A::UnsupportedCertificate => "unsupported certificate",
            A::CertificateRevoked => "certificate revoked",
            A::CertificateExpired => "certificate expired",
            A::CertificateUnknown => "certificate not accepted",
            A::UnknownCA => "issued by an unknown authority",
            A::AccessDenied => "access denied",
            A::DecryptError => "its signature does not verify",
            A::NoApplicationProtocol => return Self::NoHttp2,
            // Before TLS 1.3, Go's server answers a missing certificate with this one.
            A::HandshakeFailure if given.is_none() => "handshake failure",
            other => return Self::Tls(format!("the server sent the alert {other:?}")),
        };
        Self::ClientCertificate(ClientCertificate {
            alert: word.to_owned(),
            given: given.map(str::to_owned),
        })
    }

    /// What stands behind an error of the library that knows etcd's calls. Each error from below
    /// it, a server's refusal too, is a cause already; a status without one is the library's own
    /// word on a reply it cannot read.
    pub(super) fn of_library(cause: &etcd_client::Error) -> Self {
        match cause {
            etcd_client::Error::GRpcStatus(status) => Self::of_status(status),
            other => Self::Protocol(error::cut(other.to_string())),
        }
    }

    /// What stands behind a status of the gRPC library.
    pub(super) fn of_status(status: &tonic::Status) -> Self {
        find::<Self>(status)
            .cloned()
            .unwrap_or_else(|| Self::Protocol(error::cut(status.message().to_owned())))
    }

    /// Whether etcd's own authentication refused the user, or found none.
    pub(super) fn is_about_the_user(&self) -> bool {
        let Self::Answer { code, message } = self else {
            return false;
        };
        matches!(code, Code::PermissionDenied | Code::Unauthenticated)
            || ["user name", "invalid user ID or password"]
                .iter()
                .any(|words| message.contains(words))
    }

    /// The innermost message of an error that came from no answer of etcd's.
    pub(super) fn of_chain(cause: &(dyn Error + 'static), given: Option<&str>) -> Self {
        if let Some(io) = find::<io::Error>(cause) {
            return Self::of_io(io, given);
        }
        let mut innermost = cause;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Self::Broken(error::cut(innermost.to_string()))
    }
}

/// Finds an error of a type in a chain, also where an `io::Error` holds it.
fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An `io::Error` made of another error skips that one in its chain of sources.
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// The system's message without its "(os error N)".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match text.rfind(" (os error ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    };
    lower_first(&text)
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn describe_fault(fault: &CertificateError) -> String {
    use CertificateError as C;
    match fault {
        C::Expired => "it has expired".to_owned(),
        C::ExpiredContext { time, not_after } => format!(
            "it expired on {}, and this machine's time is {}",
            date(not_after.as_secs()),
            date(time.as_secs())
        ),
        C::NotValidYet => "it is not valid yet".to_owned(),
        C::NotValidYetContext { time, not_before } => format!(
            "it is not valid before {}, and this machine's time is {}",
            date(not_before.as_secs()),
            date(time.as_secs())
        ),
        C::UnknownIssuer => "it is not signed by a trusted certificate".to_owned(),
        C::BadSignature => {
            "its issuer has the name of a trusted certificate, but another key".to_owned()
        }
        C::NotValidForName => "it is not for this host".to_owned(),
        C::NotValidForNameContext {
            expected,
            presented,
        } => {
            for_other_names(&expected.to_str(), presented)
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "its extended key usage does not include server authentication".to_owned()
        }
        C::Revoked => "it is revoked".to_owned(),
        C::BadEncoding => "it is not correctly encoded".to_owned(),
        C::UnsupportedSignatureAlgorithmContext { .. }
        | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed in a way that is not supported here: expected RSA of 2048 to 8192 bits, \
             ECDSA on P-256, P-384 or P-521, or Ed25519, with SHA-256, SHA-384 or SHA-512"
                .to_owned()
        }
        C::UnhandledCriticalExtension => {
            "it has an unknown critical extension".to_owned()
        }
        C::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => "it is a CA certificate (CA:TRUE) and not itself trusted: give etcd a certificate with CA:FALSE, or trust this one"
                .to_owned(),
            Some(webpki::Error::UnsupportedCertVersion) => "it is X.509 version 1, which has no names: reissue it with extensions (openssl x509 -req ... -extfile FILE with a \
                 line subjectAltName=DNS:...,IP:...)"
                .to_owned(),
            _ => in_words(&other.0.to_string()),
        },
        other => in_words(&other.to_string()),
    }
}

fn for_other_names(expected: &str, presented: &[String]) -> String {
    let mut names: Vec<_> = presented.iter().map(|name| readable_name(name)).collect();
    names.dedup();
    match names.as_slice() {
        [] => format!("it is not for {expected}: it has no subject alternative name"),
        names => format!("it is not for {expected}, but for {}", names.join(", ")),
    }
}

/// Whether a certificate was refused because it may sign others.
pub(super) fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    let cause = other.0.downcast_ref::<webpki::Error>();
    cause == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// The name that a library has for a fault, as words: `PathTooLong { .. }` is "path too long".
fn in_words(name: &str) -> String {
    let name: String = name
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == ' ')
        .collect();
    let mut words = String::new();
    for c in name.trim().chars() {
        if c.is_ascii_uppercase() && !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    format!("it is refused: {words}")
}

/// `DnsName("a")` and `IpAddress(…)` as the verifier's library writes them, made plain.
fn readable_name(name: &str) -> String {
    match (name.find('('), name.rfind(')')) {
        (Some(open), Some(close)) if open < close => name
            .get(open + 1..close)
            .unwrap_or(name)
            .trim_matches('"')
            .to_owned(),
        _ => name.to_owned(),
    }
}

/// Seconds since 1970 as an RFC 3339 time in UTC.
pub(super) fn date(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| format!("second {seconds}"), |time| time.to_string())
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the name was not resolved",
            Self::Connect => "the connection was not accepted",
            Self::Tls => "the TLS handshake did not finish",
            Self::Call => "no answer",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, detail } => {
                write!(f, "the name {host:?} could not be resolved: {detail}")
            }
            Self::Refused => f.write_str("connection refused: nothing listens there"),
            Self::Timeout { phase, after } => {
                write!(f, "timed out: {phase} within {}", seconds(*after))
            }
            Self::Network(text) => f.write_str(text),
            Self::Broken(text) => write!(f, "the connection broke: {text}"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::ClosedInHandshake => f.write_str(
                "the server closed the connection during the TLS handshake: it may be crash-looping, or it does not speak TLS on this port",
            ),
            Self::ClosedUnanswered => f.write_str(
                "the server closed the connection without an answer: it may be crash-looping, or it expects TLS on this port",
            ),
            Self::SpeaksTls => f.write_str("the server speaks TLS on this port, not plain HTTP"),
            Self::SpeaksNoTls => f.write_str("the server does not speak TLS on this port"),
            Self::NoHttp2 => f.write_str("the server does not offer HTTP/2, which gRPC needs"),
            Self::ServerCertificate(certificate) => certificate.fmt(f),
            Self::ClientCertificate(certificate) => certificate.fmt(f),
            Self::Tls(text) => write!(f, "TLS failed: {text}"),
            Self::Answer { code, message } => answer(f, *code, message),
            Self::Protocol(text) => write!(f, "not an answer from etcd: {text}"),
        }
    }
}

fn answer(f: &mut fmt::Formatter<'_>, code: Code, message: &str) -> fmt::Result {
    let message = if message.is_empty() {
        code.description().to_owned()
    } else {
        printable(message)
    };
    match code {
        Code::PermissionDenied => write!(f, "permission denied: {message}"),
        Code::Unauthenticated => write!(f, "not authenticated: {message}"),
        Code::Unimplemented => write!(f, "the server does not know this call: {message}"),
        Code::DeadlineExceeded => write!(f, "the server gave up waiting: {message}"),
        _ => write!(f, "etcd answered: {message}"),
    }
}

impl fmt::Display for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the server's certificate is not accepted: {}",
            self.fault
        )?;
        if let Some(described) = &self.described {
            write!(f, "; it is {}", printable(described))?;
        }
        if !self.ca.is_empty() {
            f.write_str("; the trusted certificates are ")?;
            for (index, path) in self.ca.iter().enumerate() {
                if index > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{}", path.display())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given {
            Some(given) => write!(
                f,
                "the server rejected the client certificate ({}): {given}",
                self.alert
            ),
            None => write!(
                f,
                "the server requires a client certificate, and none was given ({})",
                self.alert
            ),
        }
    }
}

impl Error for Cause {}

/// A server's words, fit for a terminal: no control characters, and not without end.
fn printable(text: &str) -> String {
    const LIMIT: usize = 500;
    let mut shown: String = text
        .chars()
        .take(LIMIT)
        // An escape sequence could change what the terminal shows.
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

/// "5 s", "1.5 s".
pub(crate) fn seconds(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
