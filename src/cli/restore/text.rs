//! A plan, its steps and its end, for people and for programs.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::output::json;
use super::super::output::words::{self, numbered, places};
use super::super::session::Shown;
use super::next;
use crate::change::datadir::UNPROVEN;
use crate::change::restore::info::RestoreInfo;
use crate::change::restore::journalled::Facts;
use crate::change::restore::plan::RestorePlan;
use crate::change::transaction::info::SourceInfo;
use crate::change::transaction::runner::Done;
use crate::change::transaction::steps::NodeStep;
use crate::etcd::history::Moment;
use crate::finding::printable;
use crate::journal::{State, Step};

/// The plan: what, where, why, and each step.
pub(super) fn plan(plan: &RestorePlan, now: Timestamp) -> String {
    let info = &plan.plan.info;
    let mut text = format!("Restoring {} to {}\n", info.source_name(), info.node);
    let mut line = |name: &str, value: String| {
        words::fact(&mut text, name, &value);
    };
    for (name, value) in info.source.iter().flat_map(|source| origin(source, now)) {
        line(name, value);
    }
    line("scope", info.scope.word().to_owned());
    line(
        "etcd",
        format!("{}, {}", info.etcd.endpoint, info.etcd.data_dir.display()),
    );
    for pod in &info.pods {
        let revision = pod
            .revision
            .map(|revision| format!(" revision {revision}"))
            .unwrap_or_default();
        line("pod", format!("{}/{}{revision}", pod.namespace, pod.name));
    }
    line("waits", format!("at most {} s each", info.wait_seconds));
    line("kept in", places(&info.safety));
    for note in &plan.notes {
        line("note", note.clone());
    }
    text.push_str("Steps; each is written to the journal before and after it is done:\n");
    for (number, step) in plan.plan.steps.iter().enumerate() {
        let _ = writeln!(text, "  {:>2}. {}", number + 1, printable(step.describe()));
    }
    text
}

/// What is said of the backup, as names and values: where it is from, and what is lost.
fn origin(source: &SourceInfo, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut lines = vec![("from", source.dir.display().to_string())];
    if let Some(created) = source.created {
        let on = source.node.as_ref().map(|node| format!(", on {node}"));
        let on = on.unwrap_or_default();
        let ago = words::ago(created, now);
        let taken = created.strftime("%Y-%m-%d %H:%M:%S UTC");
        lines.push(("taken", format!("{taken}{on}, {ago}")));
        let lost = match &source.to {
            _ if source.roll_forward.is_some() => "what is not in the WAL".to_owned(),
            Some(to) => format!("what was written after revision {}", to.revision),
            None => format!("what was written after {taken}, {ago}"),
        };
        lines.push(("lost", lost));
    }
    let version = source.ocp_version.clone();
    lines.extend(version.map(|version| ("OpenShift", version)));
    let revision = source.kv_revision;
    lines.extend(revision.map(|revision| ("revision", revision.to_string())));
    lines.extend(source.to.iter().flat_map(moment));
    lines.extend(source.recorded.as_ref().map(|recorded| {
        let proof = match &recorded.proof {
            Some(proof) => format!("proven by HashKV of {}", proof.backup),
            None => format!("not proven: {UNPROVEN}"),
        };
        let (dir, until) = (recorded.dir.display(), recorded.until_revision);
        let what = format!("changes in {dir}, to revision {until}; {proof}");
        ("recorded", what)
    }));
    lines.extend(source.roll_forward.as_ref().map(|wal| {
        let wal = wal.display();
        let what = format!("forward with the WAL of {wal}, to its last write");
        ("rolled", what)
    }));
    lines
}

/// What is said of a revision to restore to, as names and values.
pub(super) fn moment(moment: &Moment) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let revision = moment.revision;
    let time = moment.time.map(|time| format!(", written about {time}"));
    let time = time.unwrap_or_default();
    lines.push((
        "to",
        format!("revision {revision}{time}: {}", moment.reason),
    ));
    lines.push(("reachable", moment.reachable.to_string()));
    let undone = &moment.undone;
    let total = match undone.total.total() {
        0 => "nothing that is left".to_owned(),
        _ => undone.total.to_string(),
    };
    lines.push(("undone", format!("{} revisions: {total}", undone.revisions)));
    for group in &undone.groups {
        let namespace = group.namespace.as_ref();
        let namespace = namespace.map(|name| format!(" in {name}"));
        let namespace = namespace.unwrap_or_default();
        lines.push((
            "",
            format!("{}{namespace}: {}", group.resource, group.tally),
        ));
    }
    if undone.more_groups > 0 {
        lines.push((
            "",
            format!("and {} more kinds or namespaces", undone.more_groups),
        ));
    }
    lines
}

/// The steps for programs.
pub(super) fn steps(steps: &[NodeStep]) -> Vec<Value> {
    steps
        .iter()
        .map(|step| json!({"name": step.name(), "about": step.describe(), "step": step}))
        .collect()
}

/// What is true at the end.
fn summary(info: &RestoreInfo, facts: &Facts) -> String {
    let mut text = format!("restored {} to {}\n", info.source_name(), info.node);
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words::fact(&mut text, name, &value);
        }
    };
    line(
        "etcd",
        facts.etcd_version.as_ref().map(|version| {
            format!(
                "{version} serves at {} and accepts writes",
                info.etcd.endpoint
            )
        }),
    );
    line(
        "cluster",
        facts
            .cluster_id
            .as_ref()
            .zip(facts.member_id.as_ref())
            .map(|(cluster, member)| {
                format!("{cluster}, one member: {member} {}", info.etcd.member)
            }),
    );
    line(
        "revision",
        facts
            .revision
            .zip(facts.snapshot_revision)
            .map(|(revision, own)| format!("{revision}, was {own} in the backup")),
    );
    line(
        "keys",
        facts
            .keys
            .map(|keys| format!("{keys}, all of the backup's")),
    );
    for pod in &info.pods {
        let revision = pod
            .revision
            .map(|revision| format!(" at revision {revision}"))
            .unwrap_or_default();
        line("pod", Some(format!("{} runs{revision}", pod.component)));
    }
    line(
        "rollback",
        Some(format!(
            "etcd-dr restore --rollback, until --commit; kept in {}",
            places(&info.safety)
        )),
    );
    text
}

/// What is shown of a restore that is done.
pub(super) fn restored(done: &Done<RestoreInfo>) -> Shown {
    let next = next::steps(&done.info);
    let facts = Facts::of(&done.known);
    let mut shown = summary(&done.info, &facts);
    shown.push_str(&numbered("Remaining steps:", &next));
    let json = json!({
        "id": done.id,
        "state": State::Completed.word(),
        "about": done.info,
        "clusterId": facts.cluster_id,
        "memberId": facts.member_id,
        "revision": facts.revision,
        "snapshotRevision": facts.snapshot_revision,
        "keys": facts.keys,
        "etcdVersion": facts.etcd_version,
        "nextSteps": next,
    });
    Shown::done(shown, json::document("restore", &json))
}
