//! The next command to type, made from a failure's kind and facts, and from what was typed.
//!
//! A hint is a whole command: it repeats the arguments that were given, so that it can be pasted.
//! Where there is a way that overrides nothing, it comes first; an override never comes alone.

use std::ffi::OsString;
use std::sync::OnceLock;

use crate::change::transaction::unsettled::{DISABLE, JOIN};
use crate::error::{Fact, Failure, Kind};

/// What was typed behind the program's name.
static TYPED: OnceLock<Vec<String>> = OnceLock::new();

/// Keeps what was typed, once, before anything else runs.
pub(crate) fn keep(arguments: &[OsString]) {
    let words = arguments.iter().skip(1);
    let words = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // Later calls are ignored: they would be by the same process with the same arguments.
    let _ = TYPED.set(words);
}

/// Options of all commands that say which node and which etcd is meant.
const WHERE: [&str; 8] = [
    "--root",
    "--config",
    "--profile",
    "--node-name",
    "--endpoints",
    "--cacert",
    "--cert",
    "--key",
];

/// A command line, as words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line(Vec<String>);

impl Line {
    /// What was typed; the command's name where nobody kept it.
    fn typed(command: &str) -> Self {
        match TYPED.get() {
            Some(words) if !words.is_empty() => Self(words.clone()),
            _ => Self(command.split(' ').map(str::to_owned).collect()),
        }
    }

    /// Another command on the same node.
    fn other(&self, words: &str) -> Self {
        let mut line = Vec::new();
        for name in WHERE {
            if let Some(value) = self.value(name) {
                line.extend([name.to_owned(), value]);
            }
        }
        line.extend(words.split(' ').map(str::to_owned));
        Self(line)
    }

    /// The value of an option, `--name value` or `--name=value`.
    fn value(&self, name: &str) -> Option<String> {
        let mut words = self.0.iter();
        while let Some(word) = words.next() {
            if word == name {
                return words.next().cloned();
            }
            if let Some(value) = word.strip_prefix(name).and_then(|w| w.strip_prefix('=')) {
                return Some(value.to_owned());
            }
        }
        None
    }

    /// The same without an option and its value.
    fn without(mut self, name: &str) -> Self {
        let mut kept = Vec::new();
        let mut words = std::mem::take(&mut self.0).into_iter();
        while let Some(word) = words.next() {
            let joined = word.strip_prefix(name).is_some_and(|w| w.starts_with('='));
            if word == name {
                words.next();
            } else if !joined {
                kept.push(word);
            }
        }
        Self(kept)
    }

    /// The same with an option of this value, behind all others.
    fn with(self, name: &str, value: &str) -> Self {
        let mut line = self.without(name);
        line.0.extend([name.to_owned(), value.to_owned()]);
        line
    }

    /// The same with an option that says which node is meant, before all others.
    fn at(self, name: &str, value: &str) -> Self {
        let mut line = self.without(name);
        line.0.splice(0..0, [name.to_owned(), value.to_owned()]);
        line
    }

    /// The same with one more word, unless it is there.
    fn and(mut self, word: &str) -> Self {
        if !self.0.iter().any(|there| there == word) {
            self.0.push(word.to_owned());
        }
        self
    }

    /// The same with further names allowed.
    fn allowing(self, names: &[&str]) -> Self {
        let before = self.value("--allow");
        let names = before.as_deref().into_iter().chain(names.iter().copied());
        let names = names.collect::<Vec<_>>().join(",");
        self.with("--allow", &names)
    }

    /// The same with the store that was given as an option, as this command takes it.
    fn with_store(self, typed: &Self, option: bool) -> Self {
        match typed.value("--store") {
            Some(store) if option => self.with("--store", &store),
            Some(store) => self.and(&store),
            None => self,
        }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("etcd-dr")?;
        for word in &self.0 {
            write!(f, " {}", quoted(&without_secret(word)))?;
        }
        Ok(())
    }
}

/// A word as a shell must be given it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "@%+=:,./_-[]|".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The part before a URL's host may hold a secret.
fn without_secret(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let path = rest.get(authority.len()..).unwrap_or_default();
            format!("{scheme}://USER@{host}{path}")
        }
        _ => word.to_owned(),
    }
}

