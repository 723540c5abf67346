//! Member and cluster ids, and the peer URLs they are made from.
//!
//! ```text
//! member  = big-endian u64 of the first 8 bytes of SHA-1(peer URLs, sorted, concatenated ++ token)
//! cluster = big-endian u64 of the first 8 bytes of SHA-1(member ids, sorted, 8 bytes big-endian each)
//! ```
//!
//! (etcd, `server/etcdserver/api/membership/member.go` and `cluster.go`.) The name does not enter,
//! so that a changed token or address means another member. As text an id is lower-case hex
//! *without* padding, also in the JSON of etcd-dr; in etcd's own JSON it is a decimal number, which not
//! every reader of JSON can hold.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Serialize, Serializer};
use sha1::{Digest, Sha1};

use crate::error::{Failure, Kind, Result};
use crate::sys::member_url::{MemberUrl, Rules, Scheme};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// Reads the text form: hex, as etcd prints it, with or without `0x`.
            pub fn from_hex(text: &str) -> Option<Self> {
                let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
                let digits = digits.unwrap_or(text);
                let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
                hex.then(|| u64::from_str_radix(digits, 16).ok())?.map(Self)
            }

            /// Reads the form that JSON output has: decimal.
            pub fn from_decimal(text: &str) -> Option<Self> {
                let decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                decimal.then(|| text.parse().ok())?.map(Self)
            }

            /// Everything that a text can mean: digits alone are hex and decimal alike.
            pub fn readings(text: &str) -> Vec<Self> {
                let mut readings: Vec<Self> =
                    [Self::from_hex(text), Self::from_decimal(text)].into_iter().flatten().collect();
                readings.dedup();
                readings
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

id! {
    /// A member's id; `Display` gives etcd's hex form.
    MemberId
}
id! {
    /// A cluster's id; `Display` gives etcd's hex form.
    ClusterId
}

fn first_eight(digest: &[u8]) -> u64 {
    digest
        .iter()
        .take(8)
        .fold(0, |id, byte| id << 8 | u64::from(*byte))
}

impl MemberId {
    /// The id of a founding member.
    pub fn founding(peers: &PeerUrls, token: &str) -> Self {
        let mut hash = Sha1::new();
        for url in peers.iter() {
            hash.update(url);
        }
        hash.update(token);
        Self(first_eight(&hash.finalize()))
    }
}

impl ClusterId {
    /// The id of the cluster that these members found.
    pub fn founded_by(members: impl IntoIterator<Item = MemberId>) -> Self {
        let mut hash = Sha1::new();
        for member in members.into_iter().collect::<BTreeSet<_>>() {
            hash.update(member.0.to_be_bytes());
        }
        Self(first_eight(&hash.finalize()))
    }
}

/// The peer URLs of one member: checked by etcd's rules, sorted, at least one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerUrls(Vec<String>);

impl PeerUrls {
    /// Checks and sorts URLs.
    ///
    /// etcd's rules: `http` or `https` with host and port and no path, or `unix`/`unixs`. What
    /// etcd would accept but could never dial is refused, too (see [`crate::sys::member_url`]).
    pub fn parse<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut parsed = urls.into_iter().map(peer_url).collect::<Result<Vec<_>>>()?;
        if parsed.is_empty() {
            return Err(usage("no peer URL is given"));
        }
        parsed.sort();
        Ok(Self(parsed))
    }

    /// Checks and sorts a comma-separated list.
    pub fn parse_list(text: &str) -> Result<Self> {
        Self::parse(text.split(','))
    }

    /// The URLs, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The URLs as a [`Member`] has them.
    pub fn to_vec(&self) -> Vec<String> {
        self.0.clone()
    }
}

impl fmt::Display for PeerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

pub(super) fn usage(what: impl fmt::Display) -> Failure {
    Failure::new(Kind::Usage, what.to_string())
}

fn peer_url(text: &str) -> Result<String> {
    let url = text.trim();
    let rules = Rules {
        schemes: &[Scheme::Http, Scheme::Https, Scheme::Unix, Scheme::Unixs],
        default: None,
        slash: false,
    };
    let parsed = MemberUrl::parse(url, rules)
        .map_err(|problem| usage(format!("peer URL {url:?} {problem}")))?;
    // The ids are a hash of this text: nothing but the scheme may be written in another way.
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    Ok(format!("{}://{rest}", parsed.scheme.word()))
}
