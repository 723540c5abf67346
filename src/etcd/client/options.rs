//! How to connect.

use std::fmt;
use std::time::Duration;

use super::tls::TlsConfig;

/// How to connect.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Whom to trust and who we are; needed for `https`, unused for `http`.
    pub tls: Option<TlsConfig>,
    /// Bound on resolving, connecting and the TLS handshake together.
    pub connect_timeout: Duration,
    /// Bound on each call that is not a stream.
    pub call_timeout: Duration,
    /// HTTP/2 flow-control window in bytes: how much the server may send ahead of us.
    pub window: u32,
    /// Name and password, where etcd's own authentication is on.
    pub credentials: Option<Credentials>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            tls: None,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            window: 4 << 20,
            credentials: None,
        }
    }
}

/// A user of etcd's own authentication; `Debug` does not show the password.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub name: String,
    /// The user's password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
