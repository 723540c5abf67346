//! `get SET KIND/NAME --history`: the revisions of one object.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::args::GetArgs;
use super::super::output::table::{Table, nothing, terminal_width};
use super::super::output::{json, words};
use super::super::session::{Session, Shown};
use crate::error::{Failure, Kind, Result};
use crate::inspect::look::{Change, Reader, Selection, history};
use crate::objects::{mask, unified};
use crate::sys::quote::printable;

pub(super) fn run(
    session: &Session,
    args: &GetArgs,
    reader: &Reader<'_>,
    selection: &Selection,
) -> Result<Shown> {
    if selection.named().count() != 1 {
        let what = "--history shows one object: give KIND/NAME";
        return Err(Failure::new(Kind::Usage, what));
    }
    let history = history(reader, selection)?;
    let Some(key) = &history.key else {
        let what = format!("{} holds no revision of that object", reader.source().name);
        return Err(Failure::new(Kind::Usage, what));
    };
    let mut text = format!("{}\n", printable(key.clone()));
    let mut table = Table::new(&["REVISION", "CHANGE", "TIME", "MANAGER", "BYTES"]);
    for change in &history.changes {
        let managed = change.managed.clone();
        let (time, manager) = managed.unwrap_or_else(|| (nothing(), nothing()));
        table.row(vec![
            change.revision.to_string(),
            change.kind.word().to_owned(),
            time,
            manager,
            change.bytes.map_or_else(nothing, |bytes| bytes.to_string()),
        ]);
    }
    text.push_str(&table.render(terminal_width()));
    if let Some(compacted) = history.compacted {
        let _ = writeln!(text, "revisions before {compacted} are compacted");
    }
    if session.global.verbose > 0 {
        text.push_str(&diffs(&history.changes, args.shown.show_secrets));
    }
    let changes: Vec<Value> = history
        .changes
        .iter()
        .map(|change| document(change, args.shown.show_secrets))
        .collect();
    let document = json!({
        "set": reader.source().name,
        "key": key,
        "compactRevision": history.compacted,
        "revisions": changes,
    });
    Ok(Shown::done(text, json::document("get", &document)))
}

/// The object of a change as it is shown.
fn object(change: &Change, show_secrets: bool) -> Option<Value> {
    let mut object = change.object.clone()?.json;
    if !show_secrets {
        mask::mask(&mut object);
    }
    Some(Value::Object(object))
}

/// What each revision changed, as unified differences of the YAML without managedFields.
fn diffs(changes: &[Change], show_secrets: bool) -> String {
    let mut text = String::new();
    let mut before = String::new();
    for change in changes {
        let after = match &change.object {
            Some(object) => unified::text(object.json.clone(), show_secrets),
            None => String::new(),
        };
        let _ = write!(
            text,
            "\n{} {}\n{}",
            change.revision,
            change.kind.word(),
            unified::unified(&before, &after)
        );
        before = after;
    }
    words::clean(&text)
}

fn document(change: &Change, show_secrets: bool) -> Value {
    let (time, manager) = change.managed.clone().unzip();
    json!({
        "revision": change.revision,
        "change": change.kind.word(),
        "time": time,
        "manager": manager,
        "bytes": change.bytes,
        "object": object(change, show_secrets),
        "unread": change.unread,
    })
}
