//! The URL of an etcd member: `https://host:port`, `http://host:port`, `host:port`, `unix://path`
//! or `unixs://path`.
//!
//! etcd takes such a URL apart with Go's `url.Parse`, and requires a host and a port and no path
//! (`types.NewURLs` in client/pkg/types/urls.go). What it would accept but could never dial is a
//! problem here: an empty host, a port that is not a number, a user name, a query, a fragment.
//! The places where URLs stand differ in what they accept, which [`Rules`] has.

use std::fmt;
use std::net::Ipv6Addr;

/// How a member is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
    /// A socket in the file system.
    Unix,
    /// The same with TLS.
    Unixs,
}

impl Scheme {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }
}

/// What is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The schemes.
    pub schemes: &'static [Scheme],
    /// What a URL without a scheme means; `None`: it must have one.
    pub default: Option<Scheme>,
    /// Whether a slash may follow the port.
    pub slash: bool,
}

/// Schemes of members that are dialed over TCP.
pub const TCP: &[Scheme] = &[Scheme::Http, Scheme::Https];

/// A URL, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberUrl<'a> {
    /// Its scheme, given or assumed.
    pub scheme: Scheme,
    /// What follows the scheme, as written.
    pub place: Place<'a>,
}

/// Where a member listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// A host name or an address, without brackets, and a TCP port from 1.
    Tcp {
        /// The host.
        host: &'a str,
        /// The port.
        port: u16,
    },
    /// The path of a socket.
    Socket(&'a str),
}

/// Why a text is not such a URL. `Display` gives a verb and what follows: "has no port".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A blank or a control character.
    Blank,
    /// No scheme, where there must be one.
    NoScheme,
    /// A scheme that is not accepted.
    Scheme {
        /// The scheme.
        found: String,
        /// Those that are accepted.
        schemes: &'static [Scheme],
    },
    /// A user name, and perhaps a password.
    User,
    /// A path, a query or a fragment.
    Path,
    /// No host.
    NoHost,
    /// A host with characters that no host name has.
    Host(String),
    /// Brackets around something else than an IPv6 address.
    Brackets,
    /// An IPv6 address without brackets.
    NoBrackets,
    /// No port.
    NoPort,
    /// A port that is not a number from 1 to 65535.
    Port(String),
    /// A socket without a path.
    NoSocket,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("contains a blank or control character"),
            Self::NoScheme => f.write_str("has no scheme"),
            Self::Scheme { found, schemes } => {
                let words: Vec<&str> = schemes.iter().map(|scheme| scheme.word()).collect();
                write!(f, "has the scheme {found:?}: expected {}", words.join(", "))
            }
            Self::User => f.write_str("contains a user name"),
            Self::Path => f.write_str("has a path after the port"),
            Self::NoHost => f.write_str("has no host"),
            Self::Host(host) => write!(f, "has an invalid host {host:?}"),
            Self::Brackets => {
                f.write_str("has brackets around something that is not an IPv6 address")
            }
            Self::NoBrackets => f.write_str("has an IPv6 address without brackets"),
            Self::NoPort => f.write_str("has no port"),
            Self::Port(port) => write!(f, "has an invalid port {port:?}"),
            Self::NoSocket => f.write_str("has no path of a socket"),
        }
    }
}

impl<'a> MemberUrl<'a> {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// The first [`Problem`].
    pub fn parse(text: &'a str, rules: Rules) -> Result<Self, Problem> {
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(Problem::Blank);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (accepted(scheme, rules.schemes)?, rest),
            None => (rules.default.ok_or(Problem::NoScheme)?, text),
        };
        let place = match scheme {
            Scheme::Unix | Scheme::Unixs if rest.is_empty() => return Err(Problem::NoSocket),
            Scheme::Unix | Scheme::Unixs => Place::Socket(rest),
            Scheme::Http | Scheme::Https => {
                let bare = rest.strip_suffix('/').filter(|_| rules.slash);
                tcp(bare.unwrap_or(rest))?
            }
        };
        Ok(Self { scheme, place })
    }
}

