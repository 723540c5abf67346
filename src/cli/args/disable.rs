//! `disable` and `enable`.

use std::time::Duration;

use clap::Args;

use super::global::AskArgs;
use super::values::parse_duration;

/// `disable`
#[derive(Debug, Clone, Args)]
#[command(
    after_long_help = "Examples:\n  etcd-dr disable            before a restore on another node\n  etcd-dr enable             afterwards"
)]
pub struct DisableArgs {
    /// Wait at most this long for its containers to stop
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    pub wait: Duration,

    /// Whether it is asked for, and done.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// `enable`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Examples:\n  etcd-dr enable\n  etcd-dr enable --wait 1m")]
pub struct EnableArgs {
    /// Wait at most this long for etcd to serve
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    pub wait: Duration,

    /// Whether it is asked for, and done.
    #[command(flatten)]
    pub ask: AskArgs,
}
