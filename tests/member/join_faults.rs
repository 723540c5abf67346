//! A kill, an error and a full disk at the calls of `member-add --join` that change a disk.
//!
//! The rollback is tested on a node whose etcd does not run for this, so that nothing else writes: it
//! must be what it was, byte for byte, and the list of members too. Resuming is tested with a real
//! etcd, up to the vote and equal data; then the member is removed and the join rolled back, so that
//! the next one begins where this one did.
//!
//! A run of the whole suite takes a sample of the calls; `ETCD_DR_EVERY=1` takes each one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;

use etcd_dr::sys::tree::Node as TreeNode;
use serde_json::Value;

use crate::join::{LOST, Lost, assert_same};
use crate::{listed, member};
use testbench::bins::require;
use testbench::campaign::{calls, counted, killed, status};
use testbench::node::NodeOptions;

/// Calls of a sample: where nothing starts, and where the member must come to its vote each time.
const SAMPLE: u64 = 12;
const SLOW_SAMPLE: u64 = 6;

struct Template {
    lost: Lost,
    files: BTreeMap<PathBuf, TreeNode>,
    members: Vec<(String, String, bool)>,
}

impl Template {
    fn new(joins: bool) -> Option<Self> {
        let lost = Lost::new(&require("3.5")?, &NodeOptions::default(), joins);
        let (files, members) = (lost.files(), listed(&lost.cluster));
        Some(Self {
            lost,
            files,
            members,
        })
    }

    fn run(&self, args: &[&str], seam: Option<String>) -> Output {
        let mut command = self.lost.command(&["member-add", "--join"]);
        command.args(args);
        if let Some(seam) = seam {
            command.env("ETCD_DR_SEAM", seam);
        }
        command.output().expect("running etcd-dr")
    }

    /// The state of the operation that is not settled, if there is one.
    fn state(&self) -> Option<String> {
        let output = self.run(&["--status", "-o", "json"], None);
        if output.status.code() == Some(2) {
            return None;
        }
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        Some(status["state"].as_str().expect("a state").to_owned())
    }

    /// Rolls back if there is something to roll back.
    fn back(&self, when: &str) -> bool {
        let open = matches!(self.state().as_deref(), Some("running" | "rolling-back"));
        if open {
            let (code, told) = status(&self.run(&["--rollback"], None));
            assert_eq!(code, Some(0), "{when}: {told}");
        }
        open
    }

    #[track_caller]
    fn assert_before(&self, when: &str) {
        assert_same(&self.files, &self.lost.files());
        assert_eq!(listed(&self.lost.cluster), self.members, "{when}");
    }
}

#[test]
fn a_join_killed_or_failed_at_any_call_rolls_back() {
    let Some(template) = Template::new(false) else {
        return;
    };
    // The kubelet sees no manifest: what it starts would write.
    template.lost.bench.faults(|faults| faults.blind = true);
    template.lost.bench.settle();
    let short = ["--yes", "--wait", "2s"];
    let scratch = template.lost.cluster.scratch();
    // The first makes folders that stay.
    template.run(&short, None);
    let (all, output) = counted(&scratch, |seam| template.run(&short, Some(seam)));
    let (code, told) = status(&output);
    // Nothing starts: it comes as far as the wait for the vote, and is rolled back completely.
    assert_eq!(code, Some(8), "{told}");
    template.assert_before("undisturbed");
    assert!(all > 60, "{all} calls");

    let chosen = calls(1, all, SAMPLE);
    let mut backs = 0;
    for call in &chosen {
        let output = template.run(&short, Some(format!("kill:{call}")));
        assert!(killed(&output), "call {call}: {output:?}");
        let when = format!("killed at call {call}");
        backs += usize::from(template.back(&when));
        template.assert_before(&when);
    }
    println!(
        "join: {all} changing calls there and back, {} kills, {backs} taken back",
        chosen.len()
    );
    for (kind, errno) in [("fail", ":5"), ("full", "")] {
        let chosen = calls(1, all, SAMPLE);
        for call in &chosen {
            let output = template.run(&short, Some(format!("{kind}:{call}{errno}")));
            let (code, told) = status(&output);
            let when = format!("{kind} at call {call}: {code:?} {told}");
            match code {
                // Before the journal, and after it.
                Some(6 | 8) => {}
                // The rollback met the same disk.
                Some(9) => assert!(told.contains("member-add --join --rollback"), "{when}"),
                _ => panic!("{when}"),
            }
            template.back(&when);
            template.assert_before(&when);
        }
        println!("join: {kind} at {} calls", chosen.len());
    }
}

#[test]
fn a_join_killed_at_any_call_resumes() {
    let Some(mut template) = Template::new(true) else {
        return;
    };
    let wait = ["--yes", "--wait", "90s"];
    let scratch = template.lost.cluster.scratch();
    template.run(&wait, None);
    reset(&mut template, "once");
    let (all, output) = counted(&scratch, |seam| template.run(&wait, Some(seam)));
    let (code, told) = status(&output);
    assert_eq!(code, Some(0), "{told}");
    reset(&mut template, "undisturbed");
    let chosen = calls(1, all, SLOW_SAMPLE);
    let mut resumed = 0;
    for call in &chosen {
        let when = format!("killed at call {call}");
        let output = template.run(&wait, Some(format!("kill:{call}")));
        assert!(killed(&output), "{when}: {output:?}");
        match template.state().as_deref() {
            Some("running") => {
                let (code, told) = status(&template.run(&["--resume"], None));
                assert_eq!(code, Some(0), "{when}: {told}");
                resumed += 1;
            }
            // The last record was written whole.
            Some("completed") => {}
            // Killed before the journal was there: it begins again.
            _ => {
                let (code, told) = status(&template.run(&wait, None));
                assert_eq!(code, Some(0), "{when}: {told}");
            }
        }
        reset(&mut template, &when);
    }
    println!(
        "join: {all} changing calls to the vote, {} kills, {resumed} used for recovery",
        chosen.len()
    );
}

/// The member votes, with the others' data; it is removed, and its node has what it had.
fn reset(template: &mut Template, when: &str) {
    template.lost.assert_joined();
    let name = template.lost.cluster.name(LOST).to_owned();
    member(
        &template.lost.cluster,
        &["member-remove", &name, "--yes", "-o", "json"],
    )
    .expect(0);
    for settle in ["--rollback", "--commit"] {
        let (code, told) = status(&template.run(&[settle, "--yes"], None));
        assert_eq!(code, Some(0), "{when}, {settle}: {told}");
    }
    // Its etcd tries to start again: it makes its folders, and `.touch` to see whether it may write.
    let moving = ["member", ".touch"];
    let data = template.lost.root.join("var/lib/etcd");
    let mut before = template.files.clone();
    before.retain(|path, _| !moving.iter().any(|name| path.starts_with(data.join(name))));
    assert_same(&before, &template.lost.files_but(&moving));
}
