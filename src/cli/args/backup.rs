//! `backup`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::keep::KeepArgs;
use super::remote::{FormArgs, RemoteArgs};
use super::sign::SignArgs;
use super::values::{parse_duration, parse_size, with_names};
use crate::keep::quality::ALLOWABLE;

const BACKUP_EXAMPLES: &str = "\
Examples:
  etcd-dr backup                               into the default store
  etcd-dr backup /mnt/backups --if-older-than 1h
  etcd-dr backup --flat /home/core/backup      two files, as cluster-backup.sh
  etcd-dr backup --allow operator-progressing  during a rollout, marked dirty";

/// `backup`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = BACKUP_EXAMPLES)]
pub struct BackupArgs {
    /// Directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Same as STORE, spelled as in other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath, conflicts_with = "flat")]
    pub store_option: Option<PathBuf>,

    /// Write plain files into DIR, as cluster-backup.sh does
    ///
    /// The directory then has snapshot_TIME.db and static_kuberesources_TIME.tar.gz, as
    /// OpenShift's scripts read them, and no Manifest: it is not a backup that list, prune or
    /// copy know of.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["store", "if_older_than"], value_hint = ValueHint::DirPath)]
    pub flat: Option<PathBuf>,

    /// Skip if a good backup is younger than this (30m, 1h, 1d)
    ///
    /// The exit status is 0 exactly when a good backup no older than this exists afterwards,
    /// with every copy that was asked for: one line for a pipeline before an upgrade.
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub if_older_than: Option<Duration>,

    /// Back up although this check fails, and mark the backup dirty
    #[arg(long, value_name = "CHECK", long_help = with_names("Back up although this check fails, and mark the backup dirty", &ALLOWABLE), value_delimiter = ',', value_parser = crate::error::names::parse)]
    pub allow: Vec<String>,

    /// Back up whichever check fails, as cluster-backup.sh --force
    #[arg(long)]
    pub force: bool,

    /// Compare the data of all members (a full scan on each)
    #[arg(long)]
    pub check_members: bool,

    /// Limit the snapshot to this many bytes per second (50MiB)
    ///
    /// Bounds what is read from etcd; copies to other stores are not held back.
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub max_rate: Option<u64>,

    /// Abort if the snapshot stalls for this long [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub stall_timeout: Option<Duration>,

    /// Protect the backup from pruning, by a file `pinned` in it
    #[arg(long, conflicts_with = "flat")]
    pub pin: bool,

    /// Write metrics for node_exporter to this world-readable file,
    /// atomically; its name must end in .prom
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub textfile: Option<PathBuf>,

    /// Copy the backup to this store once it is taken; repeatable
    #[arg(long, value_name = "URL", value_delimiter = ',', conflicts_with = "flat", value_hint = ValueHint::Url)]
    pub copy_to: Vec<String>,

    /// Also prune this node's copies in each --copy-to store by the --keep
    /// rules, which otherwise prune only the backups here
    #[arg(long, conflicts_with = "flat", verbatim_doc_comment)]
    pub keep_copies: bool,

    /// How copies are stored.
    #[command(flatten)]
    pub form: FormArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,

    /// What signs it.
    #[command(flatten)]
    pub sign: SignArgs,

    /// What is removed once this backup is taken; none: nothing.
    #[command(flatten)]
    pub keep: KeepArgs,
}
