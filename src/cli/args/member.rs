//! The arguments of the commands about members.

use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::global::AskArgs;
use super::values::{parse_duration, with_names};
use crate::change::member::ALLOWABLE;
use crate::change::member::join::plan;

const ADD_EXAMPLES: &str = "\
Examples:
  etcd-dr member-add m3 --peer-urls https://10.0.0.3:2380
  etcd-dr member-add m3 --peer-urls https://10.0.0.3:2380 --print env
  etcd-dr member-add m3 --peer-urls https://10.0.0.3:2380 --no-promote
  etcd-dr member-add --join --dry-run   on the control-plane node that joins
  etcd-dr --endpoints https://10.0.0.1:2379 member-add --join --yes
  etcd-dr member-add --join --resume    after an interruption
Without --join, the same command again resumes an interrupted run, or\npromotes the learner.";

/// `member-add`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = ADD_EXAMPLES)]
#[command(group(clap::ArgGroup::new("after").args(["status", "resume", "rollback", "commit"])))]
pub struct MemberAddArgs {
    /// Name of the new member [with --join: this node's]
    #[arg(
        value_name = "NAME",
        required_unless_present = "join",
        conflicts_with = "after"
    )]
    pub name: Option<String>,

    /// Peer URL that the other members will dial: https://ADDRESS:2380
    #[arg(long, value_name = "URL", required_unless_present = "join", conflicts_with = "join", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub peer_urls: Vec<String>,

    /// Do everything on the control-plane node that joins: stop etcd, set
    /// its old data aside, add, start and promote it; roll back on failure
    #[arg(long, conflicts_with_all = ["no_learner", "no_promote", "print"], verbatim_doc_comment)]
    pub join: bool,

    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,

    /// Show how far a join is, and joins that are not committed
    #[arg(long, requires = "join", value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub status: Option<String>,

    /// Resume an interrupted join
    #[arg(long, requires = "join")]
    pub resume: bool,

    /// Roll back a join, unless the member is promoted already
    #[arg(long, requires = "join", value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub rollback: Option<String>,

    /// Delete what a join kept for --rollback
    #[arg(long, requires = "join", value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub commit: Option<String>,

    /// Add it as a voting member: quorum counts it before it runs
    #[arg(long)]
    pub no_learner: bool,

    /// Add it and return; it stays a learner
    ///
    /// The same command again, without this, promotes it.
    #[arg(long)]
    pub no_promote: bool,

    /// Remove it again if it is not promoted within this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    pub wait: Duration,

    /// Print only the settings that the new member must start with
    #[arg(long, value_enum, value_name = "FORM", conflicts_with = "dry_run")]
    pub print: Option<PrintArg>,

    /// Show what would be done; change nothing
    #[arg(long, conflicts_with = "after")]
    pub dry_run: bool,

    /// Override this refusal
    #[arg(long, value_name = "REFUSAL", long_help = with_names("Override this refusal", &allowed_to_add()), value_delimiter = ',', value_parser = crate::error::names::parse)]
    pub allow: Vec<String>,
}

/// What `--allow` of `member-add` takes, with `--join` or without.
pub(crate) fn allowed_to_add() -> Vec<&'static str> {
    [ALLOWABLE.as_slice(), &plan::ALLOWABLE].concat()
}

/// `--print`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrintArg {
    /// ETCD_NAME="..." and so on, one per line
    Env,
    /// etcd's flags, on one line
    Flags,
    /// Items for a static pod's command, in YAML
    Pod,
}

const REMOVE_EXAMPLES: &str = "\
Examples:
  etcd-dr member-remove m1 --dry-run
  etcd-dr member-remove 8e9e05c52164694d --yes
  etcd-dr member-remove https://10.0.0.3:2380   one that never started";

/// `member-remove`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = REMOVE_EXAMPLES)]
pub struct MemberRemoveArgs {
    /// Full name, id (hexadecimal or decimal) or peer URL of the member
    #[arg(value_name = "NAME|ID|URL")]
    pub member: String,

    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,

    /// Wait at most this long until no member lists it
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub wait: Duration,

    /// Show what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Override this refusal
    #[arg(long, value_name = "REFUSAL", long_help = with_names("Override this refusal", &ALLOWABLE), value_delimiter = ',', value_parser = crate::error::names::parse)]
    pub allow: Vec<String>,
}

const UPDATE_EXAMPLES: &str = "\
Examples:
  etcd-dr member-update m1 --peer-urls https://10.0.0.9:2380
  etcd-dr member-update m1 --peer-urls https://10.0.0.9:2380 --dry-run";

/// `member-update`
#[derive(Debug, Clone, Args)]
#[command(after_long_help = UPDATE_EXAMPLES)]
pub struct MemberUpdateArgs {
    /// Full name, id (hexadecimal or decimal) or peer URL of the member
    #[arg(value_name = "NAME|ID|URL")]
    pub member: String,

    /// New peer URL that the other members will dial
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',', value_hint = ValueHint::Url)]
    pub peer_urls: Vec<String>,

    /// Whether it is asked for, and done.
    #[command(flatten)]
    pub ask: AskArgs,

    /// Override this refusal
    #[arg(long, value_name = "REFUSAL", long_help = with_names("Override this refusal", &ALLOWABLE), value_delimiter = ',', value_parser = crate::error::names::parse)]
    pub allow: Vec<String>,
}
