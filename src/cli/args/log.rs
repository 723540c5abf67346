//! `log`.

use clap::Args;

use super::source::SourceArgs;
use super::values::{When, parse_when};

const LOG_EXAMPLES: &str = "\
Examples:
  etcd-dr log latest                           everything, grouped
  etcd-dr log latest --deletes --since 15m     what was deleted
  etcd-dr log latest pods -n prod
  etcd-dr log snapshot.db --prefix /registry/secrets/ -o json
  etcd-dr restore latest --to-revision 48210   to just before it";

/// `log`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = LOG_EXAMPLES)]
pub struct LogArgs {
    /// Backup to read: a name, `latest`, a directory, a snapshot file,
    /// or URL/CLUSTER/NODE/backup-N
    #[arg(value_name = "SET", verbatim_doc_comment)]
    pub set: String,

    /// Only objects of this kind: pods, secret, things.example.com
    #[arg(value_name = "KIND")]
    pub kind: Option<String>,

    /// Only objects of this namespace, and the namespace itself
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Only what was written after this time (2026-11-30T12:03:07Z), or
    /// in so long a time before now (15m)
    #[arg(long, value_name = "TIME", value_parser = parse_when, verbatim_doc_comment)]
    pub since: Option<When>,

    /// Only deletions
    #[arg(long)]
    pub deletes: bool,

    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["kind", "namespace"])]
    pub prefix: Option<String>,

    /// Where backups come from, and what they are read with.
    #[command(flatten)]
    pub source: SourceArgs,
}
