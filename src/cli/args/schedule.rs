//! `schedule`: when, and what is told of it; the rest is `backup`'s.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::{BackupArgs, parse_duration};

const EXAMPLES: &str = "\
Examples:
  etcd-dr schedule @hourly --keep-hourly 24 --keep-daily 7
  etcd-dr schedule '30 */6 * * *' --time-zone Europe/Berlin
  etcd-dr schedule @hourly --copy-to s3://bucket/etcd --keep-last 20
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
    /// never more than a tenth of the period
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m", verbatim_doc_comment)]
    pub jitter: Duration,

    /// After each backup, verify so many of the others, in turn; 0: none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub verify_sets: u32,

    /// Serve /metrics, /healthz and /readyz there, by plain HTTP
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,

    /// Yes, on an address that other machines reach
    #[arg(long, requires = "metrics_listen")]
    pub metrics_public: bool,

    /// What each run does.
    #[command(flatten)]
    pub backup: BackupArgs,
}
