//! `backup`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::keep::KeepArgs;
use super::remote::{FormArgs, RemoteArgs};
use super::values::{parse_duration, parse_size};

const BACKUP_EXAMPLES: &str = "\
Examples:
  etcd-dr backup                               into the default store
  etcd-dr backup /mnt/backups --if-older-than 1h
  etcd-dr backup --flat /home/core/backup      the pair cluster-backup.sh makes
  etcd-dr backup --allow operator-progressing  during a rollout, marked dirty";

/// `backup`
#[derive(Debug, Clone, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct BackupArgs {
    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// The same as STORE, as it is given to other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath, conflicts_with = "flat")]
    pub store_option: Option<PathBuf>,

    /// Write the plain files into DIR, as cluster-backup.sh does
    #[arg(long, value_name = "DIR", conflicts_with_all = ["store", "if_older_than"], value_hint = ValueHint::DirPath)]
    pub flat: Option<PathBuf>,

    /// Do nothing if a good backup is younger than this (30m, 1h, 1d)
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub if_older_than: Option<Duration>,

    /// Go on although this check fails; the backup is marked dirty
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// Go on whichever quality check fails, as cluster-backup.sh --force
    #[arg(long)]
    pub force: bool,

    /// Compare the data of all members (costs each a full scan)
    #[arg(long)]
    pub check_members: bool,

    /// At most this many bytes a second (50MiB)
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub max_rate: Option<u64>,

    /// Give up when nothing has come for this long [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub stall_timeout: Option<Duration>,

    /// No retention removes it: the file `pinned` in it says so
    #[arg(long, conflicts_with = "flat")]
    pub pin: bool,

    /// Write metrics there for node_exporter, whole and world-readable;
    /// its name ends in .prom
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub textfile: Option<PathBuf>,

    /// Copy it there once it is taken; may be given several times
    #[arg(long, value_name = "URL", value_delimiter = ',', conflicts_with = "flat", value_hint = ValueHint::Url)]
    pub copy_to: Vec<String>,

    /// Apply the --keep rules to this node's copies too, in each store of
    /// --copy-to; without it they prune the backups here and no copies
    #[arg(long, conflicts_with = "flat", verbatim_doc_comment)]
    pub keep_copies: bool,

    /// How copies are stored.
    #[command(flatten)]
    pub form: FormArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,

    /// What is removed once this backup is taken; none: nothing.
    #[command(flatten)]
    pub keep: KeepArgs,
}
