//! The manual pages, made of the command tree: one a command, and an overview.

use clap::CommandFactory;

use super::args::Cli;
use super::config;
use crate::error::{Doing, Fact, Failure, Kind, Result, exit};

/// What each exit status says, in the overview.
const STATUSES: [(u8, &str); 14] = [
    (exit::DONE, "Done."),
    (
        exit::UNEXPECTED,
        "Unexpected failure; nothing is known to have changed.",
    ),
    (exit::USAGE, "Usage or configuration."),
    (
        exit::BAD_BACKUP,
        "The backup is bad: verify found a problem, or restore refused it.",
    ),
    (
        exit::UNREACHABLE,
        "etcd or the container runtime cannot be reached.",
    ),
    (
        exit::REFUSED,
        "Refused: a precondition does not hold; nothing changed.",
    ),
    (
        exit::STORE,
        "The store is unavailable or full; nothing half-written counts as a backup.",
    ),
    (
        exit::BUSY,
        "Busy: the store or the node is locked by another run, or an operation that changes the node \
         (restore, disable, member-add --join) is unfinished and waits for the command that the message names.",
    ),
    (
        exit::ROLLED_BACK,
        "Failed, and rolled back: node and cluster are as before.",
    ),
    (
        exit::ROLLBACK_FAILED,
        "Failed, and the roll-back could not finish; the message names the next command.",
    ),
    (
        exit::PARTIAL,
        "Done in part: the backup is good but a later step failed, or a prune deleted some backups and then failed.",
    ),
    (
        exit::DIFFERS,
        "Checked: stale, the live cluster differs, a disk may lack writes, or the cluster has a problem.",
    ),
    (exit::NOT_CHECKED, "Could not check."),
    (
        exit::INTERRUPTED,
        "Interrupted by a signal: nothing changed, or rolled back.",
    ),
];

/// The places that matter, in the overview.
const FILES: [(&str, &str); 7] = [
    (config::DEFAULT_PATH, "The configuration; may be absent."),
    ("/etc/kubernetes/static-pod-backups/", "The default store."),
    (
        "backup-N/",
        "A backup: etcd's snapshot, the archives of static-pod resources and certificates, \
         backup.env, SHA256SUMS. It counts as a backup if, and only if, it contains backup.json.",
    ),
    ("latest-backup", "A symbolic link to the latest backup."),
    (
        ".staging-N/",
        "A backup in progress; the next run removes the leftovers of an interrupted one.",
    ),
    (
        "/var/lib/etcd-dr/",
        "Operations that change this node keep their journals here, and the data that they replaced.",
    ),
    (
        "/etc/kubernetes/.etcd-dr/",
        "The manifests and revisions that were replaced, until --commit.",
    ),
];

/// The manual page of a command, or the overview.
///
/// # Errors
/// [`Kind::Usage`] with [`Fact::Candidates`] if there is no such command.
pub(super) fn page(command: Option<&str>) -> Result<Vec<u8>> {
    let mut tree = Cli::command().disable_help_subcommand(true);
    tree.build();
    let names: Vec<String> = tree
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    let (page, title) = match command {
        None => (tree, "etcd-dr".to_owned()),
        Some(name) => match tree.find_subcommand(name) {
            Some(found) => {
                let title = format!("etcd-dr-{name}");
                (found.clone().name(title.clone().leak() as &str), title)
            }
            None => {
                return Err(
                    Failure::new(Kind::Usage, format!("unknown command {name:?}"))
                        .with(Fact::Candidates(names)),
                );
            }
        },
    };
    let mut bytes = Vec::new();
    clap_mangen::Man::new(page)
        .source(concat!("etcd-dr ", env!("CARGO_PKG_VERSION")))
        .manual("etcd-dr")
        .render(&mut bytes)
        .doing(Kind::Unexpected, || "writing the manual page")?;
    let text = String::from_utf8(bytes).doing(Kind::Unexpected, || "writing the manual page")?;
    let (before, examples) = parts(&text);
    let mut page = before.to_owned();
    match command {
        None => {
            let statuses = STATUSES.map(|(status, says)| (status.to_string(), says));
            page.push_str(&described("EXIT STATUS", &statuses));
            page.push_str(&described("FILES", &FILES));
        }
        Some(_) => page.push_str(".SH \"EXIT STATUS\"\nAs\n.BR etcd\\-dr (1)\nlists them.\n"),
    }
    page.push_str(&examples);
    page.push_str(&see_also(&title, &names));
    Ok(page.into_bytes())
}

/// A page before what follows the options, and the examples out of that. They keep their lines,
/// which roff would fill like prose; what is not an example has its own section.
fn parts(page: &str) -> (&str, String) {
    let Some((before, after)) = page.split_once(".SH EXTRA\n") else {
        let before = page.split_once(".SH VERSION\n").map_or(page, |(b, _)| b);
        return (before, String::new());
    };
    let examples: String = after
        .lines()
        .skip_while(|line| *line != "Examples:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .map(str::trim_start)
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}\n"),
            false => format!("{line}\n"),
        })
        .collect();
    if examples.is_empty() {
        return (before, String::new());
    }
    let examples = format!(".SH EXAMPLES\n.nf\n.in -4n\n{examples}.in\n.fi\n");
    (before, examples)
}

fn described(heading: &str, entries: &[(impl AsRef<str>, &str)]) -> String {
    let mut section = format!(".SH \"{heading}\"\n");
    for (name, says) in entries {
        let (name, says) = (roff(name.as_ref()), roff(says));
        section.push_str(&format!(".TP\n\\fB{name}\\fR\n{says}\n"));
    }
    section
}

fn see_also(title: &str, names: &[String]) -> String {
    let pages = std::iter::once("etcd-dr".to_owned())
        .chain(names.iter().map(|name| format!("etcd-dr-{name}")))
        .filter(|page| page != title);
    let pages: Vec<String> = pages
        .map(|page| format!(".BR {} (1)", roff(&page)))
        .collect();
    format!(".SH \"SEE ALSO\"\n{}\n", pages.join(",\n"))
}

/// Text as roff takes it: no hyphenation of option names, and no line that reads as a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_has_every_status_and_section() {
        let text = String::from_utf8(page(None).unwrap()).unwrap();
        for (status, _) in STATUSES {
            assert!(
                text.contains(&format!(".TP\n\\fB{status}\\fR\n")),
                "{status}"
            );
        }
        for heading in [
            "NAME",
            "SYNOPSIS",
            "\"EXIT STATUS\"",
            "FILES",
            "EXAMPLES",
            "\"SEE ALSO\"",
        ] {
            let quoted = format!(".SH \"{heading}\"\n");
            let plain = format!(".SH {heading}\n");
            assert!(text.contains(&plain) || text.contains(&quoted), "{heading}");
        }
        assert!(!text.contains("EXTRA"), "{text}");
    }

    #[test]
    fn lines_that_roff_would_obey() {
        assert_eq!(roff(".staging-N"), "\\&.staging\\-N");
        assert_eq!(roff("a\\b"), "a\\eb");
    }
}