/// The command that continues an operation, by the kind that its name begins with.
pub(crate) fn command_of(id: &str) -> &'static str {
    if id.starts_with(JOIN) {
        "member-add --join"
    } else {
        "restore"
    }
}

/// The hint for a failure of a command, if there is a true one; one command per line, the best
/// first.
pub(crate) fn hint(command: &str, failure: &Failure) -> Option<String> {
    let typed = Line::typed(command);
    of(&typed, command, failure)
}

/// The first of these that has an answer: what is unfinished comes before what was refused, and what
/// the failure names before what its kind alone suggests.
fn of(typed: &Line, command: &str, failure: &Failure) -> Option<String> {
    let unfinished = failure.facts().iter().find_map(|fact| waits(typed, fact));
    unfinished
        .or_else(|| remains(typed, failure))
        .or_else(|| refused(typed, failure))
        .or_else(|| denied(typed, failure))
        .or_else(|| without_any_disk(typed, failure))
        .or_else(|| not_found(typed, failure))
        .or_else(|| chosen(typed, command, failure))
        .or_else(|| by_kind(typed, failure))
}

/// A member that an unfinished change has left.
fn remains(typed: &Line, failure: &Failure) -> Option<String> {
    let member = failure.facts().iter().find_map(|fact| match fact {
        Fact::MemberRemains(member) => Some(member),
        _ => None,
    })?;
    let line = typed.other(&format!("member-remove {member}"));
    Some(format!("to remove that member: {line}"))
}

/// What a damaged disk is still good for.
fn without_any_disk(typed: &Line, failure: &Failure) -> Option<String> {
    if failure.refusal() != Some("damaged-survivor") || failure.kind() != Kind::Refused {
        return None;
    }
    let database = failure.facts().iter().find_map(|fact| match fact {
        Fact::Path(path) => Some(path.display()),
        _ => None,
    })?;
    let last = format!(
        "if there is no other disk and no backup: etcd-dr restore {database} --scope etcd --allow no-integrity-hash"
    );
    let wal = failure.facts().iter().find_map(|fact| match fact {
        Fact::SoundWal(path) => Some(path.display().to_string()),
        _ => None,
    });
    Some(match wal {
        Some(wal) => format!(
            "its WAL is whole: with a backup nothing is lost: {}\n{last}",
            rolled_forward(typed, &wal)
        ),
        None => last,
    })
}

/// The restore that applies a WAL to the newest backup.
fn rolled_forward(typed: &Line, wal: &str) -> Line {
    let mut line = typed.other("restore latest").with_store(typed, true);
    if let Some(data_dir) = typed.value("--data-dir") {
        line = line.with("--data-dir", &data_dir);
    }
    line.with("--roll-forward", wal)
}

/// The same, as a command line: for a damaged database whose WAL is whole.
pub(crate) fn to_roll_forward(command: &str, backup: &str, wal: &str) -> String {
    let typed = Line::typed(command);
    let line = typed
        .other(&format!("restore {backup}"))
        .with_store(&typed, true);
    line.with("--roll-forward", wal).to_string()
}

/// What was not given, or was moved away.
fn not_found(typed: &Line, failure: &Failure) -> Option<String> {
    let missing = failure.facts().iter().find_map(|fact| missing(typed, fact));
    let moved = failure.facts().iter().find_map(|fact| match fact {
        Fact::Moved(path) => Some(path.display()),
        _ => None,
    });
    if let Some(path) = moved {
        let back = format!("if it was moved away by hand, to put it back: mv FILE {path}");
        return Some(match missing {
            Some(missing) => format!("{back}\n{missing}"),
            None => back,
        });
    }
    let names = failure.facts().iter().find_map(|fact| match fact {
        Fact::Candidates(names) if !names.is_empty() => Some(names.join(", ")),
        _ => None,
    });
    missing.map(|missing| match names {
        Some(names) => format!("{missing}  (one of: {names})"),
        None => missing,
    })
}

