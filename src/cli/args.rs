//! The clap tree: what may be typed, and its help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

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
    /// Show every backup in a store
    List(ListArgs),
    /// Check backups, offline: which layer is broken, and where
    Verify(VerifyArgs),
    /// Make a data directory from a backup, as `etcdutl snapshot restore` does
    Restore(Box<RestoreArgs>),
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
}

/// `list`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  etcd-dr list\n  etcd-dr list --stale-after 2h || alert\n  etcd-dr list -o json /mnt/backups"
)]
pub struct ListArgs {
    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(value_name = "STORE", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,

    /// Exit with 11 if the newest good backup is older than this (2h)
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub stale_after: Option<Duration>,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  etcd-dr verify latest
  etcd-dr verify backup-12 -o json
  etcd-dr verify /home/core/backup             a pair made by cluster-backup.sh
  etcd-dr verify snapshot.db
  etcd-dr verify latest --live                 is it of this cluster's history?
  etcd-dr verify --data-dir /var/lib/etcd      a stopped member's files";

/// `verify`
#[derive(Debug, Clone, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// A backup's name, `latest`, a directory, or a snapshot file
    #[arg(value_name = "SET", required_unless_present_any = ["all", "data_dir"])]
    pub sets: Vec<String>,

    /// Every backup in the store
    #[arg(long, conflicts_with = "sets")]
    pub all: bool,

    /// Compare with the running member too: HashKV at the backup's revision
    #[arg(long, conflicts_with = "data_dir")]
    pub live: bool,

    /// A stopped member's data directory instead of a backup
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sets", "all"], value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// That member's WAL, where it has a directory of its own
    #[arg(long, value_name = "DIR", requires = "data_dir", value_hint = ValueHint::DirPath)]
    pub wal_dir: Option<PathBuf>,

    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  etcd-dr restore latest --data-dir /var/lib/etcd-new
  etcd-dr restore snapshot.db --data-dir d --bump-revision 0   plain
  etcd-dr restore latest --data-dir d --name m1 \\
    --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380 \\
    --initial-advertise-peer-urls https://10.0.0.1:2380 \\
    --initial-cluster-token NEW --bump-revision 1000000000 --mark-compacted";

/// `restore`
#[derive(Debug, Clone, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub struct RestoreArgs {
    /// A backup's name, `latest`, a directory, or a snapshot file
    #[arg(value_name = "SET")]
    pub set: String,

    /// The directory to make; absent, or there and empty
    #[arg(long, value_name = "DIR", required = true, value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// A directory of its own for the write-ahead log; must be absent
    /// [default: member/wal in the data directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub wal_dir: Option<PathBuf>,

    /// The member's name
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub name: String,

    /// All members of the new cluster: name=url,name2=url2
    #[arg(
        long,
        value_name = "LIST",
        default_value = "default=http://localhost:2380"
    )]
    pub initial_cluster: String,

    /// What the new ids are made from [default: random, for one member]
    #[arg(long, value_name = "TOKEN")]
    pub initial_cluster_token: Option<String>,

    /// The member's own peer URLs
    #[arg(long, value_name = "URLS", default_value = "http://localhost:2380", value_hint = ValueHint::Url)]
    pub initial_advertise_peer_urls: String,

    /// Take a snapshot whose SHA-256 is wrong or not there
    #[arg(long)]
    pub skip_hash_check: bool,

    /// Raise the revision: auto, above all that is known to have been
    /// served; N, by so many; 0, not at all [default: auto, for one member]
    #[arg(long, value_name = "BUMP", value_parser = parse_bump, verbatim_doc_comment)]
    pub bump_revision: Option<Bump>,

    /// Make watchers of older revisions list anew; needed with N
    #[arg(long)]
    pub mark_compacted: bool,

    /// Write the database anew, without what was deleted from it
    #[arg(long)]
    pub compact: bool,

    /// The etcd that is to start, if not the backup's or a later one:
    /// 3.4, 3.5, 3.6 or 3.7
    #[arg(long, value_name = "VERSION", verbatim_doc_comment)]
    pub target_version: Option<String>,

    /// Go on although this is refused
    #[arg(long, value_name = "REFUSAL", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// The directory that holds the backups
    /// [default: /etc/kubernetes/static-pod-backups]
    #[arg(long, value_name = "DIR", env = "ETCD_DR_STORE", value_hint = ValueHint::DirPath, verbatim_doc_comment)]
    pub store: Option<PathBuf>,
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
