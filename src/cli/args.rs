//! The clap tree: what may be typed, and its help.

mod keep;
mod member;
mod remote;
mod restore;
mod schedule;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

pub use self::keep::{KeepArgs, parse_zone};
pub use self::member::{MemberAddArgs, MemberRemoveArgs, MemberUpdateArgs, PrintArg};
pub use self::remote::{FormArgs, IdentityArgs, RemoteArgs};
pub use self::restore::{Bump, DetachArg, RestoreArgs, ScopeArg, parse_bump};
pub use self::schedule::ScheduleArgs;

/// Examples shown below the top-level help.
const EXAMPLES: &str = "\
Examples:
  etcd-dr backup                     take a backup on this control-plane node
  etcd-dr list                       show what is in the store
  etcd-dr verify latest              check the newest good backup, offline
  etcd-dr verify --cluster           what ails the cluster
  etcd-dr restore latest --dry-run   what a restore of this node would do
  etcd-dr --root /host backup        from an `oc debug node` shell

Exit status: 0 done, 1 unexpected, 2 usage, 3 bad backup, 4 etcd unreachable,
5 refused, 6 store unavailable or full, 7 busy or unfinished, 8 failed and
rolled back, 9 failed and not rolled back, 10 done in part, 11 stale or
different, 12 could not check, 130 interrupted.";

/// Back up and restore the etcd of Kubernetes and OpenShift control planes
#[derive(Debug, Parser)]
#[command(name = "etcd-dr", version, max_term_width = 80, after_help = EXAMPLES)]
#[command(
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The node's file system; for an `oc debug node` shell, /host
    #[arg(long, global = true, value_name = "DIR", env = "ETCD_DR_ROOT", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,

    /// Configuration file [default: /etc/etcd-dr/config.toml, if present]
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Where manifests, certificates and data lie [default: auto]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "PROFILE",
        env = "ETCD_DR_PROFILE"
    )]
    pub profile: Option<ProfileArg>,

    /// This node's name, where its addresses do not tell it
    #[arg(long, global = true, value_name = "NAME", env = "ETCD_DR_NODE_NAME")]
    pub node_name: Option<String>,

    /// etcd's client URLs; of several a snapshot uses the local member's
    #[arg(long, global = true, value_name = "URL", env = "ETCD_DR_ENDPOINTS", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub endpoints: Vec<String>,

    /// CA bundle that etcd's certificate is checked with
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CACERT", value_hint = ValueHint::FilePath)]
    pub cacert: Option<PathBuf>,

    /// Client certificate
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CERT", value_hint = ValueHint::FilePath)]
    pub cert: Option<PathBuf>,

    /// Client key
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_KEY", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,

    /// Form of the result on standard output
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t = OutputArg::Text, env = "ETCD_DR_OUTPUT")]
    pub output: OutputArg,

    /// Progress on standard error; json: one event a line
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ProgressArg::Auto, env = "ETCD_DR_PROGRESS")]
    pub progress: ProgressArg,

    /// Colours; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto, env = "ETCD_DR_COLOR")]
    pub color: ColorArg,

    /// More detail; secrets are never shown
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take a backup of etcd and of the static-pod resources in use
    Backup(BackupArgs),
    /// Take backups again and again, one in each period of a schedule
    Schedule(Box<ScheduleArgs>),
    /// Show every backup in a store
    List(ListArgs),
    /// Check backups, a member's files or the cluster, and say what is broken
    Verify(VerifyArgs),
    /// Remove the backups that no rule wants
    Prune(PruneArgs),
    /// Copy a backup to another store, or from one
    Copy(CopyArgs),
    /// Restore this node from a backup or a disk, or only make a data directory
    Restore(Box<RestoreArgs>),
    /// Stop this node's etcd and keep it stopped
    Disable(DisableArgs),
    /// Let this node's etcd run again
    Enable(EnableArgs),
    /// Add a member: as a learner first, promoted once it has caught up
    MemberAdd(MemberAddArgs),
    /// Remove a member, if the quorum bears it
    MemberRemove(MemberRemoveArgs),
    /// Give a member other peer URLs, after its address has changed
    MemberUpdate(MemberUpdateArgs),
    /// Print a completion script
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell it is for
        shell: Shell,
    },
    /// Print a manual page
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The command it is for; none: the overview
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  source <(etcd-dr completions bash)            in this shell
  etcd-dr completions bash > /etc/bash_completion.d/etcd-dr
  etcd-dr completions zsh > \"${fpath[1]}/_etcd-dr\"
  etcd-dr completions fish > ~/.config/fish/completions/etcd-dr.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  etcd-dr man | man -l -                        the overview
  etcd-dr man restore | man -l -";

const BACKUP_EXAMPLES: &str = "\
Examples:
  etcd-dr backup                               into the default store
  etcd-dr backup /mnt/backups --if-older-than 1h
  etcd-dr backup --flat /home/core/backup      the pair cluster-backup.sh makes
  etcd-dr backup --allow operator-progressing  during a rollout, marked dirty";

