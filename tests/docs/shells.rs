//! The completions in real shells: keys are typed into a terminal, and what stands there is read.

use std::path::Path;
use std::process::Command;

use crate::project;
use testbench::bins::skip;
use testbench::golden::{binary, etcd_dr};
use testbench::process::expect_success;
use testbench::terminal::{Terminal, path_with};

const PROMPT: &str = "READY>";

fn script(name: &str) -> String {
    project()
        .join("completions")
        .join(name)
        .display()
        .to_string()
}

/// A shell with the completions and a configuration, at its prompt; none if there is no such
/// shell.
fn shell(name: &str, config: &str) -> Option<Terminal> {
    if !Terminal::is_there() {
        skip("there is no tmux");
        return None;
    }
    if Command::new(name).args(["-c", "true"]).output().is_err() {
        skip(&format!("there is no {name}"));
        return None;
    }
    let (program, start): (&[&str], String) = match name {
        "bash" => (
            &["bash", "--norc", "--noprofile", "-i"],
            format!("PS1='{PROMPT} '; . '{}'", script("etcd-dr.bash")),
        ),
        "zsh" => (
            &["zsh", "-f", "-i"],
            format!(
                "PS1='{PROMPT} '; fpath=('{}' $fpath); autoload -Uz compinit; compinit -D -u",
                project().join("completions").display()
            ),
        ),
        _ => (
            &["fish", "--no-config", "-i"],
            format!(
                "set -g fish_greeting; function fish_prompt; echo -n '{PROMPT} '; end; source '{}'",
                script("etcd-dr.fish")
            ),
        ),
    };
    let path = path_with(binary());
    let env = [
        ("PATH", path.as_str()),
        ("LC_ALL", "C.UTF-8"),
        ("HOME", "/tmp"),
        ("ETCD_DR_CONFIG", config),
    ];
    let terminal = Terminal::start((120, 40), &env, program);
    // The shell reads its line once it is up; its prompt is ours after that.
    terminal.wait("a prompt", |screen| !screen.trim().is_empty());
    terminal.keys(&["-l", &start]);
    terminal.keys(&["Enter"]);
    terminal.wait("our prompt", |screen| at_prompt(screen).is_some());
    Some(terminal)
}

/// What stands behind the last prompt.
fn at_prompt(screen: &str) -> Option<&str> {
    let line = screen.lines().rfind(|line| line.starts_with(PROMPT))?;
    Some(line[PROMPT.len()..].trim())
}

fn store() -> String {
    project().join("fixtures/store").display().to_string()
}

/// Types the beginning of a line and the tabulator, and waits until it is completed.
#[track_caller]
fn completes(terminal: &Terminal, typed: &str, line: &str) {
    terminal.keys(&["C-u"]);
    terminal.keys(&["-l", typed]);
    terminal.keys(&["Tab"]);
    terminal.wait(line, |screen| at_prompt(screen) == Some(line));
    terminal.keys(&["C-u"]);
}

fn drive(name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "store = \"/nowhere/the-backups\"\n").expect("a file");
    let Some(terminal) = shell(name, config.to_str().expect("UTF-8")) else {
        return;
    };
    let store = store();
    completes(&terminal, "etcd-dr ver", "etcd-dr verify");
    completes(
        &terminal,
        "etcd-dr backup --if",
        "etcd-dr backup --if-older-than",
    );
    completes(
        &terminal,
        "etcd-dr --profile kub",
        "etcd-dr --profile kubeadm",
    );
    let verify = format!("etcd-dr verify --store {store}");
    completes(
        &terminal,
        &format!("{verify} b"),
        &format!("{verify} backup-1"),
    );
    completes(
        &terminal,
        &format!("{verify} lat"),
        &format!("{verify} latest"),
    );
    // The store by its name, and one of its sets.
    completes(
        &terminal,
        "etcd-dr list /nowh",
        "etcd-dr list /nowhere/the-backups",
    );
    let restore = format!("etcd-dr restore --store {store}");
    completes(
        &terminal,
        &format!("{restore} b"),
        &format!("{restore} backup-1"),
    );
}

#[test]
fn bash_completes_sets_options_and_commands() {
    drive("bash");
}

#[test]
fn zsh_completes_sets_options_and_commands() {
    drive("zsh");
}

#[test]
fn fish_completes_sets_options_and_commands() {
    drive("fish");
}

