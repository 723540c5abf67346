//! What a loss of power leaves of a restore and of its rollback.
//!
//! All changing calls of both are recorded on a node whose etcd does not run, and replayed on a
//! disk in memory that forgets what was not fsynced. What a crash can leave is laid out as a
//! scratch node, where the program rolls back, or resumes and then rolls back. A run of the suite takes a
//! sample of the states and says how many; with `ETCD_DR_EVERY=1` it takes each one, with `K/N` a share.

mod judge;

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

use self::judge::{Judge, Way, is_journal, outline};
use super::disk_faults::Template;
use super::node::assert_same;
use testbench::campaign::{share, shared, status};
use testbench::replay::{self, Call, Disk, Dressed, Entry, Loss, Replay};

/// What is recorded of the node.
const BELOW: [&str; 3] = ["etc/kubernetes", "var/lib/etcd", STATE];
/// But the store.
const STORE: &str = "static-pod-backups";
/// Where the journals are.
const STATE: &str = "var/lib/etcd-dr";
/// A restore that comes as far as the wait for etcd's pod and stays there.
const SHORT: [&str; 3] = ["--wait", "3s", "--keep-failed"];
/// How many states a sample has.
const SAMPLE: usize = 40;

/// A recording, and what it is replayed on.
struct Recording {
    root: PathBuf,
    start: Disk,
    calls: Vec<Call>,
    replay: Replay,
}

/// One record of a journal, and the call that writes it.
struct Written {
    call: usize,
    record: String,
    step: Option<usize>,
    bytes: usize,
}

impl Recording {
    fn of(template: &Template, run: impl FnOnce(String)) -> Self {
        let start = Disk::load_dressed(&template.node.root, &BELOW, STORE);
        let file = template.node.cluster.scratch().join("recording");
        run(format!("record:{}", file.display()));
        Self::new(&template.node.root, start, replay::read(&file))
    }

    fn new(root: &Path, start: Disk, calls: Vec<Call>) -> Self {
        Self {
            root: root.to_owned(),
            replay: Replay::new(start.clone(), &calls),
            start,
            calls,
        }
    }

    /// The process dies after the first `count` calls, the machine continues: what the next process
    /// does, behind what was not synced when the first one died.
    fn and_then(&self, count: usize, judge: &Judge, args: &[&str]) -> Self {
        let dir = judge.lay_out(&self.replay.dressed(count, &Loss::default()));
        let file = dir.path().join("recording");
        let mut command = judge.command(dir.path(), args);
        command.env("ETCD_DR_SEAM", format!("record:{}", file.display()));
        let output = command.output().expect("running etcd-dr");
        let (code, told) = status(&output);
        assert!(matches!(code, Some(0 | 7)), "after call {count}: {told}");
        let text = std::fs::read_to_string(&file).expect("a recording");
        let here = dir.path().to_string_lossy().into_owned();
        std::fs::write(&file, text.replace(&here, &self.root.to_string_lossy())).expect("a file");
        let mut calls = self.calls.get(..count).expect("calls").to_vec();
        calls.extend(replay::read(&file));
        Self::new(&self.root, self.start.clone(), calls)
    }

    /// The journal's records, in order.
    fn records(&self) -> Vec<Written> {
        let mut all = Vec::new();
        for (call, what) in self.calls.iter().enumerate() {
            let Call::Write { path, data, .. } = what else {
                continue;
            };
            if path.file_name().is_none_or(|name| name != "journal") {
                continue;
            }
            let bytes = hex::decode(data).expect("hexadecimal digits");
            if bytes.iter().all(|byte| *byte == 0) {
                // An incomplete record is being overwritten.
                continue;
            }
            let json: serde_json::Value =
                serde_json::from_slice(bytes.get(9..).expect("a line")).expect("a record");
            all.push(Written {
                call,
                record: json["record"].as_str().expect("a word").to_owned(),
                step: json["step"].as_u64().and_then(|step| step.try_into().ok()),
                bytes: bytes.len(),
            });
        }
        all
    }

    /// The steps' names, as the plan has them.
    fn steps(&self) -> Vec<String> {
        let plan = self.calls.iter().find_map(|call| match call {
            Call::Write { path, data, .. } if path.ends_with(".journal.new") => {
                Some(hex::decode(data).expect("hexadecimal digits"))
            }
            _ => None,
        });
        let plan = plan.expect("a plan");
        let plan: serde_json::Value =
            serde_json::from_slice(plan.get(9..).expect("a line")).expect("a record");
        let steps = plan["steps"].as_array().expect("steps");
        let name = |step: &serde_json::Value| step["step"].as_str().expect("a name").to_owned();
        steps.iter().map(name).collect()
    }

