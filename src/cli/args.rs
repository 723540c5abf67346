//! The clap tree: what may be typed, and its help.

mod member;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

pub use self::member::{MemberAddArgs, MemberRemoveArgs, MemberUpdateArgs, PrintArg};
mod keep;
mod remote;
mod schedule;
pub use keep::{KeepArgs, parse_zone};
pub use remote::{FormArgs, IdentityArgs, RemoteArgs};
pub use schedule::ScheduleArgs;

/// Examples shown below the top-level help.
const EXAMPLES: &str = "\
Examples:
  etcd-dr backup                     take a backup on this control-plane node
  etcd-dr list                       show what is in the store
  etcd-dr verify latest              check the newest good backup, offline
  etcd-dr --root /host backup        from an `oc debug node` shell

Exit status: 0 done, 1 unexpected, 2 usage, 3 bad backup, 4 etcd unreachable,
5 refused, 6 store unavailable or full, 7 busy, 10 done in part, 11 stale or
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
    /// Check backups, offline: which layer is broken, and where
    Verify(VerifyArgs),
    /// Remove the backups that no rule wants
    Prune(PruneArgs),
    /// Copy a backup to another store, or from one
    Copy(CopyArgs),
    /// Restore this node from a backup, or only make a data directory
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
    Completions {
        /// The shell it is for
        shell: Shell,
    },
    /// Print a manual page
    Man {
        /// The command it is for; none: the overview
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
}

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
  etcd-dr copy latest s3://bucket/etcd --compress --recipient age1…
  etcd-dr copy backup-12 file:///mnt/share
  etcd-dr copy s3://bucket/etcd/CLUSTER/NODE/latest /var/tmp/store";

/// `copy`
#[derive(Debug, Clone, Args)]
#[command(after_help = COPY_EXAMPLES)]
pub struct CopyArgs {
    /// A backup's name or `latest`; or URL/CLUSTER/NODE/backup-N
    #[arg(value_name = "SET")]
    pub set: String,

    /// The store: s3://BUCKET/PATH, gs://…, az://…, file:///PATH,
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
    #[arg(value_name = "SET", verbatim_doc_comment, required_unless_present_any = ["all", "data_dir", "compare", "cluster"])]
    pub sets: Vec<String>,

    /// Every backup in the store
    #[arg(long, conflicts_with = "sets")]
    pub all: bool,

