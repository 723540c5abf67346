//! Where backups that are read come from.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::remote::{IdentityArgs, RemoteArgs};
use super::sign::TrustArgs;

/// Where backups that are read come from, and what they are read with.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// Directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Directory for what is downloaded or unpacked while it is read
    /// [default: /var/tmp]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub scratch: Option<PathBuf>,

    /// What copies are read with.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Whose signatures count.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
