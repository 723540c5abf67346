//! An etcd endpoint as operators write it: `https://host:port`, `http://host:port`, `host:port`
//! or `unix:///path`.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::error::{Fact, Failure, Kind, Result};
use crate::sys::member_url::{MemberUrl, Place, Problem, Rules, Scheme};

/// Where one etcd member listens for clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    text: String,
    tls: bool,
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Address {
    /// Host without the brackets of an IPv6 address.
    Tcp { host: String, port: u16 },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads an endpoint; one without a scheme means TLS if `assume_tls`, as etcdctl has it once
    /// certificates are given.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it is no such address: a missing port, user information, a path.
    pub fn parse(text: &str, assume_tls: bool) -> Result<Self> {
        Self::parse_address(text.trim(), assume_tls)
            .map_err(|failure| failure.doing(format!("reading the endpoint {text:?}")))
    }

    fn parse_address(text: &str, assume_tls: bool) -> Result<Self> {
        let rules = Rules {
            schemes: &[Scheme::Http, Scheme::Https, Scheme::Unix],
            default: Some(match assume_tls {
                true => Scheme::Https,
                false => Scheme::Http,
            }),
            slash: true,
        };
        let url = MemberUrl::parse(text, rules).map_err(|problem| {
            let hint = match problem {
                Problem::User => "; pass credentials separately",
                Problem::NoPort => " (etcd's default is 2379)",
                _ => "",
            };
            Failure::new(Kind::Usage, format!("it {problem}{hint}"))
        })?;
        let scheme = url.scheme.word();
        let (text, address) = match url.place {
            Place::Tcp { host, port } => {
                let shown = match host.contains(':') {
                    true => format!("{scheme}://[{host}]:{port}"),
                    false => format!("{scheme}://{host}:{port}"),
                };
                let host = host.to_owned();
                (shown, Address::Tcp { host, port })
            }
            Place::Socket(path) => (format!("{scheme}://{path}"), Address::Unix(path.into())),
        };
        Ok(Self {
            text,
            tls: url.scheme == Scheme::Https,
            address,
        })
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host's name or address, without brackets; none for a socket in the file system.
    pub fn host(&self) -> Option<&str> {
        match &self.address {
            Address::Tcp { host, .. } => Some(host),
            Address::Unix(_) => None,
        }
    }

    /// The endpoint in its full form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn fact(&self) -> Fact {
        Fact::Endpoint(self.text.clone())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_is_read() {
        for (text, assume_tls, shown, tls, host) in [
            (
                "https://10.0.0.1:2379",
                false,
                "https://10.0.0.1:2379",
                true,
                "10.0.0.1",
            ),
            (
                "http://localhost:2379/",
                true,
                "http://localhost:2379",
                false,
                "localhost",
            ),
            (
                "etcd-0.example:2379",
                true,
                "https://etcd-0.example:2379",
                true,
                "etcd-0.example",
            ),
            (
                "127.0.0.1:1",
                false,
                "http://127.0.0.1:1",
                false,
                "127.0.0.1",
            ),
            (
                "https://[::1]:2379",
                false,
                "https://[::1]:2379",
                true,
                "::1",
            ),
        ] {
            let endpoint = Endpoint::parse(text, assume_tls).unwrap();
            assert_eq!(endpoint.as_str(), shown);
            assert_eq!(endpoint.is_tls(), tls);
            assert_eq!(endpoint.host(), Some(host));
        }
        let socket = Endpoint::parse("unix:///run/etcd.sock", true).unwrap();
        assert_eq!(socket.host(), None);
        assert!(!socket.is_tls());
    }

    #[test]
    fn an_invalid_endpoint_is_a_usage_error() {
        for text in [
            "",
            "https://",
            "https://host",
            "ftp://host:1",
            "https://user:secret@host:1",
            "https://host:1/path",
            "https://host:99999",
            "unix://",
            "https://host:1?x",
            "a b:1",
        ] {
            let failure = Endpoint::parse(text, true).unwrap_err();
            assert_eq!(failure.kind(), Kind::Usage, "{text}");
        }
    }
}
