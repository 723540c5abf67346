//! `prune`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::keep::KeepArgs;
use super::remote::RemoteArgs;
use super::sign::TrustArgs;

const PRUNE_EXAMPLES: &str = "\
Examples:
  etcd-dr prune --keep-last 20 --dry-run --explain
  etcd-dr prune --keep-hourly 24 --keep-daily 7 --keep-weekly 4 --yes
  etcd-dr prune --max-size 40GiB --min-keep 3 --yes
  etcd-dr prune --cluster UUID --all          after a cluster is gone";

/// `prune`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = PRUNE_EXAMPLES)]
pub struct PruneArgs {
    /// Directory that holds the backups, or a store's URL
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Same as STORE, spelled as in other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store_option: Option<PathBuf>,

    /// Delete every backup of this cluster: its UUID or etcd cluster id
    #[arg(
        long,
        value_name = "ID",
        requires = "all",
        conflicts_with = "KeepArgs",
        help_heading = "Options"
    )]
    pub cluster: Option<String>,

    /// Confirm deleting every backup of --cluster
    ///
    /// For a store of a cluster that is gone. What is pinned or in use by a restore stays.
    #[arg(long, requires = "cluster")]
    pub all: bool,

    /// Show what would be deleted; delete nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Show the reasons for each backup, kept ones included
    #[arg(long)]
    pub explain: bool,

    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,

    /// What stays.
    #[command(flatten)]
    pub keep: KeepArgs,

    /// Whose signatures count.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Sign the record of what is deleted with this OpenSSH private key
    ///
    /// verify --chain then knows what was deleted on purpose.
    #[arg(long, value_name = "FILE", env = "ETCD_DR_SIGN_KEY", value_hint = ValueHint::FilePath, help_heading = "Signatures")]
    pub sign_key: Option<PathBuf>,

    /// File with the passphrase of --sign-key, such as /dev/fd/3
    #[arg(long, value_name = "FILE", env = "ETCD_DR_SIGN_PASSPHRASE_FILE", value_hint = ValueHint::FilePath, help_heading = "Signatures")]
    pub sign_passphrase_file: Option<PathBuf>,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
