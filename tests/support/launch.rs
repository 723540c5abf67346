//! How one etcd server is started: by the cluster itself, or by whoever runs its node.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Command;

use crate::certs::PairFiles;
use crate::process::{bound_command, without_etcd_variables};

/// One member's program, addresses, certificates and folders.
#[derive(Debug, Clone)]
pub struct EtcdLaunch {
    /// The server.
    pub program: PathBuf,
    /// The member's name.
    pub name: String,
    /// Where it serves clients.
    pub client_url: String,
    /// Where it serves its peers: an address.
    pub peer_url: String,
    /// Where its peers look for it: the same, or a name in its stead.
    pub advertised: String,
    /// Its certificates, unless without TLS.
    pub certs: Option<LaunchCerts>,
    /// `--initial-cluster` for a start with data, where it means nothing, or as a new cluster.
    pub initial_cluster: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where its output goes, behind what is there.
    pub log: PathBuf,
    /// Flags besides.
    pub extra: Vec<String>,
}

/// A member's certificates.
#[derive(Debug, Clone)]
pub struct LaunchCerts {
    /// What signed them all.
    pub ca: PathBuf,
    /// For its clients.
    pub serving: PairFiles,
    /// For its peers.
    pub peer: PairFiles,
}

impl EtcdLaunch {
    /// The command that starts it and ends with this process.
    pub fn command(&self, initial_cluster: &str, state: &str) -> Command {
        let mut command = bound_command(&self.program);
        without_etcd_variables(&mut command);
        let mut flag = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
        };
        flag("name", &self.name);
        flag("data-dir", &self.data_dir.to_string_lossy());
        flag("listen-client-urls", &self.client_url);
        flag("advertise-client-urls", &self.client_url);
        flag("listen-peer-urls", &self.peer_url);
        flag("initial-advertise-peer-urls", &self.advertised);
        flag("initial-cluster", initial_cluster);
        flag("initial-cluster-state", state);
        flag("initial-cluster-token", "etcd-dr-bench");
        if let Some(certs) = &self.certs {
            let ca = certs.ca.to_string_lossy();
            flag("cert-file", &certs.serving.cert.to_string_lossy());
            flag("key-file", &certs.serving.key.to_string_lossy());
            flag("trusted-ca-file", &ca);
            flag("client-cert-auth", "true");
            flag("peer-cert-file", &certs.peer.cert.to_string_lossy());
            flag("peer-key-file", &certs.peer.key.to_string_lossy());
            flag("peer-trusted-ca-file", &ca);
            flag("peer-client-cert-auth", "true");
        }
        command.args(&self.extra);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("opening a server's log");
        command.stdout(log.try_clone().expect("sharing a server's log"));
        command.stderr(log);
        command
    }
}
