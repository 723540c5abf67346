//! `schedule`: when to run, and its metrics; the rest is `backup`'s.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::backup::BackupArgs;
use super::record::SealArgs;
use super::values::parse_duration;

const EXAMPLES: &str = "\
Examples:
  etcd-dr schedule @hourly --keep-hourly 24 --keep-daily 7
  etcd-dr schedule '30 */6 * * *' --time-zone Europe/Berlin
  etcd-dr schedule @hourly --copy-to s3://bucket --keep-last 20 --keep-copies
  etcd-dr schedule @hourly --record --keep-last 48 --keep-moments 2d
  etcd-dr schedule @hourly --metrics-listen 127.0.0.1:9979";

/// `schedule`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ScheduleArgs {
    /// When to back up: five cron fields, @hourly, @daily, @weekly, @monthly,
    /// @yearly, or @every TIME
    #[arg(value_name = "CRON", verbatim_doc_comment)]
    pub cron: String,

    /// Delay each run by a part of this time that the node's name decides, at
    /// most a tenth of the period; the leader waits the whole time as well
    ///
    /// Each node's part of it is decided by its name, so that nodes with the
    /// same schedule do not begin together.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m", verbatim_doc_comment)]
    pub jitter: Duration,

    /// Verify N of the other backups, in turn, after each run; 0: none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub verify_sets: u32,

    /// Rehearse the newest good backup this often (verify --rehearse)
    ///
    /// A rehearsal is due once no backup in the store was rehearsed for this time, such as 7d. It
    /// runs after a backup, its copies and verification, next to the schedule, and never delays
    /// the next backup. If it cannot be made, for instance because no etcd is found, it is tried
    /// again after a day.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub rehearse: Option<Duration>,

    /// etcd to rehearse with
    /// [default: the one that runs on this node, or the one in PATH]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub etcd: Option<PathBuf>,

    /// Stop a rehearsal after this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    pub rehearse_timeout: Duration,

    /// Directory for what is restored in a rehearsal [default: /var/tmp]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub scratch: Option<PathBuf>,

    /// Start no run while this file exists, on a local file system
    ///
    /// It is looked for before each run. A run that has begun ends; once the file is gone, the
    /// current period is caught up.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub suspend_file: Option<PathBuf>,

    /// Also record every write between the backups, as `etcd-dr record` does
    ///
    /// What fails there never stops a backup: it is tried again, with a warning and in the
    /// metrics.
    #[arg(long)]
    pub record: bool,

    /// Serve /metrics, /healthz and /readyz on this address, over plain HTTP
    /// unless --metrics-cert is given
    #[arg(long, value_name = "ADDR:PORT", verbatim_doc_comment)]
    pub metrics_listen: Option<SocketAddr>,

    /// Serve /metrics without authentication on a non-loopback address
    #[arg(long, requires = "metrics_listen")]
    pub metrics_public: bool,

    /// Serve over TLS with this certificate and its intermediates; reloaded
    /// when the file changes
    #[arg(long, value_name = "FILE", requires_all = ["metrics_listen", "metrics_key"], value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub metrics_cert: Option<PathBuf>,

    /// Private key of --metrics-cert
    #[arg(long, value_name = "FILE", requires = "metrics_cert", value_hint = ValueHint::FilePath)]
    pub metrics_key: Option<PathBuf>,

    /// Require a client certificate from this CA for /metrics, not for
    /// /healthz and /readyz
    #[arg(long, value_name = "FILE", requires = "metrics_cert", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub metrics_client_ca: Option<PathBuf>,

    /// How often recorded changes are sealed.
    #[command(flatten)]
    pub seal: SealArgs,

    /// What each run does.
    #[command(flatten)]
    pub backup: BackupArgs,
}