    /// The states that crashes leave, each once: how many, and this process's share of them or a sample.
    fn states(&self, sample: usize) -> (usize, Vec<(String, Dressed)>) {
        let mut known = HashSet::new();
        let mut states = Vec::new();
        let mut turn = 0;
        for count in 0..=self.calls.len() {
            let losses = self.replay.losses(count, None);
            let chosen: Vec<&Loss> = if share().is_some() {
                losses.iter().collect()
            } else {
                // All that is pending lost, and one other kind in turn.
                turn += 1;
                losses
                    .get(1)
                    .into_iter()
                    .chain(losses.get(turn * 7 % losses.len()))
                    .collect()
            };
            for loss in chosen {
                let state = self.replay.dressed(count, loss);
                if known.insert(fingerprint(&state)) {
                    let when = format!(
                        "power lost after call {count} of {}, {:?}, with {loss:?}",
                        self.calls.len(),
                        count
                            .checked_sub(1)
                            .and_then(|last| self.calls.get(last))
                            .map(short)
                    );
                    states.push((when, state));
                }
            }
        }
        (states.len(), shared(states, sample))
    }
}

/// A call without the bytes that it writes.
fn short(call: &Call) -> String {
    let mut text = format!("{call:?}");
    text.truncate(240);
    text
}

fn fingerprint((tree, dressed): &Dressed) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (path, entry) in tree {
        path.hash(&mut hasher);
        match entry {
            Entry::Dir => 0.hash(&mut hasher),
            Entry::File(content) => (content.len(), crc32c::crc32c(content)).hash(&mut hasher),
            Entry::Link(target) => target.hash(&mut hasher),
        }
    }
    dressed.hash(&mut hasher);
    hasher.finish()
}

/// The old data as small as it can be: the log's room is given back, so that a disk in memory is.
fn shrink(seed: &Path) {
    let wal = seed.join("var/lib/etcd/member/wal");
    for entry in std::fs::read_dir(wal).expect("the log") {
        let path = entry.expect("an entry").path();
        let mut bytes = Vec::new();
        let mut file = std::fs::File::open(&path).expect("a segment");
        file.read_to_end(&mut bytes).expect("a segment");
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let file = std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("a segment");
        file.set_len(used.next_multiple_of(4096) as u64)
            .expect("a segment");
    }
}

/// Records a restore up to the wait for etcd's pod, and its rollback.
fn record(template: &mut Template) -> (Judge, Recording, Recording) {
    // The kubelet sees no manifest from here on: what it starts would write.
    template.node.bench.faults(|faults| faults.blind = true);
    shrink(&template.seed);
    template.fresh();
    template.before = template.node.tree();
    let forth = Recording::of(template, |seam| {
        let (code, told) = status(&template.restore(Some(seam), &SHORT));
        assert_eq!(code, Some(7), "{told}");
        assert!(told.contains("for etcd's pod to start"), "{told}");
    });
    let half = outline(template.node.tree());
    let back = Recording::of(template, |seam| {
        let (code, told) = status(&template.run(&["restore", "--rollback"], Some(seam)));
        assert_eq!(code, Some(0), "{told}");
    });
    assert_same(&template.before, &template.node.tree(), "rolled back");
    let judge = Judge {
        name: template.node.cluster.name(0).to_owned(),
        socket: template.node.bench.socket(),
        before: template.before.clone(),
        half,
    };
    (judge, forth, back)
}

/// What a record confirms is on the disk before the record is written.
fn confirmed(
    recording: &Recording,
    dropped: Option<usize>,
) -> Result<(), (usize, BTreeSet<usize>)> {
    let confirms = ["done", "undone", "rolled-back", "completed"];
    let from = dropped.unwrap_or(0);
    for written in recording.records() {
        if written.call < from || !confirms.contains(&written.record.as_str()) {
            continue;
        }
        let mut pending = recording.replay.pending(written.call, dropped);
        pending.retain(|&call| !recording.is_record(call));
        if !pending.is_empty() {
            // What is below a directory that is gone does not matter.
            let of = |loss: &Loss| fingerprint(&recording.replay.dressed(written.call, loss));
            let whole = of(&Loss::default());
            pending.retain(|&call| of(&Loss::of(BTreeSet::from([call]))) != whole);
        }
        if !pending.is_empty() {
            return Err((written.call, pending));
        }
        if dropped.is_some() {
            break;
        }
    }
    Ok(())
}

