//! `schedule`: when, and what is told of it; the rest is `backup`'s.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::backup::BackupArgs;
use super::values::parse_duration;

const EXAMPLES: &str = "\
Examples:
  etcd-dr schedule @hourly --keep-hourly 24 --keep-daily 7
  etcd-dr schedule '30 */6 * * *' --time-zone Europe/Berlin
  etcd-dr schedule @hourly --copy-to s3://bucket --keep-last 20 --keep-copies
  etcd-dr schedule @hourly --metrics-listen 127.0.0.1:9979";

/// `schedule`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ScheduleArgs {
    /// When periods begin: five cron fields, @hourly, @daily, @weekly,
    /// @monthly, @yearly, or @every TIME
    #[arg(value_name = "CRON", verbatim_doc_comment)]
    pub cron: String,

    /// Begin at most this much late, each node by a time of its own, and
    /// never more than a tenth of the period; where etcd leads others, as
    /// much later again, once theirs are taken
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m", verbatim_doc_comment)]
    pub jitter: Duration,

    /// After each backup, verify so many of the others, in turn; 0: none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub verify_sets: u32,

    /// Begin no run while this file exists; on a local file system
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub suspend_file: Option<PathBuf>,

    /// Serve /metrics, /healthz and /readyz there; by plain HTTP unless
    /// --metrics-cert is given
    #[arg(long, value_name = "ADDR:PORT", verbatim_doc_comment)]
    pub metrics_listen: Option<SocketAddr>,

    /// Yes, on an address that other machines reach, and to whoever asks
    #[arg(long, requires = "metrics_listen")]
    pub metrics_public: bool,

    /// Serve by TLS with this certificate and its intermediates; read
    /// anew when the file changes
    #[arg(long, value_name = "FILE", requires_all = ["metrics_listen", "metrics_key"], value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub metrics_cert: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE", requires = "metrics_cert", value_hint = ValueHint::FilePath)]
    pub metrics_key: Option<PathBuf>,

    /// Give /metrics only to who has a certificate that one of these
    /// signed; /healthz and /readyz to everybody
    #[arg(long, value_name = "FILE", requires = "metrics_cert", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub metrics_client_ca: Option<PathBuf>,

    /// What each run does.
    #[command(flatten)]
    pub backup: BackupArgs,
}
