//! `diff`.

use clap::Args;

use super::objects::ObjectArgs;
use super::source::SourceArgs;

const DIFF_EXAMPLES: &str = "\
Examples:
  etcd-dr diff latest                          what a restore would roll back
  etcd-dr diff latest -n shop --names
  etcd-dr diff backup-3 backup-4 deploy --objects
  etcd-dr diff before.db after.db -o json
  etcd-dr diff latest -o html > difference.html";

/// `diff`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = DIFF_EXAMPLES)]
pub struct DiffArgs {
    /// What was before: a backup's name, `latest`, a directory, a snapshot
    /// file, a stopped member's data directory, URL/CLUSTER/NODE/backup-N,
    /// or `live`, this node's running etcd
    #[arg(value_name = "SET", verbatim_doc_comment)]
    pub first: String,

    /// What was after, named like the first [default: live]; and kinds and
    /// names as `get` takes them
    #[arg(value_name = "SET|KIND[/NAME]", verbatim_doc_comment)]
    pub words: Vec<String>,

    /// Which objects are read, and how they are shown.
    #[command(flatten)]
    pub shown: ObjectArgs,

    /// List each object that differs
    #[arg(long)]
    pub names: bool,

    /// Show how each object differs, as YAML
    #[arg(long)]
    pub objects: bool,

    /// Also compare what changes all the time: Leases, Events, leader
    /// elections, managedFields, revisions
    #[arg(long, verbatim_doc_comment)]
    pub all: bool,

    /// Where backups come from, and what they are read with.
    #[command(flatten)]
    pub source: SourceArgs,
}