/// `backup`
#[derive(Debug, Clone, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct BackupArgs {
    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// The same as STORE, as it is given to other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath, conflicts_with = "flat")]
    pub store_option: Option<PathBuf>,

    /// Write the plain files into DIR, as cluster-backup.sh does
    #[arg(long, value_name = "DIR", conflicts_with_all = ["store", "if_older_than"], value_hint = ValueHint::DirPath)]
    pub flat: Option<PathBuf>,

    /// Do nothing if a good backup is younger than this (30m, 1h, 1d)
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub if_older_than: Option<Duration>,

    /// Go on although this check fails; the backup is marked dirty
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// Go on whichever quality check fails, as cluster-backup.sh --force
    #[arg(long)]
    pub force: bool,

    /// Compare the data of all members (costs each a full scan)
    #[arg(long)]
    pub check_members: bool,

    /// At most this many bytes a second (50MiB)
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub max_rate: Option<u64>,

    /// Give up when nothing has come for this long [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub stall_timeout: Option<Duration>,

    /// No retention removes it: the file `pinned` in it says so
    #[arg(long, conflicts_with = "flat")]
    pub pin: bool,

    /// Write metrics there for node_exporter, whole and world-readable;
    /// its name ends in .prom
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub textfile: Option<PathBuf>,

    /// Copy it there once it is taken; may be given several times
    #[arg(long, value_name = "URL", value_delimiter = ',', conflicts_with = "flat", value_hint = ValueHint::Url)]
    pub copy_to: Vec<String>,

    /// Apply the --keep rules to this node's copies too, in each store of
    /// --copy-to; without it they prune the backups here and no copies
    #[arg(long, conflicts_with = "flat", verbatim_doc_comment)]
    pub keep_copies: bool,

    /// How copies are stored.
    #[command(flatten)]
    pub form: FormArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,

    /// What is removed once this backup is taken; none: nothing.
    #[command(flatten)]
    pub keep: KeepArgs,
}

/// `list`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  etcd-dr list\n  etcd-dr list --stale-after 2h || alert\n  etcd-dr list -o json /mnt/backups"
)]
pub struct ListArgs {
    /// The directory that holds the backups, or a store's URL
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// The same as STORE, as it is given to other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store_option: Option<PathBuf>,

    /// Exit with 11 if the newest good backup is older than this (2h)
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub stale_after: Option<Duration>,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const PRUNE_EXAMPLES: &str = "\
Examples:
  etcd-dr prune --keep-last 20 --dry-run --explain
  etcd-dr prune --keep-hourly 24 --keep-daily 7 --keep-weekly 4 --yes
  etcd-dr prune --max-size 40GiB --min-keep 3 --yes
  etcd-dr prune --cluster UUID --all          after a cluster is gone";

/// `prune`
#[derive(Debug, Clone, Args)]
#[command(after_help = PRUNE_EXAMPLES)]
pub struct PruneArgs {
    /// The directory that holds the backups, or a store's URL
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// The same as STORE, as it is given to other commands
    #[arg(long = "store", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store_option: Option<PathBuf>,

    /// Everything of this cluster: its UUID or etcd cluster id
    #[arg(
        long,
        value_name = "ID",
        requires = "all",
        conflicts_with = "KeepArgs",
        help_heading = "Options"
    )]
    pub cluster: Option<String>,

    /// With --cluster: yes, all of them
    #[arg(long, requires = "cluster")]
    pub all: bool,

    /// Show what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Give the reasons for each backup, those that stay too
    #[arg(long)]
    pub explain: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// What stays.
    #[command(flatten)]
    pub keep: KeepArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const COPY_EXAMPLES: &str = "\
Examples:
  etcd-dr copy latest s3://bucket/etcd --compress --recipient age1...
  etcd-dr copy backup-12 file:///mnt/share
  etcd-dr copy latest sftp://backup@host/etcd --keep-last 20
  etcd-dr copy s3://bucket/etcd/CLUSTER/NODE/latest /var/tmp/store";

/// `copy`
#[derive(Debug, Clone, Args)]
#[command(after_help = COPY_EXAMPLES)]
pub struct CopyArgs {
    /// A backup's name or `latest`; or URL/CLUSTER/NODE/backup-N
    #[arg(value_name = "SET")]
    pub set: String,

    /// The store: s3://BUCKET/PATH, gs://..., az://..., file:///PATH,
    /// sftp://USER@HOST/PATH; from a URL, the directory of a store
    #[arg(value_name = "STORE", verbatim_doc_comment)]
    pub to: String,

    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// How the copy is stored.
    #[command(flatten)]
    pub form: FormArgs,

    /// What it is read with.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,

