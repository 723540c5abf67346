//! `verify`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::remote::{IdentityArgs, RemoteArgs};

const VERIFY_EXAMPLES: &str = "\
Examples:
  etcd-dr verify latest
  etcd-dr verify backup-12 -o json
  etcd-dr verify /home/core/backup             a pair made by cluster-backup.sh
  etcd-dr verify snapshot.db
  etcd-dr verify latest --live                 is it of this cluster's history?
  etcd-dr verify --data-dir /var/lib/etcd      a stopped member's files
  etcd-dr verify --compare a.json b.json       whose disk to go on with?
  etcd-dr verify --cluster -o json             what ails the cluster";

/// `verify`
#[derive(Debug, Clone, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// A backup's name, `latest`, a directory, a snapshot file, or
    /// URL/CLUSTER/NODE/backup-N
    #[arg(value_name = "SET", verbatim_doc_comment, required_unless_present_any = ["all", "data_dir", "compare", "cluster", "upgrade_to"])]
    pub sets: Vec<String>,

    /// Every backup in the store
    #[arg(long, conflicts_with = "sets")]
    pub all: bool,

    /// What stands in the way of the running cluster: members, votes,
    /// names, addresses, certificates, clocks, space
    #[arg(long, conflicts_with_all = ["sets", "all", "live"], verbatim_doc_comment)]
    pub cluster: bool,

    /// List what would stop etcd of another minor release (3.5, 3.6, 3.7)
    /// from running here, each with its cure; of a stopped member by
    /// --data-dir DIR
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["sets", "all", "live", "compare", "cluster", "wal_dir"], value_parser = ["3.5", "3.6", "3.7"], verbatim_doc_comment)]
    pub upgrade_to: Option<String>,

    /// Compare with the running member too: HashKV at the backup's revision
    #[arg(long, conflicts_with = "data_dir")]
    pub live: bool,

    /// A stopped member's data directory instead of a backup
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sets", "all"], value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// Reports that --data-dir gave as JSON, one a member: name the one
    /// whose data is the best to go on with
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["sets", "all", "live", "data_dir"], value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub compare: Vec<PathBuf>,

    /// That member's WAL, where it has a directory of its own
    #[arg(long, value_name = "DIR", requires = "data_dir", value_hint = ValueHint::DirPath)]
    pub wal_dir: Option<PathBuf>,

    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Where a copy is brought to while it is checked [default: /var/tmp]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub scratch: Option<PathBuf>,

    /// What copies are read with.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
