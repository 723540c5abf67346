//! The pages of README.md and the runbooks are typed, line by line, against real etcd servers whose
//! nodes have stand-ins for kubelet and container runtime; what is shown must be what the pages say.

mod form;
mod members;
mod restoring;
mod stage;
mod typed;

use std::collections::BTreeSet;

use crate::project;

/// The documents whose commands are run.
pub const FILES: [&str; 3] = ["README.md", "docs/runbook.md", "docs/runbook-members.md"];

/// Every section with a command in it is run by a test that names it.
#[test]
fn no_page_is_left_out() {
    let tests = ["members.rs", "restoring.rs"].map(|file| {
        let path = project().join("tests/docs/pages").join(file);
        std::fs::read_to_string(path).expect("a test")
    });
    let mut pages = BTreeSet::new();
    for file in FILES {
        let path = project().join(file);
        let text = std::fs::read_to_string(&path).expect("a document");
        for heading in text.lines().filter_map(|line| line.strip_prefix("## ")) {
            let typed = typed::section(&path, heading);
            if typed.iter().any(|typed| typed.line.starts_with("etcd-dr ")) {
                assert!(
                    tests
                        .iter()
                        .any(|test| test.contains(&format!("\"{heading}\""))),
                    "no test runs {heading:?} of {file}"
                );
                pages.insert(heading.to_owned());
            }
        }
    }
    assert!(pages.len() >= 12, "{pages:?}");
}
