//! How stores away from the node are reached, and how copies are made and read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::values::parse_duration;

/// How stores away from the node are reached; credentials come from where the
/// services' own tools look for them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Stores away from the node")]
pub struct RemoteArgs {
    /// CA bundle that a store's certificate may be signed by besides the
    /// system's
    #[arg(long, value_name = "FILE", env = "ETCD_DR_STORE_CA", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub store_ca: Option<PathBuf>,

    /// How long a store's request is tried again [default: 2m]
    #[arg(long, value_name = "TIME", env = "ETCD_DR_STORE_PATIENCE", value_parser = parse_duration)]
    pub store_patience: Option<Duration>,
}

/// How a copy is stored.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Copies")]
pub struct FormArgs {
    /// Compress copies (zstd); the files here stay as they are
    #[arg(long)]
    pub compress: bool,

    /// Encrypt copies to this recipient: age1..., or an SSH public key
    #[arg(long, value_name = "RECIPIENT")]
    pub recipient: Vec<String>,

    /// Encrypt copies to the recipients in this file, one a line
    #[arg(long, value_name = "FILE", env = "ETCD_DR_RECIPIENTS_FILE", value_hint = ValueHint::FilePath)]
    pub recipients_file: Option<PathBuf>,
}

/// What encrypted copies are read with.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Copies")]
pub struct IdentityArgs {
    /// age identity, or SSH private key, that encrypted copies are read
    /// with
    #[arg(long, value_name = "FILE", env = "ETCD_DR_IDENTITY", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub identity: Vec<PathBuf>,
}