    /// What is removed there afterwards, of this node's backups; none:
    /// nothing.
    #[command(flatten)]
    pub keep: KeepArgs,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  etcd-dr verify latest
  etcd-dr verify backup-12 -o json
  etcd-dr verify /home/core/backup             a pair made by cluster-backup.sh
  etcd-dr verify snapshot.db
  etcd-dr verify latest --live                 is it of this cluster's history?
  etcd-dr verify --data-dir /var/lib/etcd      a stopped member's files
  etcd-dr verify --compare a.json b.json       whose disk to go on with?
  etcd-dr verify --cluster -o json             what ails the cluster";

/// `verify`
#[derive(Debug, Clone, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// A backup's name, `latest`, a directory, a snapshot file, or
    /// URL/CLUSTER/NODE/backup-N
    #[arg(value_name = "SET", verbatim_doc_comment, required_unless_present_any = ["all", "data_dir", "compare", "cluster", "upgrade_to"])]
    pub sets: Vec<String>,

    /// Every backup in the store
    #[arg(long, conflicts_with = "sets")]
    pub all: bool,

    /// What stands in the way of the running cluster: members, votes,
    /// names, addresses, certificates, clocks, space
    #[arg(long, conflicts_with_all = ["sets", "all", "live"], verbatim_doc_comment)]
    pub cluster: bool,

    /// List what would stop etcd of another minor release (3.5, 3.6, 3.7)
    /// from running here, each with its cure; of a stopped member by
    /// --data-dir DIR
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["sets", "all", "live", "compare", "cluster", "wal_dir"], value_parser = ["3.5", "3.6", "3.7"], verbatim_doc_comment)]
    pub upgrade_to: Option<String>,

    /// Compare with the running member too: HashKV at the backup's revision
    #[arg(long, conflicts_with = "data_dir")]
    pub live: bool,

    /// A stopped member's data directory instead of a backup
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sets", "all"], value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// Reports that --data-dir gave as JSON, one a member: name the one
    /// whose data is the best to go on with
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["sets", "all", "live", "data_dir"], value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub compare: Vec<PathBuf>,

    /// That member's WAL, where it has a directory of its own
    #[arg(long, value_name = "DIR", requires = "data_dir", value_hint = ValueHint::DirPath)]
    pub wal_dir: Option<PathBuf>,

    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Where a copy is brought to while it is checked [default: /var/tmp]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub scratch: Option<PathBuf>,

    /// What copies are read with.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// How stores are reached.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `disable`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  etcd-dr disable            before a restore on another node\n  etcd-dr enable             afterwards"
)]
pub struct DisableArgs {
    /// The longest wait for its containers to end
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    pub wait: Duration,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `enable`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  etcd-dr enable\n  etcd-dr enable --wait 1m")]
pub struct EnableArgs {
    /// The longest wait until etcd serves
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    pub wait: Duration,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `--profile`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileArg {
    /// Look which it is
    Auto,
    /// OpenShift's static pods and their revisions
    Openshift,
    /// kubeadm's manifests and PKI
    Kubeadm,
    /// An etcd with no static pods: everything from options
    Bare,
}

/// `--output`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// For people; may change
    Text,
    /// One versioned JSON document
    Json,
}

/// `--progress`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    /// A bar on a terminal, a line every few seconds elsewhere
    Auto,
    /// Lines, also on a terminal
    Always,
    /// None
    Never,
    /// One JSON event a line
    Json,
}

/// `--color`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Reads `90s`, `30m`, `1h30m`, `2d`; a day is 24 hours.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text
        .parse()
        .map_err(|_| format!("expected a time such as 90s, 30m, 1h or 2d, found {text:?}"))?;
    let whole = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("expected a time in days or smaller units, found {text:?}"))?;
    Duration::try_from(whole).map_err(|_| format!("expected a time above zero, found {text:?}"))
}

/// Reads `1048576`, `50MB`, `50MiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        _ => Err(format!(
            "expected a size above zero such as 50MiB, found {text:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound_and_its_help_fits_a_narrow_terminal() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        let mut pages = vec![command.clone()];
        pages.extend(command.get_subcommands().cloned());
        for mut page in pages {
            for text in [
                page.render_help().to_string(),
                page.render_long_help().to_string(),
            ] {
                for line in text.lines() {
                    assert!(line.chars().count() <= 80, "{}: {line}", page.get_name());
                }
            }
            let undescribed: Vec<_> = page
                .get_arguments()
                .filter(|arg| arg.get_help().is_none())
                .collect();
            assert!(undescribed.is_empty(), "{undescribed:?}");
            let after = page.get_after_help().map(ToString::to_string);
            assert!(
                page.get_name() == "help"
                    || after.is_some_and(|text| text.starts_with("Examples:")),
                "{} has no examples",
                page.get_name()
            );
        }
    }

    #[test]
    fn bumps() {
        assert_eq!(parse_bump("auto"), Ok(Bump::Auto));
        assert_eq!(parse_bump("0"), Ok(Bump::By(0)));
        assert_eq!(parse_bump("1000000000"), Ok(Bump::By(1_000_000_000)));
        for bad in ["", "-1", "1e9", "9223372036854775808", "Auto"] {
            assert!(parse_bump(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        assert!(
            parse_duration("-1h").is_err()
                && parse_duration("1y").is_err()
                && parse_duration("").is_err()
        );
        assert_eq!(parse_size("50MiB"), Ok(50 << 20));
        assert!(parse_size("0").is_err() && parse_size("x").is_err());
    }
}