fn accepted(word: &str, schemes: &'static [Scheme]) -> Result<Scheme, Problem> {
    let same = |scheme: &&Scheme| scheme.word().eq_ignore_ascii_case(word);
    schemes.iter().find(same).copied().ok_or(Problem::Scheme {
        found: word.to_owned(),
        schemes,
    })
}

fn tcp(text: &str) -> Result<Place<'_>, Problem> {
    if text.is_empty() {
        return Err(Problem::NoHost);
    }
    if text.contains('@') {
        return Err(Problem::User);
    }
    if text.contains(['/', '?', '#']) {
        return Err(Problem::Path);
    }
    // "[::1]" has colons, and no port.
    let parts = text.rsplit_once(':').filter(|_| !text.ends_with(']'));
    let (host, port) = parts.ok_or(Problem::NoPort)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner
            .strip_suffix(']')
            .filter(|address| address.parse::<Ipv6Addr>().is_ok())
            .ok_or(Problem::Brackets)?,
        None if host.is_empty() => return Err(Problem::NoHost),
        None if host.contains(':') => return Err(Problem::NoBrackets),
        None if !host.bytes().all(is_host_byte) => return Err(Problem::Host(host.to_owned())),
        None => host,
    };
    if port.is_empty() {
        return Err(Problem::NoPort);
    }
    match port.parse::<u16>() {
        // Rust also reads "+80".
        Ok(number @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(Place::Tcp { host, port: number })
        }
        _ => Err(Problem::Port(port.to_owned())),
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAX: Rules = Rules {
        schemes: &[Scheme::Http, Scheme::Https, Scheme::Unix],
        default: Some(Scheme::Http),
        slash: true,
    };
    const STRICT: Rules = Rules {
        schemes: TCP,
        default: None,
        slash: false,
    };

    #[test]
    fn the_rules_decide_where_the_places_differ() {
        let parsed = |text, rules| MemberUrl::parse(text, rules);
        for (text, scheme) in [
            ("a:1", Scheme::Http),
            ("HTTPS://a:1/", Scheme::Https),
            ("http://a:1", Scheme::Http),
        ] {
            let url = MemberUrl {
                scheme,
                place: Place::Tcp { host: "a", port: 1 },
            };
            assert_eq!(parsed(text, LAX), Ok(url), "{text}");
        }
        let socket = parsed("unix:///run/x", LAX).unwrap();
        assert_eq!(socket.place, Place::Socket("/run/x"));
        assert_eq!(parsed("a:1", STRICT), Err(Problem::NoScheme));
        assert_eq!(parsed("https://a:1/", STRICT), Err(Problem::Path));
        let scheme = parsed("unix://a", STRICT).unwrap_err().to_string();
        assert_eq!(scheme, "has the scheme \"unix\": expected http, https");
    }

    #[test]
    fn every_problem_is_found() {
        for (text, problem) in [
            ("https://a b:1", Problem::Blank),
            ("https://", Problem::NoHost),
            ("https://:1", Problem::NoHost),
            ("https://u:p@h:1", Problem::User),
            ("https://h:1/path", Problem::Path),
            ("https://h:1?x", Problem::Path),
            ("https://h", Problem::NoPort),
            ("https://h:", Problem::NoPort),
            ("https://[::1]", Problem::NoPort),
            ("https://h:0", Problem::Port("0".into())),
            ("https://h:+1", Problem::Port("+1".into())),
            ("https://h:65536", Problem::Port("65536".into())),
            ("https://[zz]:1", Problem::Brackets),
            ("https://[::1:1", Problem::Brackets),
            ("https://fd00::1:1", Problem::NoBrackets),
            ("https://a%41:1", Problem::Host("a%41".into())),
            ("https://a;b:1", Problem::Host("a;b".into())),
            ("unix://", Problem::NoSocket),
        ] {
            assert_eq!(MemberUrl::parse(text, LAX), Err(problem), "{text}");
        }
    }
}
