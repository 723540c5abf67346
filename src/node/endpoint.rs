//! URLs of etcd members, and addresses as nodes write them.

use std::fmt;
use std::net::IpAddr;

use crate::sys::member_url::{MemberUrl, Place, Problem, Rules, Scheme, TCP};

/// An etcd URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Reads `https://host:port`, `http://host:port`, `host:port` (without TLS, as etcdctl takes
    /// it); IPv6 addresses in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let rules = Rules {
            schemes: TCP,
            default: Some(Scheme::Http),
            slash: true,
        };
        Self::read(text, rules).ok()
    }

    /// Reads a URL by other rules.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str, rules: Rules) -> Result<Self, Problem> {
        let url = MemberUrl::parse(text, rules)?;
        match url.place {
            Place::Tcp { host, port } => Ok(Self {
                tls: url.scheme == Scheme::Https,
                host: host.to_owned(),
                port,
            }),
            Place::Socket(_) => Err(Problem::NoHost),
        }
    }

    /// The URL of an address.
    pub fn of(tls: bool, ip: IpAddr, port: u16) -> Self {
        Self {
            tls,
            host: ip.to_string(),
            port,
        }
    }

    /// The host as an address; not for `localhost`, which may be either of two.
    pub fn ip(&self) -> Option<IpAddr> {
        parse_ip(&self.host)
    }

    /// Whether the host can only be the machine that connects.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// Whether the host names each machine to itself: `localhost`, `127.0.0.1` and the `127.0.1.1`
    /// that some distributions have for a machine's own name, `::1`, and an unspecified address.
    /// The rest of 127.0.0.0/8 is left to whoever gives several members to one machine.
    pub fn is_every_machine(&self) -> bool {
        let name = self.host.trim_end_matches('.').to_ascii_lowercase();
        let named = matches!(name.as_str(), "localhost" | "localhost.localdomain")
            || name.ends_with(".localhost");
        named
            || match self.ip() {
                Some(IpAddr::V4(ip)) => ip.is_unspecified() || ip.octets().starts_with(&[127, 0]),
                Some(IpAddr::V6(ip)) => ip.is_unspecified() || ip.is_loopback(),
                None => false,
            }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// Reads an address with or without brackets; an IPv4 address mapped into IPv6 is the IPv4 one.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// The pairs of `--initial-cluster`: `name=url,name2=url2`. What is not a pair is passed over.
pub fn initial_cluster(text: &str) -> Vec<(String, String)> {
    let pairs = split_list(text).into_iter();
    pairs
        .filter_map(|pair| {
            let (name, url) = pair.split_once('=')?;
            Some((name.trim().to_owned(), url.trim().to_owned()))
        })
        .collect()
}

/// Splits a comma-separated list; empty parts are dropped.
pub fn split_list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_and_print_back() {
        for text in [
            "https://192.168.10.10:2379",
            "https://[fd00::10]:2379",
            "http://localhost:2379",
            "https://master-0.ocp.example.com:2380",
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Endpoint::parse("10.0.0.1:2379").unwrap().to_string(),
            "http://10.0.0.1:2379"
        );
        let v6 = Endpoint::parse("https://[::ffff:10.0.0.1]:1").unwrap();
        assert_eq!(v6.ip(), parse_ip("10.0.0.1"));
        assert!(Endpoint::parse("https://[::1]:2379").unwrap().is_loopback());
        assert_eq!(
            Endpoint::of(true, parse_ip("[fd00::1]").unwrap(), 2379).to_string(),
            "https://[fd00::1]:2379"
        );
    }

    #[test]
    fn other_texts_are_not_endpoints() {
        for text in [
            "",
            "https://",
            "https://a",
            "https://a:",
            "https://a:99999",
            "https://[::1:2379",
            "https://[zz]:1",
            "https://fd00::1:2379",
            "unix:///x:1",
            "https://u@h:1",
            "https://h:1/path",
            "https://:1",
            "https://h:+1",
            "https://[]:1",
        ] {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
    }
}