/// What could have been meant, or who is in the way.
fn chosen(typed: &Line, command: &str, failure: &Failure) -> Option<String> {
    failure.facts().iter().find_map(|fact| match fact {
        Fact::Candidates(names) if !names.is_empty() => {
            Some(format!("one of: {}", names.join(", ")))
        }
        Fact::Candidates(_) if command != "backup" => {
            let line = typed.other("backup").with_store(typed, false);
            Some(format!("to take a backup: {line}"))
        }
        Fact::Holder { pid, .. } => Some(format!("to see what it is doing: ps -fp {pid}")),
        _ => None,
    })
}

/// What only root may do. This comes before what is missing: an endpoint, for example, is not found
/// if the manifest cannot be read.
fn denied(typed: &Line, failure: &Failure) -> Option<String> {
    let denied = failure.io_kind() == Some(std::io::ErrorKind::PermissionDenied);
    (denied && !rustix::process::geteuid().is_root())
        .then(|| format!("to run it as root: sudo {typed}"))
}

/// What the kind of failure alone suggests.
fn by_kind(typed: &Line, failure: &Failure) -> Option<String> {
    let line = typed.other("verify --all").with_store(typed, true);
    (failure.kind() == Kind::BadBackup).then(|| format!("to find a good backup: {line}"))
}

/// How to resume, and how to roll back.
fn waits(typed: &Line, fact: &Fact) -> Option<String> {
    let line = |id: &str, rest: &str| typed.other(&format!("{} {rest}", command_of(id)));
    match fact {
        Fact::Unfinished { id, .. } | Fact::Unsettled { id } if id.starts_with(DISABLE) => {
            Some(format!("to undo it: {}", typed.other("enable")))
        }
        Fact::Unfinished {
            id,
            goes_back: true,
            ..
        } => Some(format!(
            "to finish the rollback: {}",
            line(id, "--rollback")
        )),
        Fact::Unfinished { id, .. } => Some(format!(
            "to resume: {}\nto roll back: {}",
            line(id, "--resume"),
            line(id, "--rollback")
        )),
        Fact::Unsettled { id } => Some(format!(
            "to keep it and delete the previous state: {}\nto roll it back: {}",
            line(id, &format!("--commit {id}")),
            line(id, &format!("--rollback {id}"))
        )),
        _ => None,
    }
}

