//! The key that signs and those whose signatures count, as arguments and configuration name them.

use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::allow;
use super::args::{SignersArgs, TrustArgs};
use super::given::file;
use super::session::Session;
use crate::backup::signature::SigningKey;
use crate::backup::signers::AllowedSigners;
use crate::error::{Failure, Kind, Result};
use crate::keep::trust::{self, Trust};

/// The variable of `--sign-key`.
pub(super) const KEY_VARIABLE: &str = "ETCD_DR_SIGN_KEY";

/// The key that signs backups and copies; none: they are not signed.
///
/// # Errors
/// [`Kind::Usage`] if the file is not such a key.
pub(super) fn key(session: &Session, named: Option<&Path>) -> Result<Option<Arc<SigningKey>>> {
    let configured = session.config.sign.key.as_deref();
    let Some(path) = named.or(configured) else {
        return Ok(None);
    };
    let key = SigningKey::parse(&file(path)?)
        .map_err(|failure| failure.doing(format!("reading {}", path.display())))?;
    Ok(Some(Arc::new(key)))
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
