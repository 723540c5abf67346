//! `verify`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::source::SourceArgs;
use super::values::parse_duration;

const VERIFY_EXAMPLES: &str = "\
Examples:
  etcd-dr verify latest
  etcd-dr verify backup-12 -o json
  etcd-dr verify /home/core/backup             a pair made by cluster-backup.sh
  etcd-dr verify snapshot.db
  etcd-dr verify latest --live                 does it match the live member?
  etcd-dr verify latest --rehearse             does etcd start from it?
  etcd-dr verify --data-dir /var/lib/etcd      a stopped member's files
  etcd-dr verify --chain s3://bucket/etcd      is one missing or replaced?
  etcd-dr verify --fleet --sample 5 s3://bucket/etcd
  etcd-dr verify --ranges                      are recorded changes whole?
  etcd-dr verify --compare a.json b.json       which disk to recover from?
  etcd-dr verify --cluster -o json             what is wrong with the cluster?";

/// `verify`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// Backup to check: a name, `latest`, a directory, a snapshot file,
    /// or URL/CLUSTER/NODE/backup-N
    #[arg(value_name = "SET", verbatim_doc_comment, required_unless_present_any = ["all", "data_dir", "compare", "cluster", "upgrade_to", "chain", "fleet", "ranges"])]
    pub sets: Vec<String>,

    /// Check every backup in the store
    #[arg(long, conflicts_with = "sets")]
    pub all: bool,

    /// Check that no backup of the store is missing, replaced or re-dated
    ///
    /// Each Manifest names the backup before it by its hash; what prune deletes is recorded. SET
    /// is a store here, such as a URL. Exit status 11: something is wrong with a chain.
    #[arg(long, conflicts_with_all = ["all", "live", "data_dir", "compare", "cluster", "upgrade_to"])]
    pub chain: bool,

    /// Prove backups of many clusters: verify them, restore them into
    /// --scratch, and compare HashKV
    ///
    /// SET are stores here. Each run takes the newest good backup of the
    /// --sample nodes whose last proof is the oldest, and records the
    /// result. Exit status 3: one is bad; 12: one could not be checked.
    #[arg(long, conflicts_with_all = ["all", "live", "rehearse", "data_dir", "compare", "cluster", "upgrade_to", "chain"], verbatim_doc_comment)]
    pub fleet: bool,

    /// With --fleet: how many backups to prove [default: 1]
    #[arg(long, value_name = "N", requires = "fleet", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,

    /// Check the recorded changes, and that each backup with them has the HashKV of the next
    ///
    /// SET is a store here. Exit status 11: a segment is damaged or missing, or a backup and the
    /// changes after it are not what the next backup has. It copies each backup to --scratch.
    #[arg(long, conflicts_with_all = ["all", "live", "data_dir", "compare", "cluster", "upgrade_to", "chain", "fleet"])]
    pub ranges: bool,

    /// Diagnose the running cluster: members, quorum, names, addresses,
    /// certificates, clocks, space
    #[arg(long, conflicts_with_all = ["sets", "all", "live"], verbatim_doc_comment)]
    pub cluster: bool,

    /// List what would stop etcd of another minor release (3.5, 3.6, 3.7)
    /// from running here, and how to fix it; --data-dir DIR looks at a
    /// stopped member
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["sets", "all", "live", "compare", "cluster", "wal_dir"], value_parser = ["3.5", "3.6", "3.7"], verbatim_doc_comment)]
    pub upgrade_to: Option<String>,

    /// Also compare HashKV with the running member, at the backup's revision
    ///
    /// Finds out whether the backup is of this cluster's history. Exit status 11: it is not;
    /// 12: it could not be found out, for instance because the revision has been compacted
    /// away.
    #[arg(long, conflicts_with = "data_dir")]
    pub live: bool,

    /// Check a stopped member's data directory instead of a backup
    ///
    /// Checks the database, the WAL and the .snap files, and whether they agree; shows the
    /// member's name and ids, the members it knows, and how far it is ahead of or behind the
    /// newest backup.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sets", "all"], value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// Compare JSON reports of --data-dir, one per member, and name the
    /// disk to recover from
    ///
    /// Ranks the disks as raft elects a leader: by the term of the last
    /// entry, then by its index. Exit status 11: the best disk may lack
    /// acknowledged writes.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["sets", "all", "live", "data_dir"], value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub compare: Vec<PathBuf>,

    /// WAL directory of that member, if it is separate
    #[arg(long, value_name = "DIR", requires = "data_dir", value_hint = ValueHint::DirPath)]
    pub wal_dir: Option<PathBuf>,

    /// Whether etcd serves it.
    #[command(flatten)]
    pub rehearse: RehearseArgs,

    /// Where backups come from, and what they are read with.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Whether a real etcd serves the backup.
#[derive(Debug, Clone, Args)]
pub struct RehearseArgs {
    /// Also restore the backup to scratch space and start a real etcd from it
    ///
    /// Builds the data directory as restore does, in --scratch, and starts etcd from it on
    /// sockets that nobody else can reach. etcd must serve the backup's revision, keys and
    /// HashKV, and accept a write and a compaction. Then it is stopped, and everything removed.
    /// The result is recorded beside the backup. Exit status 3: etcd does not serve it; 12: it
    /// could not be found out.
    #[arg(long, conflicts_with_all = ["data_dir", "compare", "cluster", "upgrade_to", "chain"])]
    pub rehearse: bool,

    /// etcd to rehearse with
    /// [default: the one that runs on this node, or the one in PATH]
    #[arg(long, value_name = "FILE", requires = "rehearse", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub etcd: Option<PathBuf>,

    /// Stop a rehearsal after this time
    #[arg(long, value_name = "TIME", requires = "rehearse", value_parser = parse_duration, default_value = "10m")]
    pub rehearse_timeout: Duration,
}