impl Recording {
    fn is_record(&self, call: usize) -> bool {
        matches!(self.calls.get(call), Some(Call::Write { path, .. }) if path.ends_with("journal"))
    }
}

#[test]
fn after_every_legal_loss_of_power_a_restore_rolls_back() {
    every_legal_loss("a restore, rolled back", false, Way::Back, SAMPLE);
}

#[test]
fn after_every_legal_loss_of_power_a_restore_resumes() {
    every_legal_loss(
        "a restore, resumed and rolled back",
        false,
        Way::OnAndBack,
        SAMPLE / 2,
    );
}

#[test]
fn after_every_legal_loss_of_power_a_rollback_continues() {
    every_legal_loss("a rollback, continued", true, Way::Back, SAMPLE);
}

fn every_legal_loss(name: &str, returning: bool, way: Way, sample: usize) {
    let Some(mut template) = Template::make() else {
        return;
    };
    let (judge, forth, back) = record(&mut template);
    let recording = if returning { &back } else { &forth };
    let (all, states) = recording.states(sample);
    println!(
        "{name}: {} calls, {all} states counted, {} tried",
        recording.calls.len(),
        states.len()
    );
    judge.judge_all(&states, way);
}

#[test]
fn what_a_record_confirms_is_on_the_disk_and_each_fsync_is_needed() {
    let Some(mut template) = Template::make() else {
        return;
    };
    let (judge, forth, back) = record(&mut template);
    all_confirmed(&forth, "restore");
    all_confirmed(&back, "rollback");
    // A process that is killed leaves renames that nobody synced to the one that comes after it.
    let first = forth
        .calls
        .iter()
        .position(|call| forth.begins(call))
        .expect("a journal")
        + 3;
    let (mut there, mut returned) = (0, 0);
    for (recording, from, args) in [
        (&forth, first, &["restore", "--resume", "--keep-failed"][..]),
        (&forth, first, &["restore", "--rollback"][..]),
        (&back, 2, &["restore", "--rollback"][..]),
    ] {
        let all: Vec<usize> = (from..recording.calls.len())
            .filter(|&count| recording.replay.changes(count - 1) && !recording.is_record(count - 1))
            .collect();
        for count in shared(all, 8) {
            let both = recording.and_then(count, &judge, args);
            all_confirmed(&both, &format!("killed after call {count}, then {args:?}"));
            match args.len() {
                3 => there += 1,
                _ => returned += 1,
            }
        }
    }
    println!(
        "what the records confirm is on the disk, kills counted: {there} resumed, {returned} rolled back"
    );
    drop_each(&judge, &forth, "restore", &[Way::Back, Way::OnAndBack]);
    drop_each(&judge, &back, "rollback", &[Way::Back]);
}

fn all_confirmed(recording: &Recording, name: &str) {
    if let Err((record, pending)) = confirmed(recording, None) {
        let told: Vec<String> = pending
            .iter()
            .filter_map(|call| recording.calls.get(*call).map(short))
            .collect();
        panic!(
            "{name}: before the record of call {record} these are not synced:\n{}",
            told.join("\n")
        );
    }
}

/// Takes each fsync away in turn. What a record confirms must then be missing, or a crash between
/// the fsync and the next one of the same file or directory must do harm; what neither notices is
/// repeated within its step, or only bears witness.
fn drop_each(judge: &Judge, recording: &Recording, name: &str, ways: &[Way]) {
    // What comes before the journal tells only that the set was found good.
    let begun = recording.begun();
    let syncs: Vec<usize> = (begun..recording.calls.len())
        .filter(|&call| recording.replay.next_sync(call).is_some())
        .collect();
    let rest: Vec<usize> = syncs
        .iter()
        .copied()
        .filter(|&dropped| confirmed(recording, Some(dropped)).is_ok())
        .collect();
    let (missed, others) = (syncs.len() - rest.len(), rest.len());
    let chosen = shared(rest, 12);
    let (mut harmful, mut spare) = (0, Vec::new());
    for &dropped in &chosen {
        let noticed = ways.iter().any(|way| {
            judge
                .first_wrong(&recording.without(dropped), *way)
                .is_some()
        });
        match noticed {
            true => harmful += 1,
            false => spare.push(dropped),
        }
    }
    println!(
        "{name}: {} fsyncs taken away, {missed} missed by what a record confirms; of {others} others counted, {} tried, {harmful} missed by a crash in between, {} spare",
        syncs.len(),
        chosen.len(),
        spare.len()
    );
    for call in spare {
        let told = recording.calls.get(call).map(short);
        println!("  spare: {call} {told:?}");
        assert!(
            !recording.announces(call),
            "nothing notices that the intent before call {call} is lost: {told:?}"
        );
    }
}

