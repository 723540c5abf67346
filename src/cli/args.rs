//! The clap tree: what may be typed, and its help.

mod backup;
mod copy;
mod diff;
mod disable;
mod get;
mod global;
mod keep;
mod list;
mod log;
mod member;
mod objects;
mod prune;
mod record;
mod remote;
mod restore;
mod schedule;
mod sign;
mod source;
mod values;
mod verify;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub use self::backup::BackupArgs;
pub use self::copy::CopyArgs;
pub use self::diff::DiffArgs;
pub use self::disable::{DisableArgs, EnableArgs};
pub use self::get::GetArgs;
pub use self::global::{ColorArg, Global, OutputArg, ProfileArg, ProgressArg};
pub use self::keep::KeepArgs;
pub use self::list::ListArgs;
pub use self::log::LogArgs;
pub(crate) use self::member::allowed_to_add;
pub use self::member::{MemberAddArgs, MemberRemoveArgs, MemberUpdateArgs, PrintArg};
pub use self::objects::ObjectArgs;
pub use self::prune::PruneArgs;
pub use self::record::{RecordArgs, SealArgs};
pub use self::remote::{FormArgs, IdentityArgs, RemoteArgs};
pub use self::restore::{Bump, DetachArg, OWN_WAL, RestoreArgs, ScopeArg, parse_bump};
pub use self::schedule::ScheduleArgs;
pub use self::sign::{SignArgs, SignersArgs, TrustArgs};
pub use self::source::SourceArgs;
pub use self::values::{When, parse_duration, parse_size, parse_when, parse_zone};
pub use self::verify::{RehearseArgs, VerifyArgs};

/// Examples shown below the top-level help.
const EXAMPLES: &str = "\
Examples:
  etcd-dr backup                     take a backup on this control-plane node
  etcd-dr list                       list the backups in the store
  etcd-dr verify latest              check the newest good backup, offline
  etcd-dr verify --cluster           what is wrong with the cluster
  etcd-dr restore latest --dry-run   what a restore of this node would do
  etcd-dr --root /host backup        from an `oc debug node` shell

Exit status: 0 done, 1 unexpected, 2 usage, 3 bad backup, 4 etcd unreachable,
5 refused, 6 store unavailable or full, 7 busy or unfinished, 8 failed and
rolled back, 9 failed and not rolled back, 10 done in part, 11 stale or
different, 12 could not check, 130 interrupted.";

