//! The key that signs and those whose signatures count, as arguments and configuration name them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::args::{SignersArgs, TrustArgs};
use super::given::file;
use super::output::confirm;
use super::session::Session;
use super::{allow, environment};
use crate::backup::signature::SigningKey;
use crate::backup::signers::AllowedSigners;
use crate::error::{Failure, Kind, Result};
use crate::keep::trust::{self, Trust};

/// Where an agent listens, as OpenSSH has it.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// The variable of `--sign-key`.
pub(super) const KEY_VARIABLE: &str = "ETCD_DR_SIGN_KEY";

/// The key that signs backups and copies; none: they are not signed.
///
/// # Errors
/// [`Kind::Usage`] if the file is not such a key.
pub(super) fn key(
    session: &Session,
    named: Option<&Path>,
    passphrase_file: Option<&Path>,
) -> Result<Option<Arc<SigningKey>>> {
    let configured = &session.config.sign;
    let Some(path) = named.or(configured.key.as_deref()) else {
        return Ok(None);
    };
    let agent = environment::variable(AGENT_VARIABLE).map(PathBuf::from);
    let passphrase_file = passphrase_file.or(configured.passphrase_file.as_deref());
    let passphrase = || passphrase(session, path, passphrase_file);
    let key = SigningKey::parse(&file(path)?, agent.as_deref(), passphrase)
        .map_err(|failure| failure.doing(format!("reading {}", path.display())))?;
    Ok(Some(Arc::new(key)))
}

/// The passphrase of the signing key: from a file, or asked for on the terminal, once; none if it cannot be.
fn passphrase(session: &Session, key: &Path, named: Option<&Path>) -> Result<Option<String>> {
    if let Some(known) = session.passphrase.get() {
        return Ok(Some(known.clone()));
    }
    let given = match named {
        Some(path) => file(path)?.trim_end_matches(['\r', '\n']).to_owned(),
        None if confirm::is_terminal() => {
            confirm::secret(&format!("Passphrase of {}", key.display()))?
        }
        None => return Ok(None),
    };
    // A descriptor can be read once, and a person is asked once.
    Ok(Some(session.passphrase.get_or_init(|| given).clone()))
}

/// What is asked of signatures: the option requires them, the configuration where it says so.
///
/// # Errors
/// [`Kind::Usage`] if the file is not one of allowed signers, or an allowed refusal is unknown.
pub(super) fn trust(session: &Session, args: &SignersArgs, allowed: &[String]) -> Result<Trust> {
    let configured = &session.config.sign;
    let path = args.allowed_signers.as_ref();
    let Some(path) = path.or(configured.allowed_signers.as_ref()) else {
        if configured.require {
            let what = "require in [sign] needs allowed-signers: a file that names the keys";
            return Err(Failure::new(Kind::Usage, what));
        }
        return Ok(Trust::default());
    };
    let signers = AllowedSigners::parse(&file(path)?, &TimeZone::system())
        .map_err(|failure| failure.doing(format!("reading {}", path.display())))?;
    let required = args.allowed_signers.is_some() || configured.require;
    Ok(Trust::new(signers, required).allowing(allowed))
}

/// The same of a command that takes no other refusals to override.
///
/// # Errors
/// As [`trust`].
pub(super) fn trust_only(session: &Session, args: &TrustArgs) -> Result<Trust> {
    let allowed = allow::check(&args.allow, &trust::ALLOWABLE)?;
    trust(session, &args.signers, &allowed)
}

/// What the configuration alone asks of signatures, for a command that has no options of its own for it.
///
/// # Errors
/// As [`trust`].
pub(super) fn configured(session: &Session) -> Result<Trust> {
    trust(session, &SignersArgs::default(), &[])
}
