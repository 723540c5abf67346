//! What the caller configured, which goes before what the node says.

use std::net::IpAddr;
use std::path::PathBuf;

/// A datum and where it comes from, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The datum.
    pub value: T,
    /// Where it was found.
    pub source: String,
}

impl<T> Sourced<T> {
    /// A datum from somewhere.
    pub fn new(value: T, source: impl Into<String>) -> Self {
        Self {
            value,
            source: source.into(),
        }
    }
}

/// The caller's configuration, by flags or variables, and what it knows of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessOverrides {
    /// Client URLs.
    pub endpoints: Option<Sourced<Vec<String>>>,
    /// The CA that signed the server's certificate.
    pub ca: Option<Sourced<PathBuf>>,
    /// The client certificate.
    pub cert: Option<Sourced<PathBuf>>,
    /// Its key.
    pub key: Option<Sourced<PathBuf>>,
    /// This node's name, which is its member's.
    pub node: Option<Sourced<String>>,
    /// etcd's data directory.
    pub data_dir: Option<Sourced<PathBuf>>,
    /// The machine's addresses.
    pub local_addresses: Vec<IpAddr>,
}