/// Back up and restore the etcd of Kubernetes and OpenShift control planes
#[derive(Debug, Parser)]
#[command(name = "etcd-dr", version, max_term_width = 80, after_long_help = EXAMPLES)]
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

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Back up etcd and the static-pod resources in use
    ///
    /// Takes a snapshot of the local member and checks it while it arrives, then archives the
    /// manifests and certificates of the static pods that run now. The backup exists once
    /// backup.json is in its directory: an interrupted run leaves nothing that is listed as a
    /// backup.
    ///
    /// A failed quality check refuses the backup (exit status 5). --allow CHECK takes it anyway
    /// and marks it dirty. Nothing on the node changes but the store.
    Backup(BackupArgs),
    /// Take backups on a schedule, one in each period
    ///
    /// Runs until SIGTERM or SIGINT. A period that has a backup already, whoever took it, is
    /// left alone; a period that has none gets one at once. A failed run does not end the
    /// process: it is tried again within the period.
    ///
    /// Standard output has one JSON object a line for each run. Under systemd, readiness,
    /// status and the watchdog are reported through NOTIFY_SOCKET.
    Schedule(Box<ScheduleArgs>),
    /// Record every write between backups, so that any moment can be restored
    ///
    /// Follows the whole key space of etcd and seals what is written, every few seconds, into
    /// files beside the backups. `restore --to-revision` and `--to-time` then reach every revision
    /// from a backup to the last seal. Runs until SIGTERM or SIGINT, then seals what it has.
    ///
    /// It reconnects by itself. Where etcd has compacted what was not yet recorded, it says so and
    /// begins again; the next backup makes what follows reachable.
    Record(RecordArgs),
    /// List the backups in a store
    ///
    /// Shows when each backup was taken, how old it is, its revision, keys and size, whether it
    /// is good, and when it was verified. Also warns of a backup that has problems, of an
    /// operation on this node that is unfinished or not committed, and of an etcd that is
    /// disabled.
    List(ListArgs),
    /// Show what happened in a backup's history: writes and deletions
    ///
    /// A backup holds every revision since etcd's last compaction, in Kubernetes those of the
    /// last 5 to 10 minutes. log shows them with revision and time, grouped by what was done
    /// and where, so that a moment to restore to can be found. It changes nothing.
    Log(LogArgs),
    /// Check backups, a member's files or the cluster, and say what is broken
    ///
    /// Reads every layer of each backup offline: the snapshot's checksum, its pages and keys,
    /// the archives, the certificates, and whether every file is what the Manifest says. The
    /// result is recorded beside the backup. Exit status 3 means that a backup is bad.
    ///
    /// --data-dir checks a stopped member's files instead, --compare ranks such reports,
    /// --cluster diagnoses the running cluster, and --upgrade-to lists what would stop another
    /// release of etcd. None of them changes anything.
    Verify(VerifyArgs),
    /// Show Kubernetes objects out of a backup, without restoring it
    ///
    /// Reads deployments, secrets, custom resources, ... straight from the snapshot, as the API
    /// server would answer them, and prints names, YAML or JSON. Without a kind it counts what
    /// is there. Objects that the API server encrypted are read with the keys in the backup.
    /// Nothing is started and nothing changes.
    ///
    /// Exit status 10: something could not be shown; 12: something is encrypted, and its key is
    /// not in the backup.
    Get(Box<GetArgs>),
    /// Compare the Kubernetes objects of two backups, or of a backup and the cluster
    ///
    /// Counts what was added, removed, replaced (another uid) and changed, by kind and
    /// namespace; --names lists the objects and --objects shows how each differs. With one
    /// backup it compares with the running etcd: what a restore would roll back.
    ///
    /// Exit status 0: the same; 11: different. Leases, Events and leader elections change all
    /// the time and are left out unless --all is given. Nothing changes.
    Diff(Box<DiffArgs>),
    /// Delete the backups that no rule keeps
    ///
    /// Shows what would be deleted and why, asks, and deletes it. A backup stays if any --keep
    /// rule matches. Whatever the rules say, the newest good backup stays, and so does one that
    /// is pinned or that a restore uses.
    Prune(PruneArgs),
    /// Copy a backup to or from another store
    ///
    /// Copying again does nothing, or continues where an interrupted copy ended. The files on
    /// the node stay as they are; --compress and --recipient change the copy only. Credentials
    /// come from where each service's own tools look for them, never from an option.
    Copy(CopyArgs),
    /// Restore this node from a backup or a disk, or only build a data directory
    ///
    /// Shows the plan, asks, and carries it out step by step. Each step is written to a
    /// journal, so that an interrupted restore can be continued with --resume or undone with
    /// --rollback. A step that fails is rolled back. What was on the node before is kept until
    /// --commit.
    ///
    /// With --data-dir it only makes a data directory, with the options of etcdutl snapshot
    /// restore, and touches nothing else. With --from-data-dir the data comes from a stopped
    /// member's disk instead of a backup.
    Restore(Box<RestoreArgs>),
    /// Stop this node's etcd and keep it stopped
    ///
    /// Takes etcd's static-pod manifest away from the kubelet, keeps it, and waits until etcd's
    /// containers have ended. On a terminal it shows what this does to the quorum, and asks. It
    /// can be repeated.
    Disable(DisableArgs),
    /// Start this node's etcd again
    ///
    /// Puts back the manifest that disable has kept, and waits until etcd serves. It can be
    /// repeated.
    Enable(EnableArgs),
    /// Add a member as a learner, and promote it once it has caught up
    ///
    /// Adds a learner, shows what it must be started with, waits until it has caught up, and
    /// promotes it. A learner that is not promoted within --wait is removed again.
    ///
    /// --join does all of it on the control-plane node that joins, as one operation with a
    /// journal.
    MemberAdd(MemberAddArgs),
    /// Remove a member, if quorum allows
    ///
    /// Shows the members and the quorum before and after, and asks. A leader hands over its
    /// leadership first. Refuses where too few healthy members would be left. On OpenShift it
    /// prints what remains to be done with oc.
    MemberRemove(MemberRemoveArgs),
    /// Change a member's peer URLs after its address has changed
    ///
    /// Dials the new URLs first. Where nobody listens yet, a healthy member counts as lost in
    /// the quorum that is shown, since its peers would not find it.
    MemberUpdate(MemberUpdateArgs),
    /// Print a shell completion script
    ///
    /// The script asks this program for what can be typed: commands and options, the backups
    /// and stores of this machine, the members that the newest backup knows, and what --allow
    /// takes.
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Shell to print the script for
        shell: Shell,
    },
    /// Print a manual page
    #[command(after_long_help = MAN_EXAMPLES)]
    Man {
        /// Command to print the page for [default: the overview]
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
            if page.get_name() == "help" {
                continue;
            }
            let after = page.get_after_long_help().map(ToString::to_string);
            assert!(
                after.is_some_and(|text| text.starts_with("Examples:")),
                "{} has no examples",
                page.get_name()
            );
            let [short, long] = [page.render_help(), page.render_long_help()];
            let lines = |text: &str| text.lines().count();
            assert!(
                lines(&long.to_string()) > lines(&short.to_string()),
                "{}: --help tells no more than -h",
                page.get_name()
            );
        }
    }
}
