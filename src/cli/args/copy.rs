//! `copy`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::keep::KeepArgs;
use super::remote::{FormArgs, IdentityArgs, RemoteArgs};
use super::sign::{SignArgs, TrustArgs};

const COPY_EXAMPLES: &str = "\
Examples:
  etcd-dr copy latest s3://bucket/etcd --compress --recipient age1...
  etcd-dr copy backup-12 file:///mnt/share
  etcd-dr copy latest sftp://backup@host/etcd --keep-last 20
  etcd-dr copy s3://bucket/etcd/CLUSTER/NODE/latest /var/tmp/store";

/// `copy`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = COPY_EXAMPLES)]
pub struct CopyArgs {
    /// Backup to copy: a name, `latest`, or URL/CLUSTER/NODE/backup-N
    #[arg(value_name = "SET")]
    pub set: String,

    /// Store to copy to: s3://BUCKET/PATH, gs://..., az://...,
    /// file:///PATH, sftp://USER@HOST/PATH; from a URL, a directory
    #[arg(value_name = "STORE", verbatim_doc_comment)]
    pub to: String,

    /// Directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// How the copy is stored.
    #[command(flatten)]
    pub form: FormArgs,

    /// What it is read with.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// What signs it.
    #[command(flatten)]
    pub sign: SignArgs,

    /// Whose signatures count.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,

    /// What is removed there afterwards, of this node's backups; none:
    /// nothing.
    #[command(flatten)]
    pub keep: KeepArgs,
}
