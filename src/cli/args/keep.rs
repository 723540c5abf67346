//! What is to stay in a store: the options of `prune`, and of `backup` for afterwards.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;

use super::values::{parse_duration, parse_size, parse_zone};
use crate::backup::retention::Rules;

/// A backup stays if any of them wants it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Retention (a backup is kept if any rule matches)")]
pub struct KeepArgs {
    /// Keep the newest N good backups (OpenShift: RetentionNumber)
    #[arg(long, value_name = "N", verbatim_doc_comment)]
    pub keep_last: Option<NonZeroU32>,

    /// Keep the newest of each hour, for the last N hours with backups
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<NonZeroU32>,

    /// Keep the newest of each day, for the last N days with backups
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<NonZeroU32>,

    /// Keep the newest of each week, for the last N weeks with backups
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<NonZeroU32>,

    /// Keep the newest of each month, for the last N months with backups
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<NonZeroU32>,

    /// Keep every backup younger than this (36h, 14d)
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub keep_within: Option<Duration>,

    /// Keep recorded changes of this time, and the backups that they follow (7d)
    ///
    /// Recorded changes that lead to older moments only are deleted. Without this option those
    /// are deleted that follow no backup any more.
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub keep_moments: Option<Duration>,

    /// Delete the oldest while all together are bigger than this, even if
    /// a rule above keeps them (10GiB; OpenShift: RetentionSize)
    #[arg(long, value_name = "BYTES", value_parser = parse_size, verbatim_doc_comment)]
    pub max_size: Option<u64>,

    /// Always keep the newest N good backups
    #[arg(long, value_name = "N")]
    pub min_keep: Option<NonZeroU32>,

    /// Also keep the newest good backup of each OpenShift version
    #[arg(long)]
    pub keep_ocp_versions: bool,

    /// Time zone of hours, days, weeks and months [default: UTC]
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
            || self.keep_moments.is_some()
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
            moments: self.keep_moments,
            max_size: self.max_size,
            min_keep: self.min_keep,
            ocp_versions: self.keep_ocp_versions,
            zone: self.time_zone.clone(),
        }
    }
}
