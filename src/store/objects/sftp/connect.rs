//! The connection below SFTP: whose host it is, who we are.
//!
//! A host is known by its key: in a `known_hosts` file (sshd(8)), or by a fingerprint that was
//! given. A host that is not known is refused; nothing is ever learnt by itself.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh_sftp::client::RawSftpSession;

use super::super::{Address, Settings};
use crate::error::{Doing, Failure, Kind, Result};

/// SSH's own port (RFC 4253).
const PORT: u16 = 22;
/// How long a connection may take to come about, and a request to be answered.
const CONNECT: Duration = Duration::from_secs(20);
const REQUEST_SECONDS: u64 = 60;
/// A host that answers nothing is given up after three of these.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The names of keys that are looked for, as ssh(1) has them.
const OWN_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// The connection; the host is spoken to as long as it is there.
pub(super) struct Session {
    _handle: Handle<Host>,
}

/// Holds the host's key against what is known of it.
struct Host {
    name: String,
    port: u16,
    known: Vec<PathBuf>,
    fingerprint: Option<String>,
    /// Why it was refused.
    refused: Arc<Mutex<Option<String>>>,
}

impl Host {
    fn judge(&self, key: &PublicKey) -> std::result::Result<(), String> {
        let shown = key.fingerprint(HashAlg::Sha256).to_string();
        if let Some(wanted) = &self.fingerprint {
            let same = *wanted == shown;
            return same.then_some(()).ok_or_else(|| {
                format!("the host's key is {shown}, and the fingerprint that was given {wanted}")
            });
        }
        for path in &self.known {
            match russh::keys::check_known_hosts_path(&self.name, self.port, key, path) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(russh::keys::Error::KeyChanged { line }) => {
                    return Err(format!(
                        "the host's key is {shown}, and line {line} of {} has another one for it",
                        path.display()
                    ));
                }
                Err(cause) => return Err(format!("reading {}: {cause}", path.display())),
            }
        }
        let files: Vec<_> = self
            .known
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Err(format!(
            "the host's key {shown} is in none of: {}",
            files.join(", ")
        ))
    }
}

impl client::Handler for Host {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> std::result::Result<bool, Self::Error> {
        let judged = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.judge(key),
            PublicKeyOrCertificate::Certificate(_) => Err("host certificates are not known".into()),
        };
        if let (Err(why), Ok(mut refused)) = (&judged, self.refused.lock()) {
            *refused = Some(why.clone());
        }
        Ok(judged.is_ok())
    }
}

/// Connects and begins SFTP.
pub(super) async fn connect(
    address: &Address,
    settings: &Settings,
) -> Result<(RawSftpSession, Session)> {
    let work = async {
        let mut handle = reach(address, settings).await?;
        sign_in(&mut handle, address, settings).await?;
        let doing = || format!("beginning SFTP with {}", address.bucket());
        let channel = handle
            .channel_open_session()
            .await
            .doing(Kind::Store, doing)?;
        channel
            .request_subsystem(true, "sftp")
            .await
            .doing(Kind::Store, doing)?;
        let raw = RawSftpSession::new(channel.into_stream());
        raw.set_timeout(REQUEST_SECONDS);
        raw.init().await.doing(Kind::Store, doing)?;
        Ok((raw, Session { _handle: handle }))
    };
    let limit = CONNECT.max(settings.patience.min(CONNECT * 3));
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => {
            let what = format!("connecting to {address}: no answer in {}s", limit.as_secs());
            Err(Failure::new(Kind::Store, what))
        }
    }
}

