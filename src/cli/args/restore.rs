//! `restore`, and what its options take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::remote::{IdentityArgs, RemoteArgs};
use super::sign::SignersArgs;
use super::values::{When, parse_duration, parse_when, with_names};
use crate::change::restore::refusals::ALLOWABLE;

const RESTORE_EXAMPLES: &str = "\
Examples:
  etcd-dr restore latest --dry-run             show the plan, and why
  etcd-dr restore latest                       this node, after confirmation
  etcd-dr restore backup-12 --scope etcd --yes
  etcd-dr restore latest --to-before namespace/prod   before it was deleted
  etcd-dr restore latest --to-time 15m         as it was 15 minutes ago
  etcd-dr restore s3://bucket/CLUSTER/NODE/latest
  etcd-dr restore --status                     from another session
  etcd-dr restore --rollback                   undo it
  etcd-dr restore latest --data-dir /var/lib/etcd-new   no other change
  etcd-dr restore snapshot.db --data-dir d --bump-revision 0   as etcdutl
  etcd-dr restore latest --data-dir d --name m1 \\
    --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380 \\
    --initial-advertise-peer-urls https://10.0.0.1:2380 \\
    --initial-cluster-token NEW --bump-revision 1000000000 --mark-compacted
  etcd-dr restore latest --roll-forward        and the node's own WAL
  etcd-dr restore --from-data-dir /var/lib/etcd --data-dir d   no backup";