/// What can be done about refusals: first what overrides none, then the override.
fn refused(typed: &Line, failure: &Failure) -> Option<String> {
    let of_kind = |wanted: bool| -> Vec<&'static str> {
        let refusals = failure.facts().iter().filter_map(|fact| match fact {
            Fact::Refusal { name, allowable } if *allowable == wanted => Some(*name),
            _ => None,
        });
        refusals.collect()
    };
    let (firm, names) = (of_kind(false), of_kind(true));
    let mut lines: Vec<String> = Vec::new();
    for name in firm.iter().chain(&names) {
        if let Some(line) = safe_way(typed, name, failure)
            && !lines.contains(&line)
        {
            lines.push(line);
        }
    }
    if firm.is_empty() && !names.is_empty() {
        let over = typed.clone().allowing(&names);
        lines.push(format!("to override the refusal: {over}"));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What meets a refusal without overriding it.
fn safe_way(typed: &Line, name: &str, failure: &Failure) -> Option<String> {
    let verify = || typed.other("verify --cluster");
    let listed = || typed.other("list").with_store(typed, false);
    Some(match name {
        "other-members-running" | "other-members-unknown" => {
            let members = failure.facts().iter().find_map(|fact| match fact {
                Fact::Members(names) if !names.is_empty() => Some(names.join(", ")),
                _ => None,
            });
            let nodes = members.unwrap_or_else(|| "the other nodes".to_owned());
            format!("stop etcd first, on each of {nodes}: etcd-dr disable")
        }
        "node-mismatch" | "address-not-local" => {
            let line = typed.clone().with("--scope", "etcd");
            format!("to restore only etcd's data: {line}")
        }
        "manifest-copy" => {
            let paths = failure.facts().iter().filter_map(|fact| match fact {
                Fact::Path(path) => Some(quoted(&path.to_string_lossy())),
                _ => None,
            });
            let paths: Vec<String> = paths.collect();
            format!("to move it out: mv {} /root/", paths.join(" "))
        }
        "external-etcd" => {
            let service = |fact: &Fact| matches!(fact, Fact::HostService(_));
            let line = typed.clone().at("--profile", "bare");
            let line = match typed.value("--endpoints") {
                Some(_) => line,
                None => line.at("--endpoints", "https://ADDRESS:2379"),
            };
            let known = failure.facts().iter().any(service);
            return known.then(|| format!("to connect to the service's etcd: {line}"));
        }
        "cluster-mismatch" => format!("to see this cluster's own backups: {}", listed()),
        "version-mismatch" | "alarm-in-backup" | "unknown-version" => {
            format!("to find another backup: {}", listed())
        }
        "no-integrity-hash" => format!("to find one with a checksum: {}", listed()),
        "certificates-invalid" => format!("to see what is wrong with them: {}", verify()),
        _ => return way_around(typed, name, failure),
    })
}

/// The same for refusals about how something is done.
fn way_around(typed: &Line, name: &str, failure: &Failure) -> Option<String> {
    let verify = || typed.other("verify --cluster");
    Some(match name {
        "bump-too-small" => {
            let mut line = typed.clone();
            line.0.retain(|word| word != "--mark-compacted");
            let line = line.with("--bump-revision", "auto");
            format!("to bump it above every known revision: {line}")
        }
        "unknown-entry" | "long-tail" => {
            let line = typed.clone().with("--bump-revision", "0");
            format!("to leave the WAL to etcd: {line}")
        }
        "cluster-restored" => {
            let line = typed.other("member-add --join");
            format!("to join that cluster, with the old data set aside: {line}")
        }
        "no-etcd" | "etcd-unusable" | "etcd-too-old" => {
            format!(
                "to use another etcd: {}",
                typed.clone().with("--etcd", "FILE")
            )
        }
        "rehearsal-timeout" => {
            let line = typed.clone().with("--rehearse-timeout", "1h");
            format!("to give it more time: {line}")
        }
        "state-not-trusted" => {
            let path = failure.facts().iter().find_map(|fact| match fact {
                Fact::Path(path) => Some(path.display().to_string()),
                _ => None,
            });
            format!("to see who may write there: ls -ld {}", path?)
        }
        "root-required" => format!("to run it as root: sudo {typed}"),
        "peer-url-loopback" => {
            let member = failure.facts().iter().find_map(|fact| match fact {
                Fact::MustMove(member) => Some(member),
                _ => None,
            })?;
            let command = format!("member-update {member} --peer-urls https://ADDRESS:2380");
            format!("first: {}", typed.other(&command))
        }
        "unhealthy-cluster"
        | "would-lose-quorum"
        | "leader-cannot-move"
        | "etcd-unhealthy-member"
        | "etcd-alarm"
        | "etcd-no-leader"
        | "raft-lag" => {
            format!("to see what is wrong: {}", verify())
        }
        _ => return None,
    })
}

/// What to type where a setting was not given.
pub(crate) fn for_missing(command: &str, what: &'static str) -> Option<String> {
    missing(&Line::typed(command), &Fact::Missing(what))
}

/// The option that gives what was not given.
fn missing(typed: &Line, fact: &Fact) -> Option<String> {
    let line = typed.clone();
    Some(match fact {
        Fact::Missing("node-name") => format!("set it: {}", line.at("--node-name", "NAME")),
        Fact::Missing("endpoint") => {
            format!("set it: {}", line.at("--endpoints", "https://ADDRESS:2379"))
        }
        Fact::Missing("peer-urls") => {
            format!(
                "set it: {}",
                line.with("--peer-urls", "https://ADDRESS:2380")
            )
        }
        Fact::Missing("etcd-user") => {
            let line = line.at("--key", "FILE").at("--cert", "FILE");
            format!("use the client certificate of an etcd user with the role root: {line}")
        }
        Fact::Missing("ca") => format!("set it: {}", line.at("--cacert", "FILE")),
        Fact::Missing("container-runtime") => {
            "name the kubelet's socket: set containerRuntimeEndpoint: unix:///PATH in /var/lib/kubelet/config.yaml"
                .to_owned()
        }
        Fact::Missing("cert" | "key") => {
            let line = line.at("--key", "FILE").at("--cert", "FILE");
            format!("set both: {line}")
        }
        Fact::Missing("set") => {
            let list = typed.other("list").with_store(typed, false);
            format!("choose one: {}  (they are in: {list})", line.and("latest"))
        }
        Fact::Missing("yes") => format!("to confirm beforehand: {}", line.and("--yes")),
        Fact::Missing("scope") => {
            format!("restore only etcd: {}", line.with("--scope", "etcd"))
        }
        Fact::Missing("profile") => {
            let line = line.at("--profile", "openshift|kubeadm|bare");
            format!("set the node's root: {line}")
        }
        Fact::Missing("secrets-identity") => {
            format!("add an identity of theirs: {}", line.with("--identity", "FILE"))
        }
        Fact::Missing("identity") => format!("set it: {}", line.with("--identity", "FILE")),
        Fact::Missing("keep-rule") => {
            let line = line.with("--keep-last", "20").and("--dry-run");
            format!("to see what a rule would do: {line}")
        }
        Fact::Mounted(root) => {
            let root = root.display().to_string();
            let line = line.at("--root", &root);
            format!("the node's file system is at {root}: {line}")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line(text.split(' ').map(str::to_owned).collect())
    }

    fn refusal(name: &'static str) -> Failure {
        Failure::refused(name, "why")
    }

    #[test]
    fn a_hint_repeats_what_was_typed_and_names_the_safe_way_first() {
        let typed = line("--root /host restore /mnt/my.db --scope=etcd --allow cluster-mismatch");
        let both = refusal("other-members-running")
            .with(Fact::Members(vec!["cp-1".to_owned(), "cp-2".to_owned()]));
        assert_eq!(
            of(&typed, "restore", &both).as_deref(),
            Some(
                "stop etcd first, on each of cp-1, cp-2: etcd-dr disable\n\
                 to override the refusal: etcd-dr --root /host restore /mnt/my.db --scope=etcd \
                 --allow cluster-mismatch,other-members-running"
            )
        );
        let unsealed = of(&typed, "restore", &refusal("no-integrity-hash"));
        assert!(unsealed.is_some_and(|hint| hint.starts_with("to find one")));
        let typed = line("--endpoints=https://a:1 verify --cluster --store /s");
        let node = Failure::new(Kind::Usage, "x").with(Fact::Missing("endpoint"));
        assert_eq!(
            of(&typed, "verify", &node).as_deref(),
            Some("set it: etcd-dr --endpoints https://ADDRESS:2379 verify --cluster --store /s")
        );
        let bad = Failure::new(Kind::BadBackup, "x");
        assert_eq!(
            of(&typed, "verify", &bad).as_deref(),
            Some("to find a good backup: etcd-dr --endpoints https://a:1 verify --all --store /s")
        );
    }

    #[test]
    fn a_runtime_that_is_not_found_is_named_where_the_kubelet_names_it() {
        let typed = line("disable");
        let sockets = ["/run/crio/crio.sock", "/run/containerd/containerd.sock"];
        let failure = Failure::new(Kind::Unreachable, "x")
            .with(Fact::Missing("container-runtime"))
            .with(Fact::Candidates(sockets.map(str::to_owned).to_vec()));
        assert_eq!(
            of(&typed, "disable", &failure).as_deref(),
            Some(
                "name the kubelet's socket: set containerRuntimeEndpoint: unix:///PATH in \
                 /var/lib/kubelet/config.yaml  (one of: /run/crio/crio.sock, \
                 /run/containerd/containerd.sock)"
            )
        );
    }

    #[test]
    fn a_refusal_that_nothing_overrides_has_no_override() {
        let typed = line("restore backup-1 --scope control-plane");
        let firm = Failure::refused_for_good("node-mismatch", "x");
        assert_eq!(
            of(&typed, "restore", &firm).as_deref(),
            Some("to restore only etcd's data: etcd-dr restore backup-1 --scope etcd")
        );
    }

    #[test]
    fn words_are_quoted_and_secrets_stay_away() {
        let typed = Line(vec![
            "restore".to_owned(),
            "a b's".to_owned(),
            "s3://key:secret@bucket/x".to_owned(),
        ]);
        assert_eq!(
            typed.to_string(),
            "etcd-dr restore 'a b'\\''s' s3://USER@bucket/x"
        );
    }
}