async fn reach(address: &Address, settings: &Settings) -> Result<Handle<Host>> {
    let (name, port) = (address.bucket().to_owned(), address.port().unwrap_or(PORT));
    let known = match settings.get("ETCD_DR_SFTP_KNOWN_HOSTS") {
        Some(path) => vec![PathBuf::from(path)],
        None => {
            let own = settings
                .home
                .as_ref()
                .map(|home| home.join(".ssh/known_hosts"));
            own.into_iter()
                .chain([PathBuf::from("/etc/ssh/ssh_known_hosts")])
                .collect()
        }
    };
    let mut config = client::Config {
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..client::Config::default()
    };
    // The host has keys of several kinds: it is to show one of those that are known.
    let kinds: Vec<Algorithm> = known
        .iter()
        .filter_map(|path| russh::keys::known_hosts::known_host_keys_path(&name, port, path).ok())
        .flatten()
        .map(|(_, key)| key.algorithm())
        .collect();
    let wanted = |kind: &&Algorithm| match kind {
        Algorithm::Rsa { .. } => kinds.iter().any(|known| known.clone().is_rsa()),
        other => kinds.contains(other),
    };
    let preferred: Vec<_> = config
        .preferred
        .key
        .iter()
        .filter(wanted)
        .cloned()
        .collect();
    if !preferred.is_empty() {
        config.preferred.key = preferred.into();
    }
    let refused = Arc::new(Mutex::new(None));
    let host = Host {
        name: name.clone(),
        port,
        known,
        fingerprint: settings.get("ETCD_DR_SFTP_FINGERPRINT").map(str::to_owned),
        refused: Arc::clone(&refused),
    };
    let connected = client::connect(Arc::new(config), (name.as_str(), port), host).await;
    let why = refused.lock().ok().and_then(|mut why| why.take());
    match (connected, why) {
        (_, Some(why)) => Err(Failure::new(Kind::Store, why)),
        (connected, None) => {
            connected.map_err(|cause| Failure::new(Kind::Store, cause.to_string()))
        }
    }
    .map_err(|failure| failure.doing(format!("connecting to {name} port {port}")))
}

async fn sign_in(handle: &mut Handle<Host>, address: &Address, settings: &Settings) -> Result<()> {
    let user = match address.user() {
        "" => settings.get("USER").unwrap_or("root"),
        user => user,
    };
    let doing = || format!("signing in to {} as {user}", address.bucket());
    let hash = handle
        .best_supported_rsa_hash()
        .await
        .doing(Kind::Store, doing)?
        .flatten();
    let mut tried = Vec::new();
    for path in own_keys(settings) {
        let key = match russh::keys::load_secret_key(&path, None) {
            Ok(key) => key,
            Err(cause) => {
                tried.push(format!("{} ({cause})", path.display()));
                continue;
            }
        };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        let answer = handle.authenticate_publickey(user, key).await;
        if let AuthResult::Success = answer.doing(Kind::Store, doing)? {
            return Ok(());
        }
        tried.push(format!("{} (refused)", path.display()));
    }
    if let Some(socket) = settings.get("SSH_AUTH_SOCK") {
        match by_agent(handle, user, socket, hash).await {
            Ok(true) => return Ok(()),
            Ok(false) => tried.push("the agent's keys (refused)".to_owned()),
            Err(cause) => tried.push(format!("the agent ({cause})")),
        }
    }
    let what = match tried.is_empty() {
        true => "there is no key and no agent".to_owned(),
        false => format!("tried {}", tried.join(", ")),
    };
    Err(Failure::new(Kind::Store, what).doing(doing()))
}

/// The keys that are there: the one that was given, or one's own.
fn own_keys(settings: &Settings) -> Vec<PathBuf> {
    if let Some(given) = settings.get("ETCD_DR_SFTP_IDENTITY") {
        return vec![PathBuf::from(given)];
    }
    let Some(home) = &settings.home else {
        return Vec::new();
    };
    let own = OWN_KEYS.iter().map(|name| home.join(".ssh").join(name));
    own.filter(|path| path.is_file()).collect()
}

async fn by_agent(
    handle: &mut Handle<Host>,
    user: &str,
    socket: &str,
    hash: Option<HashAlg>,
) -> std::result::Result<bool, String> {
    let agent = AgentClient::connect_uds(socket).await;
    let mut agent = agent.map_err(|cause| cause.to_string())?;
    let identities = agent.request_identities().await;
    for identity in identities.map_err(|cause| cause.to_string())? {
        let AgentIdentity::PublicKey { key, .. } = identity else {
            continue;
        };
        let hash = hash.filter(|_| key.algorithm().is_rsa());
        let answer = handle
            .authenticate_publickey_with(user, key, hash, &mut agent)
            .await;
        if let AuthResult::Success = answer.map_err(|cause| cause.to_string())? {
            return Ok(true);
        }
    }
    Ok(false)
}