/// What is offered for the last word of a line, as bash asks for it.
fn offered(words: &[&str], env: &[(&str, &Path)]) -> Vec<String> {
    let output = etcd_dr()
        .env("_ETCD_DR_COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
        .envs(env.iter().copied())
        .arg("--")
        .args(words)
        .output()
        .expect("running etcd-dr");
    let said = expect_success("etcd-dr", &output);
    assert!(output.stderr.is_empty(), "{output:?}");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn sets_and_stores_come_from_where_the_command_would_look() {
    let root = tempfile::tempdir().expect("a root");
    let own = root.path().join("etc/kubernetes/static-pod-backups");
    std::fs::create_dir_all(own.join("backup-77")).expect("a set, of a kind");
    let other = root.path().join("other");
    std::fs::create_dir_all(other.join("backup-5")).expect("a set, of a kind");
    let etc = root.path().join("etc/etcd-dr");
    std::fs::create_dir_all(&etc).expect("a folder");
    let at = root.path().to_str().expect("UTF-8");
    let sets = |line: &[&str], env: &[(&str, &Path)]| offered(&[line, &["b"]].concat(), env);

    assert_eq!(
        sets(&["etcd-dr", "--root", at, "verify"], &[]),
        ["backup-77"]
    );
    assert_eq!(
        sets(&["etcd-dr", "verify"], &[("ETCD_DR_ROOT", root.path())]),
        ["backup-77"]
    );
    let configured = format!("store = {:?}\n", other.to_str().expect("UTF-8"));
    std::fs::write(etc.join("config.toml"), configured).expect("a file");
    let root_option = format!("--root={at}");
    assert_eq!(
        sets(&["etcd-dr", &root_option, "verify"], &[]),
        ["backup-5"]
    );
    let by_variable = [("ETCD_DR_STORE", own.as_path())];
    assert_eq!(
        sets(&["etcd-dr", &root_option, "verify"], &by_variable),
        ["backup-77"]
    );
    // The stores that have a name somewhere.
    let stores = offered(&["etcd-dr", &root_option, "list", "/"], &[]);
    assert_eq!(
        stores,
        [other.to_str().expect("UTF-8"), own.to_str().expect("UTF-8")]
    );
    // Paths, if nothing is known by such a name; and nothing at all rather than an error.
    let path = format!("{at}/oth");
    let paths = offered(&["etcd-dr", "verify", &path], &[]);
    assert_eq!(paths, [format!("{at}/other/")]);
    std::fs::write(etc.join("config.toml"), "no = toml = at all").expect("a file");
    assert_eq!(
        sets(&["etcd-dr", &root_option, "verify"], &[]),
        ["backup-77"]
    );
    assert_eq!(offered(&["etcd-dr", "man", "ver"], &[]), ["verify"]);
}

#[test]
fn names_to_allow_members_and_urls_are_known_offline() {
    let allow = |line: &[&str], typed: &str| offered(&[line, &["--allow", typed]].concat(), &[]);
    let checks = allow(&["etcd-dr", "backup"], "etcd-");
    assert_eq!(
        checks,
        ["etcd-unhealthy-member", "etcd-alarm", "etcd-no-leader"],
        "the checks of a backup"
    );
    assert_eq!(
        allow(&["etcd-dr", "restore", "latest"], "cluster-m"),
        ["cluster-mismatch"]
    );
    assert_eq!(
        allow(&["etcd-dr", "member-add", "m3"], "certificates-"),
        ["certificates-invalid"]
    );
    assert_eq!(
        allow(&["etcd-dr", "member-remove", "m3"], "would-"),
        ["would-lose-quorum"]
    );

    let root = tempfile::tempdir().expect("a root");
    let etc = root.path().join("etc/etcd-dr");
    std::fs::create_dir_all(&etc).expect("a folder");
    let text = format!(
        "store = {:?}\nendpoints = [\"https://10.9.9.9:2379\"]\n[copy]\nto = [\"s3://bucket/etcd\"]\n",
        store()
    );
    std::fs::write(etc.join("config.toml"), text).expect("a file");
    let at = format!("--root={}", root.path().display());
    let newest = std::fs::read(format!("{}/backup-1/backup.json", store())).expect("a Manifest");
    let newest: serde_json::Value = serde_json::from_slice(&newest).expect("JSON");
    let name = newest["member"]["name"].as_str().expect("a name");
    let endpoint = newest["member"]["endpoint"].as_str().expect("an endpoint");
    for command in ["member-remove", "member-update"] {
        let members = offered(&["etcd-dr", &at, command, ""], &[]);
        assert!(members.contains(&name.to_owned()), "{command}: {members:?}");
    }
    let urls = offered(&["etcd-dr", &at, "--endpoints", "h"], &[]);
    assert!(
        urls.contains(&"https://10.9.9.9:2379".to_owned()),
        "{urls:?}"
    );
    assert!(urls.contains(&endpoint.to_owned()), "{urls:?}");
    let copies = offered(&["etcd-dr", &at, "backup", "--copy-to", "s"], &[]);
    assert_eq!(copies, ["s3://bucket/etcd"]);
    assert_eq!(
        offered(&["etcd-dr", &at, "copy", "latest", "s"], &[]),
        ["s3://bucket/etcd"]
    );
}
