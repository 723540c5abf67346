//! What a shell offers on Tab: commands and options from the tree; backups, members, stores
//! and URLs from the disk.
//!
//! The scripts that `completions` prints only ask this binary, with [`VARIABLE`] set to the shell's
//! name, so that they never lag behind it. If anything fails, nothing is offered and nothing is
//! printed, so as not to disturb the line that is being typed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Arg, CommandFactory};
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::{CompleteEnv, Shells};
use jiff::Timestamp;

use super::args::{Cli, allowed_to_add};
use super::complete_objects;
use super::config::{self, Config};
use crate::backup::manifest::Member;
use crate::change::member;
use crate::change::restore::refusals;
use crate::error::{Doing, Failure, Kind, Result};
use crate::keep::{catalog, quality};
use crate::node::layout::NodeLayout;
use crate::store::LocalStore;

/// The variable that asks for completions; its value is the shell's name.
pub(super) const VARIABLE: &str = "_ETCD_DR_COMPLETE";

/// Where zsh finds the script in its `fpath`, the script is what the first completion calls.
const ZSH_AUTOLOADED: &[u8] = b"if [[ \"$funcstack[1]\" = _etcd-dr ]]; then
    _clap_dynamic_completer_etcd_dr \"$@\"
fi
";

/// Answers a shell that asks; false if none does.
pub(super) fn answer(arguments: &[OsString]) -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let here = std::env::current_dir().ok();
    let words = arguments.to_vec();
    let tree = move || with_values(Cli::command(), &words);
    let asked = CompleteEnv::with_factory(tree)
        .var(VARIABLE)
        .try_complete(arguments.to_vec(), here.as_deref());
    // A command runs only if no completion was requested.
    !matches!(asked, Ok(false))
}

/// The script that a shell reads.
///
/// # Errors
/// [`Kind::Usage`] for a shell that there is no script for.
pub(super) fn script(shell: clap_complete::Shell) -> Result<Vec<u8>> {
    let (shells, name) = (Shells::builtins(), shell.to_string());
    let shell = shells
        .completer(&name)
        .ok_or_else(|| Failure::new(Kind::Usage, format!("no completion script for {name}")))?;
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "etcd-dr", "etcd-dr", "etcd-dr", &mut script)
        .doing(Kind::Unexpected, || "writing the script")?;
    if name == "zsh" {
        script.extend_from_slice(ZSH_AUTOLOADED);
    }
    Ok(script)
}

/// The tree, in which every argument that names something known offers it.
fn with_values(tree: clap::Command, words: &[OsString]) -> clap::Command {
    let command = tree.get_name().to_owned();
    let tree = tree.mut_args(|argument| with_value(argument, &command, words));
    tree.mut_subcommands(|command| with_values(command, words))
}

/// An argument with what is known for it: backups, stores, members, URLs and the names of `--allow`.
fn with_value(argument: Arg, command: &str, words: &[OsString]) -> Arg {
    let takes = |word: &str| {
        argument
            .get_value_names()
            .is_some_and(|names| names.iter().any(|name| name == word))
    };
    let words = words.to_vec();
    match argument.get_long() {
        Some("allow") => {
            let names = allowed(command);
            let offered = move || names.iter().map(CompletionCandidate::new).collect();
            return argument.add(ArgValueCandidates::new(offered));
        }
        Some("namespace") => {
            let offered = move || candidates(complete_objects::namespaces(&words, &store(&words)));
            return argument.add(ArgValueCandidates::new(offered));
        }
        Some("endpoints") => {
            return argument.add(ArgValueCandidates::new(move || endpoints(&words)));
        }
        Some("copy-to") => {
            return argument.add(ArgValueCandidates::new(move || copies(&words)));
        }
        _ => {}
    }
    if takes("KIND[/NAME]") {
        let offered = move |typed: &OsStr| {
            let typed = typed.to_string_lossy();
            let mut found = complete_objects::objects(&typed, &words, &store(&words));
            found.retain(|word| word.starts_with(&*typed));
            candidates(found)
        };
        argument.add(ArgValueCompleter::new(offered))
    } else if takes("SET") {
        let offered = move |typed: &OsStr| known_or_path(typed, sets(&words), PathCompleter::any());
        argument.add(ArgValueCompleter::new(offered))
    } else if takes("STORE") || argument.get_long() == Some("store") {
        let offered =
            move |typed: &OsStr| known_or_path(typed, stores(&words), PathCompleter::dir());
        argument.add(ArgValueCompleter::new(offered))
    } else if takes("NAME|ID|URL") {
        argument.add(ArgValueCandidates::new(move || members(&words)))
    } else if takes("COMMAND") && argument.is_positional() {
        argument.add(ArgValueCandidates::new(commands))
    } else {
        argument
    }
}

fn candidates(words: Vec<String>) -> Vec<CompletionCandidate> {
    words.into_iter().map(CompletionCandidate::new).collect()
}

/// What `--allow` of a command takes.
fn allowed(command: &str) -> Vec<&'static str> {
    match command {
        "backup" | "schedule" => quality::ALLOWABLE.to_vec(),
        "restore" => refusals::ALLOWABLE.to_vec(),
        "member-add" => allowed_to_add(),
        "member-remove" | "member-update" => member::ALLOWABLE.to_vec(),
        _ => Vec::new(),
    }
}

