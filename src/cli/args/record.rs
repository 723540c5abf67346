//! `record`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::remote::{FormArgs, RemoteArgs};
use super::values::{parse_duration, parse_size};

const RECORD_EXAMPLES: &str = "\
Examples:
  etcd-dr record                         beside the backups, until SIGTERM
  etcd-dr record /mnt/backups --seal-every 5s
  etcd-dr record --copy-to s3://bucket/etcd --compress
  etcd-dr restore latest --to-time 2m    to a moment between two backups";

/// `record`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = RECORD_EXAMPLES)]
pub struct RecordArgs {
    /// Directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Same as STORE, spelled as in other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store_option: Option<PathBuf>,

    /// Copy each segment to this store once it is sealed; repeatable
    #[arg(long, value_name = "URL", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub copy_to: Vec<String>,

    /// How often what was written is sealed.
    #[command(flatten)]
    pub seal: SealArgs,

    /// How copies are stored.
    #[command(flatten)]
    pub form: FormArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// When a segment is sealed.
#[derive(Debug, Clone, Args)]
pub struct SealArgs {
    /// Seal what was written after this time: the most that a crash loses
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2s")]
    pub seal_every: Duration,

    /// Seal earlier once there are so many bytes of it (64MiB at most)
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "8MiB")]
    pub seal_size: u64,

    /// How often etcd is asked for its HashKV, which proves the changes, and
    /// for its members and authentication; 0s: never
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m", verbatim_doc_comment)]
    pub prove_every: Duration,
}
