//! `list`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::remote::RemoteArgs;
use super::sign::SignersArgs;
use super::values::parse_duration;

/// `list`
#[derive(Debug, Clone, Args)]
#[command(
    after_long_help = "Examples:\n  etcd-dr list\n  etcd-dr list --stale-after 2h || alert\n  etcd-dr list -o json /mnt/backups"
)]
pub struct ListArgs {
    /// Directory that holds the backups, or a store's URL
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Same as STORE, spelled as in other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store_option: Option<PathBuf>,

    /// Exit with 11 if the newest good backup is older than this (2h)
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub stale_after: Option<Duration>,

    /// Whose signatures count.
    #[command(flatten)]
    pub signers: SignersArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
