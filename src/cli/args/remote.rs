//! How stores away from the node are reached, and how copies are made and read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::values::parse_duration;

/// How stores away from the node are reached; credentials come from where the
/// services' own tools look for them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Remote stores")]
pub struct RemoteArgs {
    /// Also trust this CA bundle for remote stores
    #[arg(long, value_name = "FILE", env = "ETCD_DR_STORE_CA", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub store_ca: Option<PathBuf>,

    /// Retry a store's request for up to this long [default: 2m]
    #[arg(long, value_name = "TIME", env = "ETCD_DR_STORE_PATIENCE", value_parser = parse_duration)]
    pub store_patience: Option<Duration>,
}

/// How a copy is stored.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Copies")]
pub struct FormArgs {
    /// Compress copies with zstd; the files here stay as they are
    #[arg(long)]
    pub compress: bool,

    /// Encrypt copies to this recipient: age1..., or an SSH public key
    #[arg(long, value_name = "RECIPIENT")]
    pub recipient: Vec<String>,

    /// Encrypt copies to the recipients in this file, one per line
    #[arg(long, value_name = "FILE", env = "ETCD_DR_RECIPIENTS_FILE", value_hint = ValueHint::FilePath)]
    pub recipients_file: Option<PathBuf>,

    /// Encrypt the archives of copies to this recipient, and not to the
    /// others
    ///
    /// The archives have the control plane's keys and the configuration that
    /// decrypts Secrets. Whoever may read the snapshot then cannot read these.
    /// restore of a node and verify need an identity of each kind;
    /// restore --data-dir does not.
    #[arg(long, value_name = "RECIPIENT", verbatim_doc_comment)]
    pub secrets_recipient: Vec<String>,
}

/// What encrypted copies are read with.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Copies")]
pub struct IdentityArgs {
    /// Decrypt copies with this age identity or SSH private key
    #[arg(long, value_name = "FILE", env = "ETCD_DR_IDENTITY", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub identity: Vec<PathBuf>,
}