    /// What stands in the way of the running cluster: members, votes,
    /// names, addresses, certificates, clocks, space
    #[arg(long, conflicts_with_all = ["sets", "all", "live"], verbatim_doc_comment)]
    pub cluster: bool,

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

const RESTORE_EXAMPLES: &str = "\
Examples:
  etcd-dr restore latest --dry-run             what would be done, and why
  etcd-dr restore latest                       this node, after a question
  etcd-dr restore backup-12 --scope etcd --yes
  etcd-dr restore s3://bucket/CLUSTER/NODE/latest
  etcd-dr restore --status                     from another session
  etcd-dr restore --rollback                   all as it was before
  etcd-dr restore latest --data-dir /var/lib/etcd-new   only that
  etcd-dr restore snapshot.db --data-dir d --bump-revision 0   plain
  etcd-dr restore latest --data-dir d --name m1 \\
    --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380 \\
    --initial-advertise-peer-urls https://10.0.0.1:2380 \\
    --initial-cluster-token NEW --bump-revision 1000000000 --mark-compacted
  etcd-dr restore --from-data-dir /var/lib/etcd --data-dir d   no backup";

/// `restore`
#[derive(Debug, Clone, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
#[command(group(clap::ArgGroup::new("after").args(["status", "resume", "rollback", "commit"])))]
pub struct RestoreArgs {
    /// A backup's name, `latest`, a directory, a snapshot file, or
    /// URL/CLUSTER/NODE/backup-N, which is brought to this node's store
    #[arg(
        value_name = "SET",
        verbatim_doc_comment,
        required_unless_present_any = ["after", "from_data_dir"],
        conflicts_with = "after"
    )]
    pub set: Option<String>,

    /// A stopped member's data directory instead of a backup: becomes a
    /// cluster of that member alone, with all of its log
    #[arg(long, value_name = "DIR", conflicts_with_all = ["set", "initial_cluster", "initial_cluster_token", "skip_hash_check", "compact", "target_version"], value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub from_data_dir: Option<PathBuf>,

    /// That member's WAL, where it has a directory of its own
    #[arg(long, value_name = "DIR", requires = "from_data_dir", value_hint = ValueHint::DirPath)]
    pub from_wal_dir: Option<PathBuf>,

    /// What of the node goes back: all four static pods, or etcd alone, as
    /// the stock script does from OpenShift 4.18 on
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t = ScopeArg::ControlPlane, verbatim_doc_comment)]
    pub scope: ScopeArg,

    /// Show the plan and what follows it, and change nothing
    #[arg(long, conflicts_with_all = ["data_dir", "after"])]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// The longest wait for pods to end, and for anything to start
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    pub wait: Duration,

    /// If a step fails, leave the node as it is then, for --resume or
    /// --rollback, instead of rolling back
    #[arg(long, verbatim_doc_comment)]
    pub keep_failed: bool,

    /// Run as a transient systemd unit, which outlives this session
    /// [auto: where there is systemd]
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = DetachArg::Auto, env = "ETCD_DR_DETACH", verbatim_doc_comment)]
    pub detach: DetachArg,

    /// Show how far a restore is; follow it while it runs
    #[arg(long)]
    pub status: bool,

    /// Go on with a restore that was cut off
    #[arg(long)]
    pub resume: bool,

    /// Take a restore back: the node becomes what it was before
    #[arg(long)]
    pub rollback: bool,

    /// Remove what was kept for --rollback
    #[arg(long)]
    pub commit: bool,

    /// Only make this directory; absent, or there and empty
    #[arg(long, value_name = "DIR", conflicts_with = "after", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// A directory of its own for the write-ahead log; must be absent
    /// [default: member/wal in the data directory]
    #[arg(long, value_name = "DIR", requires = "data_dir", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub wal_dir: Option<PathBuf>,

    /// The member's name [default: default; of --from-data-dir its own]
    #[arg(long, value_name = "NAME", requires = "data_dir")]
    pub name: Option<String>,

    /// All members of the new cluster: name=url,name2=url2
    #[arg(
        long,
        value_name = "LIST",
        default_value = "default=http://localhost:2380",
        requires = "data_dir"
    )]
    pub initial_cluster: String,

    /// What the new ids are made from [default: random, for one member]
    #[arg(long, value_name = "TOKEN", requires = "data_dir")]
    pub initial_cluster_token: Option<String>,

    /// The member's own peer URLs [default: http://localhost:2380;
    /// of --from-data-dir those it had]
    #[arg(long, value_name = "URLS", visible_alias = "peer-urls", value_hint = ValueHint::Url, verbatim_doc_comment)]
    pub initial_advertise_peer_urls: Option<String>,

    /// Take a snapshot whose SHA-256 is wrong or not there
    #[arg(long, requires = "data_dir")]
    pub skip_hash_check: bool,

    /// Raise the revision: auto, above all that is known to have been
    /// served; N, by so many; 0, not at all [default: auto, for one member]
    #[arg(long, value_name = "BUMP", value_parser = parse_bump, verbatim_doc_comment)]
    pub bump_revision: Option<Bump>,

    /// Make watchers of older revisions list anew; needed with N and
    /// --data-dir, and done by itself on a node
    #[arg(long, requires = "data_dir", verbatim_doc_comment)]
    pub mark_compacted: bool,

    /// Write the database anew, without what was deleted from it
    #[arg(long, requires = "data_dir")]
    pub compact: bool,

    /// The etcd that is to start, if not the backup's or a later one:
    /// 3.4, 3.5, 3.6 or 3.7
    #[arg(
        long,
        value_name = "VERSION",
        requires = "data_dir",
        verbatim_doc_comment
    )]
    pub target_version: Option<String>,

    /// Go on although this is refused
    #[arg(long, value_name = "REFUSAL", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// How the store is reached, where SET is a URL.
    #[command(flatten)]
    pub remote: RemoteArgs,

    /// What an encrypted copy is read with.
    #[command(flatten)]
    pub identity: IdentityArgs,
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

    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `enable`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  etcd-dr enable")]
pub struct EnableArgs {}

/// `--scope`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// All four static pods
    ControlPlane,
    /// etcd alone
    Etcd,
}

/// `--detach`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DetachArg {
    /// Where there is systemd
    Auto,
    /// Through systemd-run, whatever there seems to be
    Always,
    /// In this process
    Never,
}

/// `--bump-revision`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bump {
    /// Above everything known.
    Auto,
    /// By so many.
    By(i64),
}

/// Reads `auto` or a number.
pub fn parse_bump(text: &str) -> Result<Bump, String> {
    match text.parse::<i64>() {
        _ if text == "auto" => Ok(Bump::Auto),
        Ok(more) if more >= 0 => Ok(Bump::By(more)),
        _ => Err(format!(
            "expected auto, 0 or a number above it, found {text:?}"
        )),
    }
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
