//! What is to stay in a store: the options of `prune`, and of `backup` for afterwards.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;

use super::values::{parse_duration, parse_size, parse_zone};
use crate::backup::retention::Rules;

/// A backup stays if any of them wants it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What stays (a backup stays if any of these wants it)")]
pub struct KeepArgs {
    /// The newest N good backups; the operator's RetentionNumber, and
    /// with 20 what Kubermatic keeps
    #[arg(long, value_name = "N", verbatim_doc_comment)]
    pub keep_last: Option<NonZeroU32>,

    /// The newest of each of the newest N hours that have one
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<NonZeroU32>,

    /// The newest of each of the newest N days that have one
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<NonZeroU32>,

    /// The newest of each of the newest N weeks that have one
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<NonZeroU32>,

    /// The newest of each of the newest N months that have one
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<NonZeroU32>,

    /// All that are younger (36h, 14d)
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub keep_within: Option<Duration>,

    /// At most so many bytes in all, oldest first, over the rules above;
    /// the operator's RetentionSize (10GiB)
    #[arg(long, value_name = "BYTES", value_parser = parse_size, verbatim_doc_comment)]
    pub max_size: Option<u64>,

    /// The newest N good backups stay whatever else is said
    #[arg(long, value_name = "N")]
    pub min_keep: Option<NonZeroU32>,

    /// The newest good backup of each OpenShift version stays too
    #[arg(long)]
    pub keep_ocp_versions: bool,

    /// Where hours, days, weeks and months begin [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone)]
    pub time_zone: Option<TimeZone>,
}

impl KeepArgs {
    /// Whether anything was said at all.
    pub fn is_given(&self) -> bool {
        let counts = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.min_keep,
        ];
        counts.iter().any(Option::is_some)
            || self.keep_within.is_some()
            || self.max_size.is_some()
            || self.keep_ocp_versions
    }

    /// The same as rules.
    pub fn rules(&self) -> Rules {
        Rules {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            within: self.keep_within,
            max_size: self.max_size,
            min_keep: self.min_keep,
            ocp_versions: self.keep_ocp_versions,
            zone: self.time_zone.clone(),
        }
    }
}
