//! Manners in a real terminal: wide and narrow windows, colours and none, a locale without UTF-8,
//! a bar that moves and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use testbench::bins::{require, skip};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::binary;
use testbench::terminal::Terminal;

const WIDE: (u16, u16) = (160, 24);
const USUAL: (u16, u16) = (80, 24);
const NARROW: (u16, u16) = (40, 24);
/// Too narrow for any table.
const TINY: (u16, u16) = (28, 24);
const UTF8: (&str, &str) = ("LC_ALL", "C.UTF-8");
const ASCII: (&str, &str) = ("LC_ALL", "C");

/// A store of one backup, at a place that needs no more than a narrow window's line.
struct Store(tempfile::TempDir);

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store/backup-1");
        let to = dir.path().join("backup-1");
        std::fs::create_dir(&to).expect("a set");
        for file in std::fs::read_dir(from).expect("the fixture") {
            let file = file.expect("an entry");
            std::fs::copy(file.path(), to.join(file.file_name())).expect("copying");
        }
        Self(dir)
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.path().display().fmt(f)
    }
}

/// Runs a command in a terminal to its end; what is left on the screen before the end mark.
fn shown(size: (u16, u16), env: &[(&str, &str)], command: &str) -> (Terminal, String) {
    let etcd_dr = binary().display();
    let line = format!("{etcd_dr} {command}; echo \"[exit $?]\"; sleep 100");
    let terminal = Terminal::start(size, env, &["sh", "-c", &line]);
    let screen = terminal.wait("the end", |screen| screen.contains("[exit "));
    (terminal, screen)
}

fn there_is_tmux() -> bool {
    let there = Terminal::is_there();
    if !there {
        skip("there is no tmux");
    }
    there
}

/// What no screen may show, however it is set up.
#[track_caller]
fn is_clean(screen: &str, ascii: bool) {
    for bad in ["panicked", "\u{fffd}", "\u{1b}", "^["] {
        assert!(!screen.contains(bad), "{bad:?} in:\n{screen}");
    }
    assert!(!ascii || screen.is_ascii(), "{screen}");
}

#[test]
fn a_list_is_a_table_where_it_fits_and_blocks_where_it_does_not() {
    if !there_is_tmux() {
        return;
    }
    let store = Store::new();
    let list = format!("list {store}");
    for locale in [UTF8, ASCII] {
        let (_terminal, wide) = shown(WIDE, &[locale], &list);
        assert!(wide.starts_with("BACKUP "), "{wide}");
        is_clean(&wide, true);
        let (_terminal, narrow) = shown(NARROW, &[locale], &list);
        assert!(narrow.starts_with("BACKUP "), "{narrow}");
        let (_terminal, narrow) = shown(TINY, &[locale], &list);
        assert!(narrow.starts_with("backup-1"), "{narrow}");
        assert!(narrow.contains("\n  revision  10\n"), "{narrow}");
        // One line a backup in a window of ordinary width, with what is left out and what `*` means.
        let (_terminal, ordinary) = shown(USUAL, &[locale], &list);
        let lines: Vec<&str> = ordinary.lines().collect();
        assert!(lines[0].starts_with("BACKUP "), "{ordinary}");
        assert!(lines[1].starts_with("backup-1 *"), "{ordinary}");
        assert!(lines[2].starts_with("not shown: "), "{ordinary}");
        assert_eq!(lines[3], "* the newest good backup");
        assert!(narrow.contains("[exit 0]"), "{narrow}");
        is_clean(&narrow, true);
    }
}

#[test]
fn every_command_fits_a_narrow_window() {
    if !there_is_tmux() {
        return;
    }
    let store = Store::new();
    let absent = format!("{store}/none");
    let taken = format!("{store}/taken");
    for (command, status) in [
        (format!("verify --store {store} backup-1"), 0),
        (format!("verify --store {store} backup-9"), 2),
        (format!("list {absent}"), 6),
        ("--help".to_owned(), 0),
        ("restore --help".to_owned(), 0),
        ("backup --if-older-then 1h".to_owned(), 2),
        (
            format!("--profile bare --endpoints http://127.1.9.1:2379 backup {taken}"),
            4,
        ),
    ] {
        for locale in [UTF8, ASCII] {
            let (_terminal, screen) = shown(NARROW, &[locale], &command);
            let joined = screen.replace('\n', "");
            assert!(
                joined.contains(&format!("[exit {status}]")),
                "{command}:\n{screen}"
            );
            is_clean(&screen, true);
        }
    }
    // For each typing mistake, the right word is suggested.
    for (typed, meant) in [
        ("bakcup", "backup"),
        ("verfiy latest", "verify"),
        ("list --stale-afer 1h", "--stale-after"),
        ("restore latest --datadir d", "--data-dir"),
        ("--profile kubeadmn list", "kubeadm"),
    ] {
        let (_terminal, screen) = shown(USUAL, &[UTF8], typed);
        assert!(
            screen.contains("similar") && screen.contains(meant),
            "{typed}:\n{screen}"
        );
        assert!(screen.contains("[exit 2]"), "{screen}");
    }
}

