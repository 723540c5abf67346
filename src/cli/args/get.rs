//! `get`.

use clap::Args;

use super::objects::ObjectArgs;
use super::source::SourceArgs;

const GET_EXAMPLES: &str = "\
Examples:
  etcd-dr get latest                           what is in it, in numbers
  etcd-dr get latest deploy -n shop            names and ages
  etcd-dr get latest deploy/web -n shop -o yaml
  etcd-dr get latest cm,secret -n shop -o name
  etcd-dr get latest deploy/web -n shop --history
  etcd-dr get latest deploy/web -n shop --revision 48211 -o yaml
  etcd-dr get latest -n shop --for-apply --show-secrets | kubectl apply -f -
  etcd-dr get snapshot.db nodes -o json
  etcd-dr get /var/lib/etcd crd                a stopped member's data";

/// `get`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = GET_EXAMPLES)]
pub struct GetArgs {
    /// Backup to look into: a name, `latest`, a directory, a snapshot file,
    /// a stopped member's data directory, or URL/CLUSTER/NODE/backup-N
    #[arg(value_name = "SET", verbatim_doc_comment)]
    pub set: String,

    /// Kinds and names as kubectl takes them: KIND, KIND NAME, KIND,KIND or
    /// KIND/NAME; plural, singular or short, alone or as KIND.GROUP
    /// [default: numbers of all kinds]
    #[arg(value_name = "KIND[/NAME]", verbatim_doc_comment)]
    pub objects: Vec<String>,

    /// Which objects are read, and how they are shown.
    #[command(flatten)]
    pub shown: ObjectArgs,

    /// Objects in all namespaces; this is the default
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// Only objects with these labels: a=b, a!=b, 'a in (b,c)', a, '!a'
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Show the objects as they were at this revision of etcd
    #[arg(long, value_name = "N", conflicts_with = "history")]
    pub revision: Option<i64>,

    /// List every revision of one object that is still there
    ///
    /// The API server compacts etcd every five minutes, so that a backup
    /// has the last five to ten minutes of each object.
    #[arg(long, conflicts_with_all = ["for_apply", "selector"], verbatim_doc_comment)]
    pub history: bool,

    /// Print YAML or JSON that `kubectl apply -f -` takes on another cluster
    ///
    /// Removes what a cluster sets itself (uid, resourceVersion, status,
    /// cluster IPs, node names, ...), leaves out what controllers make
    /// again, and puts the objects in the order of their dependencies.
    /// Secrets are left out unless --show-secrets is given. What is left
    /// out is counted on standard error.
    #[arg(long, verbatim_doc_comment)]
    pub for_apply: bool,

    /// Where backups come from, and what they are read with.
    #[command(flatten)]
    pub source: SourceArgs,
}
