//! Signatures by a key that an agent holds (OpenSSH, draft-ietf-sshm-ssh-agent).
//!
//! The agent is asked on a thread of its own, with a runtime of its own: who signs may be within one already.

use std::path::Path;
use std::thread;
use std::time::Duration;

use russh::keys::agent::client::AgentClient;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey, Signature};
use tokio::net::UnixStream;

use crate::error::{Doing, Failure, Kind, Result};

/// How long an agent may take: it may ask a person first.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether the agent has the private half of a key.
///
/// # Errors
/// [`Kind::Usage`] if it does not answer.
pub(super) fn has(socket: &Path, key: &PublicKey) -> Result<bool> {
    let wanted = key.key_data();
    ask(socket, async |mut agent| {
        let identities = agent.request_identities().await?;
        Ok(identities
            .iter()
            .any(|identity| identity.public_key().key_data() == wanted))
    })
}

/// Has the agent sign bytes. An RSA key signs with SHA-512: an agent that is asked for nothing takes SHA-1.
///
/// # Errors
/// [`Kind::Usage`] if it does not.
pub(super) fn sign(socket: &Path, key: &PublicKey, data: &[u8]) -> Result<Signature> {
    let hash = matches!(key.key_data(), KeyData::Rsa(_)).then_some(HashAlg::Sha512);
    ask(socket, async |mut agent| {
        agent.sign_request_signature(key, hash, data).await
    })
}

/// Asks an agent one thing, within a limit.
fn ask<T: Send>(
    socket: &Path,
    question: impl AsyncFnOnce(AgentClient<UnixStream>) -> std::result::Result<T, russh::keys::Error>
    + Send,
) -> Result<T> {
    let doing = || format!("asking the agent at {}", socket.display());
    let answered = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .doing(Kind::Unexpected, || "starting the runtime")?;
            runtime.block_on(async {
                let work = async {
                    let agent = AgentClient::connect_uds(socket).await?;
                    question(agent).await
                };
                match tokio::time::timeout(LIMIT, work).await {
                    Ok(answer) => answer.doing(Kind::Usage, doing),
                    Err(_) => {
                        let what = format!("no answer within {} s", LIMIT.as_secs());
                        Err(Failure::new(Kind::Usage, what).doing(doing()))
                    }
                }
            })
        });
        asking.join()
    });
    let panicked = |_| Failure::new(Kind::Unexpected, "the thread that asks the agent has ended");
    answered.map_err(panicked)?
}
