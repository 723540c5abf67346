//! The connection below SFTP: whose host it is, who we are.
//!
//! A host is known by its key: in a `known_hosts` file, or by a fingerprint that was given. A host
//! that is not known is refused; nothing is ever learnt by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::Preferred;
use russh::client::{self, AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh_sftp::client::RawSftpSession;

use super::super::{Address, Settings};
use super::known::{KnownHosts, Verdict};
use super::packets::{MAX_PACKET, Packets, TooLong};
use super::protocol::PORT;
use crate::error::{self, Doing, Failure, Kind, Result};

/// How long it may take to connect, and to answer a request.
const CONNECT: Duration = Duration::from_secs(20);
const REQUEST_SECONDS: u64 = 60;
/// A host that answers nothing is given up after three of these.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The names of keys that are looked for, as ssh(1) has them.
const OWN_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// The connection; the host is spoken to as long as it is there.
pub(super) struct Session {
    _handle: Handle<Host>,
    /// Whether the host has sent a packet that is too long.
    pub(super) too_long: TooLong,
}

/// A key that a host has shown, and why it was not accepted.
struct Refused {
    kind: Algorithm,
    fingerprint: String,
    why: String,
}

/// Holds the host's key against what is known of it.
struct Host {
    known: Arc<KnownHosts>,
    fingerprint: Option<String>,
    refused: Arc<Mutex<Option<Refused>>>,
}

impl Host {
    fn judge(&self, key: &PublicKey) -> std::result::Result<(), String> {
        let kind = key.algorithm();
        let shown = key.fingerprint(HashAlg::Sha256).to_string();
        if let Some(wanted) = &self.fingerprint {
            if let Some(place) = self.known.revoked(key) {
                return Err(format!("the host's key {shown} is revoked by {place}"));
            }
            let same = *wanted == shown;
            return same.then_some(()).ok_or_else(|| {
                format!(
                    "the host's key is {shown} ({kind}), but the configured fingerprint is {wanted}"
                )
            });
        }
        match self.known.judge(key) {
            Verdict::Known => Ok(()),
            Verdict::Revoked(place) => Err(format!("the host's key {shown} is revoked by {place}")),
            Verdict::Other(place) => Err(format!(
                "the host's key is {shown} ({kind}), but {place} has a different key for it"
            )),
            Verdict::Authority(place) => Err(format!(
                "the host's key {shown} ({kind}) is in none of: {}; {place} has a @cert-authority for it, but host certificates are not supported: add the host's own key",
                self.known.files()
            )),
            Verdict::Unknown => Err(format!(
                "the host's key {shown} ({kind}) is in none of: {}",
                self.known.files()
            )),
        }
    }
}

impl client::Handler for Host {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> std::result::Result<bool, Self::Error> {
        // No certificate is asked for.
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        let judged = self.judge(key);
        if let (Err(why), Ok(mut refused)) = (&judged, self.refused.lock()) {
            *refused = Some(Refused {
                kind: key.algorithm(),
                fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
                why: why.clone(),
            });
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
        let doing = || format!("starting SFTP with {}", address.bucket());
        let channel = handle
            .channel_open_session()
            .await
            .doing(Kind::Store, doing)?;
        channel
            .request_subsystem(true, "sftp")
            .await
            .doing(Kind::Store, doing)?;
        let (packets, too_long) = Packets::new(channel.into_stream());
        let config = russh_sftp::client::Config {
            max_packet_len: MAX_PACKET,
            request_timeout_secs: REQUEST_SECONDS,
            ..russh_sftp::client::Config::default()
        };
        let raw = RawSftpSession::new_with_config(packets, config);
        raw.init().await.doing(Kind::Store, doing)?;
        let session = Session {
            _handle: handle,
            too_long,
        };
        Ok((raw, session))
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

/// The files that hosts are known by: the one that was given, or those that ssh(1) reads.
fn known_files(settings: &Settings) -> Vec<PathBuf> {
    if let Some(given) = settings.get("ETCD_DR_SFTP_KNOWN_HOSTS") {
        return vec![PathBuf::from(given)];
    }
    let own = settings.home.as_ref().map(|home| home.join(".ssh"));
    let folders = own.map(|dir| dir.join("known_hosts"));
    folders
        .into_iter()
        .chain([PathBuf::from("/etc/ssh/ssh_known_hosts")])
        .collect()
}

/// The fingerprint that was given, as it is shown here.
fn fingerprint(settings: &Settings) -> Result<Option<String>> {
    const VARIABLE: &str = "ETCD_DR_SFTP_FINGERPRINT";
    let Some(given) = settings.get(VARIABLE).map(str::trim) else {
        return Ok(None);
    };
    let digest = given.strip_prefix("SHA256:").unwrap_or(given);
    if digest.contains(':') {
        let what = format!(
            "reading {VARIABLE}: expected SHA256:..., as ssh-keygen -l shows it, found {given}"
        );
        return Err(Failure::new(Kind::Usage, what));
    }
    Ok(Some(format!("SHA256:{}", digest.trim_end_matches('='))))
}

/// Whether two algorithms are of one kind of key: RSA's differ in how they sign.
fn is_kind(a: &Algorithm, b: &Algorithm) -> bool {
    match a {
        Algorithm::Rsa { .. } => matches!(b, Algorithm::Rsa { .. }),
        _ => a == b,
    }
}

/// The host's addresses. A failure says that it is the name of a host that is expected.
async fn addresses(name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((name, port)).await;
    let found: Vec<_> = found
        .doing(Kind::Store, || {
            format!("looking up {name:?} (aliases of ~/.ssh/config are not read)")
        })?
        .collect();
    Ok(found)
}

async fn reach(address: &Address, settings: &Settings) -> Result<Handle<Host>> {
    let (name, port) = (address.host(), address.port().unwrap_or(PORT));
    let work = async {
        let known = KnownHosts::read(known_files(settings), &name, port)?;
        let fingerprint = fingerprint(settings)?;
        let to = addresses(&name, port).await?;
        any_key(&to, &Arc::new(known), fingerprint).await
    };
    work.await
        .map_err(|failure| failure.doing(format!("connecting to {name} port {port}")))
}

/// Connects by one of the host's keys. It has several kinds and shows one that is asked for: first
/// those that are known; and where a fingerprint tells of no kind, one after the other.
async fn any_key(
    to: &[SocketAddr],
    known: &Arc<KnownHosts>,
    fingerprint: Option<String>,
) -> Result<Handle<Host>> {
    let kinds = known.kinds();
    let mut asked = Preferred::default().key.to_vec();
    asked.sort_by_key(|kind| {
        let place = kinds.iter().position(|known| is_kind(known, kind));
        place.unwrap_or(usize::MAX)
    });
    let mut shown = Vec::new();
    loop {
        let config = client::Config {
            keepalive_interval: Some(KEEPALIVE),
            nodelay: true,
            preferred: Preferred {
                key: asked.clone().into(),
                ..Preferred::default()
            },
            ..client::Config::default()
        };
        let refused = Arc::new(Mutex::new(None));
        let host = Host {
            known: Arc::clone(known),
            fingerprint: fingerprint.clone(),
            refused: Arc::clone(&refused),
        };
        let connected = client::connect(Arc::new(config), to, host).await;
        let refused = refused.lock().ok().and_then(|mut refused| refused.take());
        let (cause, refused) = match (connected, refused) {
            (Ok(handle), None) => return Ok(handle),
            (Ok(_), Some(refused)) => (String::new(), Some(refused)),
            (Err(cause), refused) => (error::cut(cause.to_string()), refused),
        };
        match refused {
            Some(key) if fingerprint.is_some() => {
                // The next connection asks for a key of another kind.
                asked.retain(|kind| !is_kind(kind, &key.kind));
                shown.push(key);
                if !asked.is_empty() {
                    continue;
                }
            }
            Some(key) => return Err(Failure::new(Kind::Store, key.why)),
            // It has no other kind to show.
            None if !shown.is_empty() => {}
            None => return Err(Failure::new(Kind::Store, cause)),
        }
        return Err(Failure::new(Kind::Store, none_of(&shown)));
    }
}

/// Why none of the keys that a host has shown was accepted.
fn none_of(shown: &[Refused]) -> String {
    if let [only] = shown {
        return only.why.clone();
    }
    let keys = shown
        .iter()
        .map(|key| format!("{} ({})", key.fingerprint, key.kind));
    let keys = keys.collect::<Vec<_>>().join(", ");
    let last = shown.last().map_or("", |key| key.why.as_str());
    format!(
        "the host has the keys {keys}, and none of them is the configured one; the last: {last}"
    )
}

async fn sign_in(handle: &mut Handle<Host>, address: &Address, settings: &Settings) -> Result<()> {
    let user = match address.user() {
        user if user.is_empty() => settings.get("USER").unwrap_or("root").to_owned(),
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
        let answer = handle.authenticate_publickey(user.as_str(), key).await;
        if let AuthResult::Success = answer.doing(Kind::Store, doing)? {
            return Ok(());
        }
        tried.push(format!("{} (refused)", path.display()));
    }
    if let Some(socket) = settings.get("SSH_AUTH_SOCK") {
        match by_agent(handle, &user, socket, hash).await {
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