impl Recording {
    /// Whether a call puts the journal in its place.
    fn begins(&self, call: &Call) -> bool {
        matches!(call, Call::Rename { to, .. } if is_journal(to.strip_prefix(&self.root).unwrap_or(to)))
    }

    /// The first call of the operation itself.
    fn begun(&self) -> usize {
        let first = self.calls.iter().position(|call| {
            let told = short(call);
            told.contains("/journal") || told.contains(".journal.new")
        });
        first.expect("a journal")
    }

    /// The worst result of an fsync that is left out, before the next one of the same.
    fn without(&self, dropped: usize) -> Vec<(String, Dressed)> {
        let until = self.replay.next_sync(dropped).unwrap_or(dropped);
        let stride = ((until - dropped) / 4).max(1);
        let mut states = Vec::new();
        for count in (dropped + 1..=until).rev().step_by(stride) {
            let anyway = self.replay.pending(count, None);
            let with = self.replay.pending(count, Some(dropped));
            let exposed: BTreeSet<usize> = with.difference(&anyway).copied().collect();
            let records = with.iter().copied().filter(|&call| self.is_record(call));
            let both = exposed.iter().copied().chain(records).collect();
            for lost in [exposed.clone(), both, with] {
                let loss = Loss::of(lost);
                let when = format!("without call {dropped}, after {count}");
                states.push((when, self.replay.dressed(count, &loss)));
            }
        }
        states
    }

    /// Whether a call makes the intent of a step durable that changes something.
    fn announces(&self, sync: usize) -> bool {
        let records = self.records();
        let Some(at) = records.iter().rposition(|written| written.call < sync) else {
            return false;
        };
        let next = records
            .get(at + 1)
            .map_or(self.calls.len(), |written| written.call);
        let acts = (sync + 1..next).any(|call| self.replay.changes(call));
        let own = matches!(self.calls.get(sync), Some(Call::SyncFile { path }) if path.ends_with("journal"));
        own && acts
            && records
                .get(at)
                .is_some_and(|written| written.record == "doing")
    }
}

#[test]
fn a_step_may_be_done_and_undone_twice_and_the_last_record_be_cut_anywhere() {
    let Some(mut template) = Template::make() else {
        return;
    };
    let (judge, forth, back) = record(&mut template);
    // Right before a step is confirmed all of it is done: a process that resumes does it again.
    let mut kinds = BTreeSet::new();
    let mut twice = Vec::new();
    let mut undone_twice = Vec::new();
    let steps = forth.steps();
    for (recording, word, states) in [
        (&forth, "done", &mut twice),
        (&back, "undone", &mut undone_twice),
    ] {
        for written in recording.records() {
            if written.record != word {
                continue;
            }
            let step = written.step.expect("a step");
            let kind = steps.get(step).expect("a step of the plan");
            kinds.insert(format!("{kind} {word}"));
            let state = recording.replay.dressed(written.call, &Loss::default());
            states.push((format!("step {}, {kind}, twice {word}", step + 1), state));
        }
    }
    judge.judge_all(&twice, Way::OnAndBack);
    judge.judge_all(&undone_twice, Way::Back);
    println!(
        "{} steps done twice, {} undone twice: {kinds:?}",
        twice.len(),
        undone_twice.len()
    );
    let changing = [
        "make-folders",
        "unpack",
        "build-data",
        "stop-pods",
        "set-data-aside",
        "switch-data",
        "put-back",
        "start-pods",
    ];
    for kind in changing {
        assert!(
            kinds.contains(&format!("{kind} undone")),
            "{kind}: {kinds:?}"
        );
    }

    // A record of each kind, cut at each of its bytes.
    let mut cuts = Vec::new();
    let mut seen = BTreeSet::new();
    for recording in [&forth, &back] {
        for written in recording.records() {
            if !seen.insert(written.record.clone()) {
                continue;
            }
            let all = if share().is_some() { 1 } else { 9 };
            for kept in (0..=written.bytes).step_by(all).chain([written.bytes - 1]) {
                let loss = Loss {
                    torn: Some((written.call, kept)),
                    ..Loss::default()
                };
                let state = recording.replay.dressed(written.call + 1, &loss);
                cuts.push((format!("{} cut at byte {kept}", written.record), state));
            }
        }
    }
    let cuts = shared(cuts, usize::MAX);
    println!("records {seen:?}, cuts counted: {}", cuts.len());
    judge.judge_all(&cuts, Way::Back);
}
