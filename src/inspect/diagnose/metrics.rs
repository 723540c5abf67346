//! Where members serve their page of metrics.
//!
//! By default at the client URL. `--listen-metrics-urls` serves it elsewhere too, with or without
//! TLS, and with `--listen-client-http-urls` the client URL serves gRPC alone (etcd,
//! `server/embed/serve.go`). The node's own settings tell ports and schemes, which are taken to be
//! the same on the other members; then come the client URL and the ports that OpenShift (9978, 9979,
//! 2381) and kubeadm (2381, without TLS) use.

use std::net::IpAddr;
use std::time::Duration;

use crate::cluster::survey::MemberState;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::{ConnectOptions, Endpoint as Url, Metrics, metrics};
use crate::etcd::ids::MemberId;
use crate::node::endpoint::Endpoint;
use crate::node::settings::Settings;

/// Ports to try at last.
const USUAL: [u16; 3] = [9978, 9979, 2381];
/// How long a connection to one of them may take, and an answer.
const GUESS_LIMIT: Duration = Duration::from_secs(2);

/// Where the node's etcd is configured to serve it.
#[derive(Debug, Clone, Default)]
pub(super) struct Serving {
    configured: Vec<Endpoint>,
    /// This node's own member.
    own: Option<MemberId>,
}

impl Serving {
    pub(super) fn of(settings: &Settings, own: Option<&MemberState>) -> Self {
        let urls = settings.metrics_urls().into_iter();
        Self {
            own: own.map(|own| own.member.id),
            configured: urls.map(|(url, _)| url).collect(),
        }
    }

    /// Every address that may have a member's page, the likeliest first.
    fn addresses(&self, client_url: &str, is_own: bool, tls: bool) -> Vec<String> {
        let mut all = Vec::new();
        let mut add = |url: String| {
            if !all.contains(&url) {
                all.push(url);
            }
        };
        let client = Endpoint::parse(client_url);
        let host = client.as_ref().map(|client| client.host.clone());
        for url in &self.configured {
            let local = url.is_loopback();
            let at = match &host {
                _ if is_own && local => Some(url.host.clone()),
                // What one member serves on its loopback is nobody else's.
                _ if local => None,
                Some(host) => Some(host.clone()),
                None => None,
            };
            if let Some(host) = at {
                let url = Endpoint {
                    host,
                    ..url.clone()
                };
                add(url.to_string());
            }
        }
        add(client_url.to_owned());
        let Some(host) = host else { return all };
        for port in USUAL {
            let (host, tls) = (host.clone(), tls);
            add(Endpoint { tls, host, port }.to_string());
        }
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if tls && (is_own || here) {
            let (tls, host, port) = (false, "127.0.0.1".to_owned(), 2381);
            add(Endpoint { tls, host, port }.to_string());
        }
        all
    }

    /// A member's page.
    ///
    /// # Errors
    /// [`Kind::Unreachable`], which names every address that was tried, and why each has none.
    pub(super) async fn page(
        &self,
        state: &MemberState,
        options: &ConnectOptions,
    ) -> Result<Metrics> {
        let client_url = state.endpoint.as_deref().unwrap_or_default();
        let is_own = self.own == Some(state.member.id);
        let tls = options.tls.is_some();
        // Nobody has named the usual ports, and a firewall may not answer for them at all.
        let brief = ConnectOptions {
            connect_timeout: GUESS_LIMIT,
            call_timeout: GUESS_LIMIT,
            ..options.clone()
        };
        let mut guessing = false;
        let mut tried = Vec::new();
        for address in self.addresses(client_url, is_own, tls) {
            let options = if guessing { &brief } else { options };
            guessing |= address == client_url;
            let page = match Url::parse(&address, tls) {
                Ok(url) => metrics(&url, options).await,
                Err(failure) => Err(failure),
            };
            match page {
                Ok(page) => return Ok(page),
                Err(failure) => tried.push(failure.to_string()),
            }
        }
        Err(Failure::new(Kind::Unreachable, tried.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(urls: &[&str]) -> Serving {
        let urls = urls.iter().map(|url| Endpoint::parse(url).unwrap());
        Serving {
            configured: urls.collect(),
            own: None,
        }
    }

    #[test]
    fn configured_addresses_go_first_and_usual_ones_last() {
        let openshift = serving(&["https://0.0.0.0:9978", "https://[::]:2381"]);
        assert_eq!(
            openshift.addresses("https://10.0.0.2:2379", false, true),
            [
                "https://10.0.0.2:9978",
                "https://10.0.0.2:2381",
                "https://10.0.0.2:2379",
                "https://10.0.0.2:9979",
            ]
        );
        let kubeadm = serving(&["http://127.0.0.1:2381"]);
        let own = kubeadm.addresses("https://10.0.0.1:2379", true, true);
        assert_eq!(own[..2], ["http://127.0.0.1:2381", "https://10.0.0.1:2379"]);
        let other = kubeadm.addresses("https://[fd00::2]:2379", false, true);
        assert_eq!(
            other[..2],
            ["https://[fd00::2]:2379", "https://[fd00::2]:9978"]
        );
        assert!(
            other
                .iter()
                .all(|url| url.starts_with("https://[fd00::2]:"))
        );
        let socket = serving(&[]).addresses("unix:///run/etcd", true, false);
        assert_eq!(socket, ["unix:///run/etcd"]);
    }
}
