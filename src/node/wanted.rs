//! Certificates that a program is configured with.

use std::net::IpAddr;
use std::path::PathBuf;

/// A certificate that a program is configured with, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCertificate {
    /// What it is called in messages: "etcd's serving certificate".
    pub name: String,
    /// The certificate's local path: PEM, the leaf first, then what leads to the bundle.
    pub cert: PathBuf,
    /// Its private key's local path: PEM, in PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// The local path of the bundle that must lead to it: PEM.
    pub ca: PathBuf,
    /// Host names that it must be for.
    pub hosts: Vec<String>,
    /// Addresses that it must be for.
    pub addresses: Vec<IpAddr>,
    /// What it must be good for.
    pub uses: Vec<Use>,
}

/// What a certificate is good for (RFC 5280, 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To serve TLS.
    Server,
    /// To identify a client.
    Client,
}