/// `restore`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = RESTORE_EXAMPLES)]
#[command(group(clap::ArgGroup::new("after").args(["status", "resume", "rollback", "commit"])))]
#[command(group(clap::ArgGroup::new("to").args(["to_revision", "to_time", "to_before"])))]
pub struct RestoreArgs {
    /// Backup to restore: a name, `latest`, a directory, a snapshot file,
    /// or URL/CLUSTER/NODE/backup-N, which is copied to this node's store
    #[arg(
        value_name = "SET",
        verbatim_doc_comment,
        required_unless_present_any = ["after", "from_data_dir"],
        conflicts_with = "after"
    )]
    pub set: Option<String>,

    /// Restore from a stopped member's data directory instead of a backup:
    /// a new cluster of that member alone, with its whole WAL
    #[arg(long, value_name = "DIR", conflicts_with_all = ["set", "initial_cluster", "initial_cluster_token", "skip_hash_check", "compact", "target_version"], value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub from_data_dir: Option<PathBuf>,

    /// WAL directory of that member, if it is separate
    #[arg(long, value_name = "DIR", requires = "from_data_dir", value_hint = ValueHint::DirPath)]
    pub from_wal_dir: Option<PathBuf>,

    /// Restore to this revision instead of the backup's last one
    ///
    /// A backup holds every revision since etcd's last compaction, in Kubernetes those of the
    /// last 5 to 10 minutes. Everything after REVISION is left out, exactly. With latest, the
    /// newest backup that reaches the revision is used.
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..), conflicts_with_all = ["after", "from_data_dir"])]
    pub to_revision: Option<i64>,

    /// Restore to the last revision written at or before this time
    /// (2026-11-30T12:03:07Z), or this long ago (15m)
    ///
    /// The times are read from the objects in the backup: the Leases that nodes renew, and the
    /// times that the API server sets. The plan says how far they may be off.
    #[arg(long, value_name = "TIME", value_parser = parse_when, conflicts_with_all = ["after", "from_data_dir"], verbatim_doc_comment)]
    pub to_time: Option<When>,

    /// Restore to just before this object was deleted, or last changed: a key,
    /// KIND/NAMESPACE/NAME or KIND/NAME (namespace/prod)
    ///
    /// A namespace, and every other object with finalizers, counts as deleted from when its
    /// deletion was requested.
    #[arg(long, value_name = "OBJECT", conflicts_with_all = ["after", "from_data_dir"], verbatim_doc_comment)]
    pub to_before: Option<String>,

    /// Apply the WAL of a member of the same cluster to the backup, up to
    /// its last write; DIR is that member's data directory, or its WAL's
    /// [default: this node's own]
    ///
    /// The WAL must go back to where the backup was taken. It is only read, whatever the state
    /// of that member's database. Without --data-dir, the node's own etcd must not serve.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = OWN_WAL, conflicts_with_all = ["after", "to_revision", "to_time", "to_before", "compact", "from_data_dir"], value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub roll_forward: Option<PathBuf>,

    /// What to restore: all four static pods, or etcd alone, as OpenShift's
    /// cluster-restore.sh does since 4.18
    ///
    /// control-plane restores the revision directories, the manifests and
    /// etcd's data. A bare .db, and a node that runs etcd alone, have the
    /// scope etcd, which keeps the node's own manifest.
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t = ScopeArg::ControlPlane, verbatim_doc_comment)]
    pub scope: ScopeArg,

    /// Show the plan and what follows it; change nothing
    #[arg(long, conflicts_with_all = ["data_dir", "after"])]
    pub dry_run: bool,

    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,

    /// Wait at most this long for pods to stop, and for anything to start
    ///
    /// The wait for pods to start counts from when the kubelet has begun to start one.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    pub wait: Duration,

    /// Kill containers other than etcd's this long after asking them to stop
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    pub grace: Duration,

    /// If a step fails, leave the node as it is, for --resume or --rollback,
    /// instead of rolling back
    #[arg(long, verbatim_doc_comment)]
    pub keep_failed: bool,

    /// Run as a transient systemd unit that outlives this terminal
    /// [auto: if the node has systemd]
    ///
    /// With a unit, Ctrl-C is passed on to it, and restore --status follows
    /// it from any other terminal.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = DetachArg::Auto, env = "ETCD_DR_DETACH", verbatim_doc_comment)]
    pub detach: DetachArg,

    /// Show how far a restore is, and follow it while it runs; list what is
    /// not committed
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "", verbatim_doc_comment)]
    pub status: Option<String>,

    /// Resume an interrupted restore
    #[arg(long)]
    pub resume: bool,

    /// Roll back a restore: the node becomes what it was before
    ///
    /// Also possible after a completed restore, until --commit or until another member has
    /// joined. Once etcd has served from the restored data, the old data comes back with its
    /// revision bumped above everything that was served, so that watching clients list again.
    /// What was written after the restore is kept until --commit.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub rollback: Option<String>,

    /// Delete what was kept for --rollback, or by it
    ///
    /// After a restore: deletes the data and revisions from before it, so that it can no longer
    /// be rolled back. After a rollback: deletes what was written after the restore, and
    /// changes nothing else.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub commit: Option<String>,

    /// Only build this data directory, which must be absent or empty
    #[arg(long, value_name = "DIR", conflicts_with = "after", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// Separate directory for the WAL, which must be absent
    /// [default: member/wal in the data directory]
    #[arg(long, value_name = "DIR", requires = "data_dir", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub wal_dir: Option<PathBuf>,

    /// Member name [default: default; with --from-data-dir its own]
    #[arg(long, value_name = "NAME", requires = "data_dir")]
    pub name: Option<String>,

    /// All members of the new cluster: name=url,name2=url2
    #[arg(
        long,
        value_name = "LIST",
        default_value = "default=http://localhost:2380",
        requires = "data_dir"
    )]
    pub initial_cluster: String,

    /// Token that the new ids derive from [default: random, for one member]
    #[arg(long, value_name = "TOKEN", requires = "data_dir")]
    pub initial_cluster_token: Option<String>,

    /// Peer URLs of this member [default: http://localhost:2380;
    /// with --from-data-dir its own]
    #[arg(long, value_name = "URLS", visible_alias = "peer-urls", value_hint = ValueHint::Url, verbatim_doc_comment)]
    pub initial_advertise_peer_urls: Option<String>,

    /// Accept a snapshot whose SHA-256 is wrong or missing
    #[arg(long, requires = "data_dir")]
    pub skip_hash_check: bool,

    /// Bump the revision: auto, above every revision known to have been
    /// served; N, by N; 0, not at all [default: auto, for one member]
    ///
    /// A restored etcd starts at an older revision than its clients have
    /// seen. Clients that watch would wait for revisions that do not come; a
    /// bump, with what is older marked as compacted, makes them list again.
    #[arg(long, value_name = "BUMP", value_parser = parse_bump, verbatim_doc_comment)]
    pub bump_revision: Option<Bump>,

    /// Mark older revisions as compacted, so that watchers re-list; required
    /// with N and --data-dir, automatic on a node
    #[arg(long, requires = "data_dir", verbatim_doc_comment)]
    pub mark_compacted: bool,

    /// Rewrite the database, without what was deleted from it
    #[arg(long, requires = "data_dir")]
    pub compact: bool,

    /// Release of etcd that will start, if older than the backup's:
    /// 3.4, 3.5, 3.6 or 3.7
    #[arg(
        long,
        value_name = "VERSION",
        requires = "data_dir",
        verbatim_doc_comment
    )]
    pub target_version: Option<String>,

    /// Override this refusal
    #[arg(long, value_name = "REFUSAL", long_help = with_names("Override this refusal", &ALLOWABLE), value_delimiter = ',', value_parser = crate::error::names::parse)]
    pub allow: Vec<String>,

    /// Directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Directory to download and unpack backups in [default: /var/tmp]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub scratch: Option<PathBuf>,

    /// Whose signatures count.
    #[command(flatten)]
    pub signers: SignersArgs,

    /// How the store is reached, where SET is a URL.
    #[command(flatten)]
    pub remote: RemoteArgs,

    /// What an encrypted copy is read with.
    #[command(flatten)]
    pub identity: IdentityArgs,
}

/// What `--roll-forward` has without a directory: the node's own.
pub const OWN_WAL: &str = "-";

/// `--scope`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// All four static pods
    ControlPlane,
    /// etcd alone
    Etcd,
}

/// `--detach`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DetachArg {
    /// If the node has systemd
    Auto,
    /// Through systemd-run, even if no systemd is detected
    Always,
    /// In this process
    Never,
}

/// `--bump-revision`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bump {
    /// Above everything known.
    Auto,
    /// By so many.
    By(i64),
}

/// Reads `auto` or a number.
pub fn parse_bump(text: &str) -> Result<Bump, String> {
    match text.parse::<i64>() {
        _ if text == "auto" => Ok(Bump::Auto),
        Ok(more) if more >= 0 => Ok(Bump::By(more)),
        _ => Err(format!(
            "expected auto, 0 or a number above it, found {text:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bumps() {
        assert_eq!(parse_bump("auto"), Ok(Bump::Auto));
        assert_eq!(parse_bump("0"), Ok(Bump::By(0)));
        assert_eq!(parse_bump("1000000000"), Ok(Bump::By(1_000_000_000)));
        for bad in ["", "-1", "1e9", "9223372036854775808", "Auto"] {
            assert!(parse_bump(bad).is_err(), "{bad}");
        }
    }
}
