//! Results as JSON: one document on standard output, with `schemaVersion`.

use serde::Serialize;
use serde_json::{Value, json};

use super::hints;
use crate::error::{Fact, Failure};
use crate::ops::catalog::BackupSet;

/// The version of every document and event line.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// A command's result as its document.
pub(super) fn document(command: &str, result: &impl Serialize) -> Value {
    let value = serde_json::to_value(result);
    headed(
        command,
        value.unwrap_or_else(|e| json!({"error": e.to_string()})),
    )
}

/// A document with what every one begins with.
fn headed(command: &str, mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("schemaVersion".into(), SCHEMA_VERSION.into());
        object.insert("command".into(), command.into());
    }
    value
}

/// A failure as its document.
pub(super) fn failure(command: &str, failure: &Failure) -> Value {
    let candidates = failure.facts().iter().find_map(|fact| match fact {
        Fact::Candidates(candidates) => Some(candidates.clone()),
        _ => None,
    });
    let remains = failure.facts().iter().find_map(|fact| match fact {
        Fact::MemberRemains(member) => Some(member.clone()),
        _ => None,
    });
    let mut document = json!({
        "schemaVersion": SCHEMA_VERSION,
        "command": command.split(' ').next(),
        "error": {
            "kind": failure.kind().word(),
            "exitCode": failure.kind().exit_code(),
            "message": failure.to_string(),
            "chain": failure.chain(),
            "refusal": failure.refusal(),
            "refusals": failure.refusals(),
            "candidates": candidates,
            "hint": hints::hint(command, failure),
        },
    });
    if let Some(member) = remains {
        document["error"]["memberRemains"] = member.into();
    }
    document
}

/// What `list` knows, as its document; of many sets, so that nothing is copied twice.
pub(super) fn list(
    store: &str,
    latest: Option<&str>,
    sets: &[BackupSet],
    newest: Option<&BackupSet>,
    stale: Option<bool>,
) -> Value {
    let value = json!({
        "store": store,
        "latest": latest,
        "newestGood": newest.map(|set| &set.name),
        "stale": stale,
        "sets": Value::Array(sets.iter().map(set).collect()),
    });
    headed("list", value)
}

fn set(set: &BackupSet) -> Value {
    json!({
        "name": set.name,
        "directory": set.dir,
        "state": set.state,
        "markedDirty": set.marked_dirty,
        "created": set.created,
        "size": set.size,
        "latest": set.latest,
        "files": {
            "snapshot": set.files.snapshot,
            "resources": set.files.resources,
            "certificates": set.files.certificates,
        },
        "problems": set.problems,
        "verified": set.verified,
        "pinned": set.pinned,
        "sharedBytes": set.shared,
        "manifest": set.manifest,
    })
}