#[test]
fn colours_are_the_terminals_own_and_can_be_turned_off() {
    if !there_is_tmux() {
        return;
    }
    let store = Store::new();
    let verify = format!("verify --store {store} backup-1");
    let painted = |env: &[(&str, &str)], more: &str| {
        let (terminal, _) = shown(USUAL, env, &format!("{verify}{more}"));
        terminal.painted()
    };
    let colour = painted(&[UTF8], "");
    assert!(colour.contains("\u{1b}[32m"), "{colour:?}");
    // Only the 16 colours that every theme defines, and no background: readable on light and dark.
    for set in colour
        .split('\u{1b}')
        .skip(1)
        .filter_map(|rest| rest.split_once('m'))
    {
        let codes = set.0.trim_start_matches('[').split(';');
        for code in codes.filter(|code| !code.is_empty()) {
            let code: u16 = code.parse().expect("a number");
            assert!(
                matches!(code, 0..=9 | 22..=29 | 30..=37 | 39 | 49 | 90..=97),
                "{code}"
            );
            assert!(
                !matches!(code, 30 | 37),
                "black or white text vanishes on some theme"
            );
        }
    }
    for none in [
        painted(&[UTF8, ("NO_COLOR", "1")], ""),
        painted(&[UTF8], " --color never"),
    ] {
        assert!(!none.contains('\u{1b}'), "{none:?}");
    }
    let dumb = painted(&[UTF8, ("TERM", "dumb")], "");
    assert!(
        dumb.contains("backup-1: good") || dumb.contains("good"),
        "{dumb:?}"
    );
}

#[test]
fn the_progress_bar_moves_fits_and_disappears() {
    if !there_is_tmux() {
        return;
    }
    let Some(bins) = require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    Bulk::new(400, 10_000).write(&cluster);
    let scratch = tempfile::tempdir().expect("a folder");
    let etcd_dr = binary().display();
    let endpoint = cluster.client_url(0);
    let runs = [(WIDE, UTF8), (USUAL, UTF8), (NARROW, UTF8), (NARROW, ASCII)];
    for (number, (size, locale)) in runs.into_iter().enumerate() {
        let store = scratch.path().join(number.to_string());
        let line = format!(
            "{etcd_dr} --profile bare --endpoints {endpoint} backup --max-rate 600KB \
             --force {}; echo \"[exit $?]\"; sleep 100",
            store.display()
        );
        let terminal = Terminal::start(size, &[locale], &["sh", "-c", &line]);
        let moving = terminal.wait("a bar that has moved", |screen| {
            screen.contains("[=") && screen.contains("iB/")
        });
        is_clean(&moving, true);
        let bars = moving.lines().filter(|line| line.contains("iB/")).count();
        assert_eq!(bars, 1, "it is drawn over, never below:\n{moving}");
        let line = moving
            .lines()
            .find(|line| line.contains("iB/"))
            .unwrap_or("");
        assert!(line.chars().count() <= size.0.into(), "{line}");
        let after = terminal.wait("the end", |screen| screen.contains("[exit "));
        assert!(after.contains("[exit 0]"), "{after}");
        assert!(!after.contains("[="), "the bar is left behind:\n{after}");
        is_clean(&after, true);
    }
}

#[test]
fn a_passphrase_is_asked_for_once_and_never_shown_and_ctrl_c_gives_the_echo_back() {
    if !there_is_tmux() {
        return;
    }
    let store = Store::new();
    let dir = tempfile::tempdir().expect("a folder");
    let key = dir.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "open sesame", "-C", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("running ssh-keygen").success());
    let share = dir.path().join("share");
    std::fs::create_dir(&share).expect("a folder");
    let (etcd_dr, key) = (binary().display(), key.display());
    // `stty` shows what the next program of this terminal would find.
    let line = format!(
        "trap : INT; {etcd_dr} --progress never copy backup-1 file://{} --store {store} \
         --sign-key {key} --recipients-file {key}.pub; \
         echo \"[exit $?]\"; stty -a | grep -o '.echo\\b'; echo '[end]'; sleep 100",
        share.display()
    );
    let asked = || {
        let terminal = Terminal::start(WIDE, &[UTF8], &["sh", "-c", &line]);
        terminal.wait("the question", |screen| screen.contains("Passphrase of "));
        terminal
    };
    let ended = |terminal: &Terminal, status: i32| {
        let screen = terminal.wait("the end", |screen| screen.contains("[end]"));
        assert!(screen.contains(&format!("[exit {status}]")), "{screen}");
        assert!(screen.contains("\n echo\n"), "the echo is off:\n{screen}");
        assert!(!screen.contains("sesame"), "{screen}");
        assert_eq!(screen.matches("Passphrase of ").count(), 1, "{screen}");
        is_clean(&screen, true);
        screen
    };
    let copies = || std::fs::read_dir(&share).expect("a folder").count();

    let terminal = asked();
    terminal.keys(&["C-c"]);
    let screen = ended(&terminal, 130);
    assert!(
        screen.contains("interrupted: nothing was changed"),
        "{screen}"
    );
    let terminal = asked();
    terminal.keys(&["wrong sesame", "Enter"]);
    let screen = ended(&terminal, 2);
    assert!(
        screen.contains("the passphrase does not fit the key"),
        "{screen}"
    );
    assert_eq!(copies(), 0);

    let terminal = asked();
    terminal.keys(&["open sesame", "Enter"]);
    ended(&terminal, 0);
    // The list of the encrypted objects is signed, and the stock program says so.
    let signature = files_below(&share)
        .into_iter()
        .find(|path| path.extension().is_some_and(|ending| ending == "sig"))
        .expect("a signature");
    let index = std::fs::File::open(signature.with_file_name("remote.json")).expect("the list");
    let checked = Command::new("ssh-keygen")
        .args(["-Y", "check-novalidate", "-n", "etcd-dr", "-s"])
        .arg(&signature)
        .stdin(index)
        .output()
        .expect("running ssh-keygen");
    assert!(checked.status.success(), "{checked:?}");
}

/// Every file below a folder.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder").flatten();
    let each = entries.map(|entry| entry.path());
    each.flat_map(|path| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    })
    .collect()
}
