//! What a restore would lose: the backup compared with the running etcd, where it can be read.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::args::RestoreArgs;
use super::super::diff;
use super::super::look::{self, Reached};
use super::super::session::Session;
use super::super::sign;
use crate::error::Result;
use crate::finding::printable;
use crate::store::Address;

/// Compares the backup that is named with the running etcd. What prevents that is part of the result: the plan does not
/// depend on it. Nothing comes back where there is no backup to compare.
pub(super) fn of(session: &Session, args: &RestoreArgs) -> Option<Value> {
    let word = args
        .set
        .as_deref()
        .filter(|_| args.from_data_dir.is_none())?;
    if Address::is_url(word) {
        return Some(json!({"notCompared": "the backup is in another store"}));
    }
    let compared = compare(session, args, word);
    Some(compared.unwrap_or_else(|failure| json!({"notCompared": failure.to_string()})))
}

fn compare(session: &Session, args: &RestoreArgs, word: &str) -> Result<Value> {
    let trust = sign::trust(session, &args.signers, &args.allow)?;
    let reached = Reached {
        store: args.store.as_deref(),
        scratch: args.scratch.as_deref(),
        identity: &args.identity,
        remote: &args.remote,
        trust: &trust,
    };
    let found = look::find(session, word, &reached)?;
    diff::with_live(session, &found.source, &reached)
}

/// The same in words.
pub(super) fn text(loss: &Value) -> String {
    if let Some(why) = loss["notCompared"].as_str() {
        return printable(format!("Not compared with the running etcd: {why}")) + "\n";
    }
    let count = |name: &str| loss["counts"][name].as_u64().unwrap_or(0);
    let mut text = format!(
        "Compared with the running etcd, revision {}: {} objects were created since the backup, {} deleted, {} replaced, {} changed\n",
        loss["revision"],
        count("added"),
        count("removed"),
        count("replaced"),
        count("changed")
    );
    for line in diff::losses(&loss["named"]) {
        let _ = writeln!(text, "  {}", printable(line));
    }
    text
}
