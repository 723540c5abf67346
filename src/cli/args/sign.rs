//! What signs backups, and whose signatures count.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::values::with_names;
use crate::keep::trust::ALLOWABLE;

/// What signs a backup.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signatures")]
pub struct SignArgs {
    /// Sign the backup, and copies of it, with this OpenSSH private key
    ///
    /// Ed25519, ECDSA or RSA, in OpenSSH's format. A passphrase is asked for on the terminal. Of a
    /// public key (FILE.pub) the agent at SSH_AUTH_SOCK must hold the private half. The signature
    /// of backup.json is beside it in backup.json.sig; ssh-keygen -Y verify -n etcd-dr checks it.
    #[arg(long, value_name = "FILE", env = "ETCD_DR_SIGN_KEY", value_hint = ValueHint::FilePath)]
    pub sign_key: Option<PathBuf>,

    /// File with the passphrase of --sign-key, such as /dev/fd/3
    #[arg(long, value_name = "FILE", env = "ETCD_DR_SIGN_PASSPHRASE_FILE", value_hint = ValueHint::FilePath)]
    pub sign_passphrase_file: Option<PathBuf>,
}

/// Whose signatures count.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signatures")]
pub struct SignersArgs {
    /// Require a signature by one of these keys (OpenSSH's allowed_signers)
    ///
    /// Each line has principals, options and a public key. A principal is a node's name or
    /// CLUSTER/NODE, with * and ?. Refusals: unsigned-backup, unknown-signer, wrong-signer.
    #[arg(long, value_name = "FILE", env = "ETCD_DR_ALLOWED_SIGNERS", value_hint = ValueHint::FilePath)]
    pub allowed_signers: Option<PathBuf>,
}

/// Whose signatures count, and which of their refusals are overridden.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signatures")]
pub struct TrustArgs {
    /// Whose signatures count.
    #[command(flatten)]
    pub signers: SignersArgs,

    /// Accept a backup although its signature does not count
    #[arg(long, value_name = "REFUSAL", long_help = with_names("Accept a backup although its signature does not count", &ALLOWABLE), value_delimiter = ',', value_parser = crate::error::names::parse)]
    pub allow: Vec<String>,
}
