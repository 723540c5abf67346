//! `list`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::remote::{IdentityArgs, RemoteArgs};
use super::sign::SignersArgs;
use super::values::parse_duration;

const LIST_EXAMPLES: &str = "\
Examples:
  etcd-dr list
  etcd-dr list --stale-after 2h || alert
  etcd-dr list --ranges s3://bucket/etcd
  etcd-dr list -o json /mnt/backups
  etcd-dr list --fleet s3://bucket/etcd --expect clusters.txt
  etcd-dr list --fleet s3://one s3://two -o html > fleet.html";

/// `list`
#[derive(Debug, Clone, Args)]
#[command(
    after_long_help = LIST_EXAMPLES
)]
pub struct ListArgs {
    /// Directory that holds the backups, or a store's URL
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Same as STORE, spelled as in other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store_option: Option<PathBuf>,

    /// More stores, with --fleet
    #[arg(value_name = "STORE", requires = "fleet", value_hint = ValueHint::DirPath)]
    pub more: Vec<PathBuf>,

    /// Show which revisions and times can be restored, and every gap between
    /// them with its cause, instead of the backups
    #[arg(long, conflicts_with_all = ["stale_after", "fleet"], verbatim_doc_comment)]
    pub ranges: bool,

    /// Exit with 11 if the newest good backup is older than this (2h)
    /// [with --fleet: 25h]
    #[arg(long, value_name = "AGE", value_parser = parse_duration, verbatim_doc_comment)]
    pub stale_after: Option<Duration>,

    /// Show one line for each cluster and node instead: its newest good backup
    ///
    /// Reads any number of stores, with read-only credentials if need be. -o html makes one page
    /// with small plots of size and age. Exit status 11: a cluster has no recent good backup, or
    /// is absent; 12: a store could not be read.
    #[arg(long)]
    pub fleet: bool,

    /// With --fleet: the clusters that must have backups, one per line:
    /// CLUSTER or CLUSTER/NODE, then a name to show
    #[arg(long, value_name = "FILE", requires = "fleet", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub expect: Option<PathBuf>,

    /// With --fleet: also write metrics to this file (*.prom), for
    /// node_exporter
    #[arg(long, value_name = "FILE", requires = "fleet", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub textfile: Option<PathBuf>,

    /// Whose signatures count.
    #[command(flatten)]
    pub signers: SignersArgs,

    /// What the copies' recorded changes are read with.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