/// The known values that begin with the typed text; paths only if nothing is known, so that a home
/// directory full of files does not hide the backups.
fn known_or_path(
    typed: &OsStr,
    known: Vec<CompletionCandidate>,
    paths: PathCompleter,
) -> Vec<CompletionCandidate> {
    let start = typed.to_string_lossy();
    let mut offered = known;
    offered.retain(|candidate| candidate.get_value().to_string_lossy().starts_with(&*start));
    if offered.is_empty() {
        offered = paths.complete(typed);
    }
    offered
}

fn commands() -> Vec<CompletionCandidate> {
    Cli::command()
        .get_subcommands()
        .map(|command| {
            CompletionCandidate::new(command.get_name()).help(command.get_about().cloned())
        })
        .collect()
}

/// The sets of the store that the line so far means, newest first, and `latest`.
fn sets(words: &[OsString]) -> Vec<CompletionCandidate> {
    let Ok(found) = catalog::list(&LocalStore::at(store(words))) else {
        return Vec::new();
    };
    let mut offered = Vec::new();
    if let Some(newest) = catalog::newest_good(&found, Timestamp::now()) {
        let help = format!("the newest good backup: {}", newest.name);
        offered.push(CompletionCandidate::new("latest").help(Some(help.into())));
    }
    offered.extend(found.iter().rev().map(|set| {
        let created = set.created.map(|time| time.strftime("%F %T").to_string());
        let help = format!("{} {}", set.state.word(), created.unwrap_or_default());
        CompletionCandidate::new(&set.name).help(Some(help.trim_end().to_owned().into()))
    }));
    let placed = offered.into_iter().enumerate();
    placed
        .map(|(place, candidate)| candidate.display_order(Some(place)))
        .collect()
}

/// The members that the cluster's backups were taken from. No member is asked.
fn known_members(words: &[OsString]) -> Vec<Member> {
    let found = catalog::list(&LocalStore::at(store(words))).unwrap_or_default();
    let newest = catalog::newest_good(&found, Timestamp::now());
    let Some(cluster) = newest.and_then(|set| Some(&set.manifest.as_ref()?.cluster.etcd_id)) else {
        return Vec::new();
    };
    let manifests = found.iter().rev().filter_map(|set| set.manifest.as_ref());
    let mut members: Vec<Member> = Vec::new();
    for manifest in manifests.filter(|manifest| manifest.cluster.etcd_id == *cluster) {
        if members.iter().all(|known| known.id != manifest.member.id) {
            members.push(manifest.member.clone());
        }
    }
    members
}

fn members(words: &[OsString]) -> Vec<CompletionCandidate> {
    let known = known_members(words).into_iter();
    let offered = known.map(|member| {
        let help = format!("{} {}", member.id, member.endpoint);
        CompletionCandidate::new(member.name).help(Some(help.into()))
    });
    offered.collect()
}

/// The client URLs that are known: the configured ones and those of the members.
fn endpoints(words: &[OsString]) -> Vec<CompletionCandidate> {
    let (_, config) = session(words);
    let members = known_members(words).into_iter();
    let known = config.endpoints.into_iter();
    let mut urls: Vec<String> = known.chain(members.map(|member| member.endpoint)).collect();
    urls.sort();
    urls.dedup();
    urls.into_iter().map(CompletionCandidate::new).collect()
}

/// The URLs that copies are configured to go to.
fn copies(words: &[OsString]) -> Vec<CompletionCandidate> {
    let (_, config) = session(words);
    let urls = config.copy.to.into_iter();
    urls.map(CompletionCandidate::new).collect()
}

/// The stores that are known by name: the configured one, the node's own, and those of its copies.
fn stores(words: &[OsString]) -> Vec<CompletionCandidate> {
    let (root, config) = session(words);
    let own = NodeLayout::new(&root).store();
    config
        .store
        .into_iter()
        .chain(own.is_dir().then_some(own))
        .map(CompletionCandidate::new)
        .chain(copies(words))
        .collect()
}

/// The store that the line so far means, by the rules of a command that runs.
fn store(words: &[OsString]) -> PathBuf {
    let (root, config) = session(words);
    given(words, "--store")
        .or_else(|| from("ETCD_DR_STORE"))
        .or(config.store)
        .unwrap_or_else(|| NodeLayout::new(&root).store())
}

fn session(words: &[OsString]) -> (PathBuf, Config) {
    let root = given(words, "--root")
        .or_else(|| from("ETCD_DR_ROOT"))
        .unwrap_or_else(|| PathBuf::from("/"));
    let named = given(words, "--config").or_else(|| from("ETCD_DR_CONFIG"));
    let config = config::load(named.as_deref(), &root).unwrap_or_default();
    (root, config)
}

fn from(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?;
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// The value of an option on a line that is not finished and may not even parse.
fn given(words: &[OsString], option: &str) -> Option<PathBuf> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == option {
            return words.next().map(|value| expanded(Path::new(value)));
        }
        let value = word
            .to_str()
            .and_then(|word| word.strip_prefix(option)?.strip_prefix('='));
        if let Some(value) = value {
            return Some(expanded(Path::new(value)));
        }
    }
    None
}

/// A path as the shell would hand it over: it has not expanded `~` yet.
fn expanded(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_line_in_the_making() {
        let words = [
            "etcd-dr",
            "--",
            "etcd-dr",
            "--root=/host",
            "verify",
            "--store",
            "/b",
            "x",
        ]
        .map(OsString::from);
        assert_eq!(given(&words, "--root"), Some(PathBuf::from("/host")));
        assert_eq!(given(&words, "--store"), Some(PathBuf::from("/b")));
        assert_eq!(given(&words, "--config"), None);
        assert_eq!(given(&words[..6], "--store"), None);
        assert_eq!(given(&[OsString::from("--rooted=/x")], "--root"), None);
    }
}
