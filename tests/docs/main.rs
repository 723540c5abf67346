//! The manual pages and completions that are shipped are those of this very command line, and the
//! programs that read them have nothing to complain of.

#[path = "../restore/node.rs"]
#[allow(dead_code)]
mod node;

mod links;
mod pages;
mod promise;
mod schemas;
mod shells;
mod style;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use etcd_dr::cli::args::Cli;
use testbench::bins::skip;
use testbench::golden::{binary, etcd_dr};
use testbench::process::expect_success;

const FOLDERS: [&str; 2] = ["man", "completions"];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the shipped folders below a place, with its content.
fn shipped(at: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        let entries = std::fs::read_dir(at.join(folder)).expect("a folder: make docs writes it");
        for entry in entries {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("a text file");
            let name = path.strip_prefix(at).expect("below it").to_owned();
            files.insert(name, text);
        }
    }
    files
}

#[test]
fn committed_man_pages_and_completions_are_up_to_date() {
    let fresh = tempfile::tempdir().expect("a folder");
    let output = Command::new(project().join("scripts/generate-docs.sh"))
        .arg(fresh.path())
        .env("ETCD_DR", binary())
        .output()
        .expect("running scripts/generate-docs.sh");
    expect_success("scripts/generate-docs.sh", &output);
    let (committed, generated) = (shipped(project()), shipped(fresh.path()));
    let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated), "run make docs");
    for (name, text) in &generated {
        assert!(
            &committed[name] == text,
            "{} has drifted: run make docs",
            name.display()
        );
    }
}

#[test]
fn every_command_and_option_has_its_place() {
    let mut tree = Cli::command();
    tree.build();
    let files = shipped(project());
    let overview = &files[Path::new("man/etcd-dr.1")];
    for command in tree
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        let name = command.get_name();
        let page = &files[&PathBuf::from(format!("man/etcd-dr-{name}.1"))];
        assert!(
            overview.contains(&format!("etcd\\-dr\\-{}(1)", name.replace('-', "\\-"))),
            "{name}"
        );
        for option in command
            .get_arguments()
            .filter_map(|argument| argument.get_long())
        {
            let roff = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&roff), "{name}: no --{option} in its page");
        }
    }
}

#[test]
fn man_reads_the_pages_without_a_warning() {
    for name in shipped(project())
        .keys()
        .filter(|name| name.starts_with("man"))
    {
        let output = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l"])
            .arg(project().join(name))
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8")
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) => return skip(&format!("there is no man: {error}")),
        };
        let (said, warned) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        // A stub that minimal images put in man's place.
        if said.contains("has been minimized") {
            return skip("man is a stub on this machine");
        }
        assert!(output.status.success(), "{}: {warned}", name.display());
        assert_eq!(warned, "", "{}", name.display());
        assert!(said.contains("SYNOPSIS"), "{}: {said}", name.display());
        let wide = said.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{}", name.display());
    }
}

#[test]
fn an_unknown_man_page_is_an_error() {
    let output = etcd_dr()
        .args(["man", "nothing"])
        .output()
        .expect("running etcd-dr");
    assert_eq!(output.status.code(), Some(2));
}
