//! Results as JSON: one document on standard output, with `schemaVersion`.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::hints;
use crate::backup::manifest::Manifest;
use crate::error::{Fact, Failure};
use crate::keep::catalog::{BackupSet, SetState, Verified};

/// The version of every document and event line.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// A command's result as its document.
pub(super) fn document(command: &str, result: &impl Serialize) -> Value {
    let mut value =
        serde_json::to_value(result).unwrap_or_else(|e| json!({"error": e.to_string()}));
    if let Some(object) = value.as_object_mut() {
        object.insert("schemaVersion".into(), SCHEMA_VERSION.into());
        object.insert("command".into(), command.into());
    }
    value
}

/// A document as it is written.
///
/// # Errors
/// Never in practice: what cannot be JSON.
pub(super) fn text(document: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
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

/// What `list` knows, as its document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing<'a> {
    command: &'static str,
    latest: Option<&'a str>,
    newest_good: Option<&'a str>,
    schema_version: u32,
    sets: Vec<Set<'a>>,
    stale: Option<bool>,
    store: &'a str,
}

/// One set of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Set<'a> {
    created: Option<Timestamp>,
    directory: &'a Path,
    files: Files<'a>,
    from_the_future: bool,
    latest: bool,
    manifest: Option<&'a Manifest>,
    marked_dirty: bool,
    name: &'a str,
    pinned: bool,
    problems: &'a [String],
    shared_bytes: Option<u64>,
    size: u64,
    state: SetState,
    verified: Option<&'a Verified>,
}

#[derive(Serialize)]
struct Files<'a> {
    certificates: Option<&'a Path>,
    resources: Option<&'a Path>,
    snapshot: Option<&'a Path>,
}

impl<'a> Listing<'a> {
    /// The sets of a store.
    pub(super) fn new(
        store: &'a str,
        latest: Option<&'a str>,
        sets: &'a [BackupSet],
        newest: Option<&'a BackupSet>,
        stale: Option<bool>,
        now: Timestamp,
    ) -> Self {
        Self {
            command: "list",
            latest,
            newest_good: newest.map(|set| set.name.as_str()),
            schema_version: SCHEMA_VERSION,
            sets: sets.iter().map(|set| Set::new(set, now)).collect(),
            stale,
            store,
        }
    }
}

impl<'a> Set<'a> {
    fn new(set: &'a BackupSet, now: Timestamp) -> Self {
        let files = &set.files;
        Self {
            created: set.created,
            directory: &set.dir,
            files: Files {
                certificates: files.certificates.as_deref(),
                resources: files.resources.as_deref(),
                snapshot: files.snapshot.as_deref(),
            },
            from_the_future: set.is_future(now),
            latest: set.latest,
            manifest: set.manifest.as_ref(),
            marked_dirty: set.marked_dirty,
            name: &set.name,
            pinned: set.pinned,
            problems: &set.problems,
            shared_bytes: set.shared,
            size: set.size,
            state: set.state,
            verified: set.verified.as_ref(),
        }
    }
}
