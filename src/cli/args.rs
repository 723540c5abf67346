//! The clap tree: what may be typed, and its help.

mod backup;
mod copy;
mod disable;
mod global;
mod keep;
mod list;
mod member;
mod prune;
mod remote;
mod restore;
mod schedule;
mod values;
mod verify;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub use self::backup::BackupArgs;
pub use self::copy::CopyArgs;
pub use self::disable::{DisableArgs, EnableArgs};
pub use self::global::{ColorArg, Global, OutputArg, ProfileArg, ProgressArg};
pub use self::keep::KeepArgs;
pub use self::list::ListArgs;
pub use self::member::{MemberAddArgs, MemberRemoveArgs, MemberUpdateArgs, PrintArg};
pub use self::prune::PruneArgs;
pub use self::remote::{FormArgs, IdentityArgs, RemoteArgs};
pub use self::restore::{Bump, DetachArg, RestoreArgs, ScopeArg, parse_bump};
pub use self::schedule::ScheduleArgs;
pub use self::values::{parse_duration, parse_size, parse_zone};
pub use self::verify::VerifyArgs;

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

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Back up etcd and the static-pod resources in use
    Backup(BackupArgs),
    /// Take backups on a schedule, one in each period
    Schedule(Box<ScheduleArgs>),
    /// List the backups in a store
    List(ListArgs),
    /// Check backups, a member's files or the cluster, and say what is broken
    Verify(VerifyArgs),
    /// Delete the backups that no rule keeps
    Prune(PruneArgs),
    /// Copy a backup to or from another store
    Copy(CopyArgs),
    /// Restore this node from a backup or a disk, or only build a data directory
    Restore(Box<RestoreArgs>),
    /// Stop this node's etcd and keep it stopped
    Disable(DisableArgs),
    /// Start this node's etcd again
    Enable(EnableArgs),
    /// Add a member as a learner, and promote it once it has caught up
    MemberAdd(MemberAddArgs),
    /// Remove a member, if quorum allows
    MemberRemove(MemberRemoveArgs),
    /// Change a member's peer URLs after its address has changed
    MemberUpdate(MemberUpdateArgs),
    /// Print a shell completion script
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Shell to print the script for
        shell: Shell,
    },
    /// Print a manual page
    #[command(after_help = MAN_EXAMPLES)]
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
            let after = page.get_after_help().map(ToString::to_string);
            assert!(
                page.get_name() == "help"
                    || after.is_some_and(|text| text.starts_with("Examples:")),
                "{} has no examples",
                page.get_name()
            );
        }
    }
}
