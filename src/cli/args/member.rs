//! The arguments of the commands about members.

use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::values::parse_duration;

const ADD_EXAMPLES: &str = "\
Examples:
  etcd-dr member-add m3 --peer-urls https://10.0.0.3:2380
  etcd-dr member-add m3 --peer-urls https://10.0.0.3:2380 --print env
  etcd-dr member-add m3 --peer-urls https://10.0.0.3:2380 --no-promote
  etcd-dr member-add --join --dry-run   on the control-plane node that joins
  etcd-dr --endpoints https://10.0.0.1:2379 member-add --join --yes
  etcd-dr member-add --join --resume    one that was cut off
Without --join the same command again goes on where one was cut off, or
promotes.";

/// `member-add`
#[derive(Debug, Clone, Args)]
#[command(after_help = ADD_EXAMPLES)]
#[command(group(clap::ArgGroup::new("after").args(["status", "resume", "rollback", "commit"])))]
pub struct MemberAddArgs {
    /// The new member's name [with --join: this node's own]
    #[arg(
        value_name = "NAME",
        required_unless_present = "join",
        conflicts_with = "after"
    )]
    pub name: Option<String>,

    /// Where the other members will reach it: https://ADDRESS:2380
    #[arg(long, value_name = "URL", required_unless_present = "join", conflicts_with = "join", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub peer_urls: Vec<String>,

    /// Do all of it, on the control-plane node that joins: stop etcd, set its
    /// old data aside, add it, start it, promote it; back if that fails
    #[arg(long, conflicts_with_all = ["no_learner", "no_promote", "print"], verbatim_doc_comment)]
    pub join: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Show how far a join is, and what is not committed
    #[arg(long, requires = "join", value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub status: Option<String>,

    /// Go on with a join that was cut off
    #[arg(long, requires = "join")]
    pub resume: bool,

    /// Take a join back, as long as the member has no vote
    #[arg(long, requires = "join", value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub rollback: Option<String>,

    /// Remove what a join kept for --rollback
    #[arg(long, requires = "join", value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub commit: Option<String>,

    /// Add it with a vote at once: the quorum counts it before it runs
    #[arg(long)]
    pub no_learner: bool,

    /// Add it and return: it stays a learner
    #[arg(long)]
    pub no_promote: bool,

    /// Give up when it does not vote after this long, and remove it again
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    pub wait: Duration,

    /// Print what the new member must start with, and nothing else
    #[arg(long, value_enum, value_name = "FORM", conflicts_with = "dry_run")]
    pub print: Option<PrintArg>,

    /// Show what would be done, and change nothing
    #[arg(long, conflicts_with = "after")]
    pub dry_run: bool,

    /// Go on although this is refused
    #[arg(long, value_name = "REFUSAL", value_delimiter = ',')]
    pub allow: Vec<String>,
}

/// `--print`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrintArg {
    /// ETCD_NAME="..." and so on, a line each
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
  etcd-dr member-remove https://10.0.0.3:2380   one that has never started";

/// `member-remove`
#[derive(Debug, Clone, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub struct MemberRemoveArgs {
    /// The whole of its name, id (hexadecimal or decimal) or peer URL
    #[arg(value_name = "NAME|ID|URL")]
    pub member: String,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// How long to wait until no member lists it any more
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub wait: Duration,

    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Go on although this is refused
    #[arg(long, value_name = "REFUSAL", value_delimiter = ',')]
    pub allow: Vec<String>,
}

const UPDATE_EXAMPLES: &str = "\
Examples:
  etcd-dr member-update m1 --peer-urls https://10.0.0.9:2380
  etcd-dr member-update m1 --peer-urls https://10.0.0.9:2380 --dry-run";

/// `member-update`
#[derive(Debug, Clone, Args)]
#[command(after_help = UPDATE_EXAMPLES)]
pub struct MemberUpdateArgs {
    /// The whole of its name, id (hexadecimal or decimal) or peer URL
    #[arg(value_name = "NAME|ID|URL")]
    pub member: String,

    /// Where the other members will reach it from now on
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',', value_hint = ValueHint::Url)]
    pub peer_urls: Vec<String>,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Go on although this is refused
    #[arg(long, value_name = "REFUSAL", value_delimiter = ',')]
    pub allow: Vec<String>,
}
