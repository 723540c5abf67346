//! An etcd endpoint as operators write it: `https://host:port`, `http://host:port`, `host:port`
//! or `unix:///path`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use tonic::codegen::http::Uri;

use crate::error::{Doing, Fact, Failure, Kind, Result};

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
    /// [`Kind::Usage`] where it is no such address: a missing port, user information, a path.
    pub fn parse(text: &str, assume_tls: bool) -> Result<Self> {
        Self::parse_address(text.trim(), assume_tls)
            .map_err(|failure| failure.doing(format!("reading the endpoint {text:?}")))
    }

    fn parse_address(text: &str, assume_tls: bool) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Self::unix(text, Path::new(path));
        }
        let (tls, authority) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some((scheme, _)) => {
                return Err(Failure::new(
                    Kind::Usage,
                    format!("the scheme is {scheme:?}, not http, https or unix"),
                ));
            }
            None => (assume_tls, text),
        };
        let scheme = if tls { "https" } else { "http" };
        let uri: Uri = format!("{scheme}://{authority}")
            .parse()
            .doing(Kind::Usage, || "it is not an address")?;
        let usage = |what: &'static str| Failure::new(Kind::Usage, what);
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(usage(
                "it contains a user name; pass credentials separately",
            ));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(usage("it has a path after the port"));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(usage("it has no host"));
        }
        let port = uri
            .port_u16()
            .ok_or_else(|| usage("it has no port (etcd's default is 2379)"))?;
        let shown = if host.contains(':') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        };
        Ok(Self {
            text: shown,
            tls,
            address: Address::Tcp {
                host: host.to_owned(),
                port,
            },
        })
    }

    fn unix(text: &str, path: &Path) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Failure::new(Kind::Usage, "it has no socket"));
        }
        Ok(Self {
            text: text.to_owned(),
            tls: false,
            address: Address::Unix(path.to_owned()),
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
    fn what_is_no_endpoint_is_a_usage_error() {
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
