//! `prune`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::keep::KeepArgs;
use super::remote::RemoteArgs;

const PRUNE_EXAMPLES: &str = "\
Examples:
  etcd-dr prune --keep-last 20 --dry-run --explain
  etcd-dr prune --keep-hourly 24 --keep-daily 7 --keep-weekly 4 --yes
  etcd-dr prune --max-size 40GiB --min-keep 3 --yes
  etcd-dr prune --cluster UUID --all          after a cluster is gone";

/// `prune`
#[derive(Debug, Clone, Args)]
#[command(after_help = PRUNE_EXAMPLES)]
pub struct PruneArgs {
    /// The directory that holds the backups, or a store's URL
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// The same as STORE, as it is given to other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store_option: Option<PathBuf>,

    /// Everything of this cluster: its UUID or etcd cluster id
    #[arg(
        long,
        value_name = "ID",
        requires = "all",
        conflicts_with = "KeepArgs",
        help_heading = "Options"
    )]
    pub cluster: Option<String>,

    /// With --cluster: yes, all of them
    #[arg(long, requires = "cluster")]
    pub all: bool,

    /// Show what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Give the reasons for each backup, those that stay too
    #[arg(long)]
    pub explain: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// What stays.
    #[command(flatten)]
    pub keep: KeepArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
