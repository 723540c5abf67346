//! What a restore would lose: the backup compared with the running etcd, if it can be read.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::args::RestoreArgs;
use super::super::diff;
use super::super::session::{Session, scratch};
use super::request::Named;
use crate::error::Result;
use crate::finding::printable;
use crate::inspect::look::Source;
use crate::sys::quote;

/// How long the question of a restore waits for the comparison. Most databases of control planes are read in a second
/// or two; where etcd hangs, whoever restores it must not wait for it.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Losses that are listed before the question; the rest is in `diff`.
const SHORT: usize = 6;

/// Compares a backup with the running etcd. What prevents that is part of the result: the plan does not depend on it.
pub(super) fn of(
    session: &Session,
    args: &RestoreArgs,
    named: &Named,
    limit: Option<Duration>,
) -> Value {
    if args.roll_forward.is_some() {
        return json!({"notCompared": "what --roll-forward adds to the backup is known only once it is applied"});
    }
    let compared = compare(session, args, named, limit);
    compared.unwrap_or_else(|failure| json!({"notCompared": failure.to_string()}))
}

fn compare(
    session: &Session,
    args: &RestoreArgs,
    named: &Named,
    limit: Option<Duration>,
) -> Result<Value> {
    let source = Source::of_set(&named.set)?;
    let revision = named.to.as_ref().map(|moment| moment.revision);
    let scratch = scratch(args.scratch.as_deref());
    diff::with_live(session, &source, revision, &scratch, limit)
}

/// The same in words.
pub(super) fn text(loss: &Value) -> String {
    let (mut text, losses) = parts(loss);
    for line in losses {
        let _ = writeln!(text, "  {}", printable(line));
    }
    text
}

/// The most important of it in words, and the command for the rest.
pub(super) fn short(loss: &Value, args: &RestoreArgs) -> String {
    let (mut text, losses) = parts(loss);
    let more = losses.len().saturating_sub(SHORT);
    for line in losses.into_iter().take(SHORT) {
        let _ = writeln!(text, "  {}", printable(line));
    }
    if loss["notCompared"].is_string() {
        return text;
    }
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
    let mut command = "etcd-dr diff".to_owned();
    if let Some(store) = &args.store {
        let _ = write!(
            command,
            " --store {}",
            quote::shell(&store.display().to_string())
        );
    }
    let set = args.set.as_deref().unwrap_or_default();
    let _ = writeln!(text, "for the rest: {command} {}", quote::shell(set));
    text
}

/// The numbers, and what matters beyond them.
fn parts(loss: &Value) -> (String, Vec<String>) {
    if let Some(why) = loss["notCompared"].as_str() {
        let line = printable(format!("Not compared with the running etcd: {why}"));
        return (line + "\n", Vec::new());
    }
    let count = |name: &str| loss["counts"][name].as_u64().unwrap_or(0);
    let text = format!(
        "Compared with the running etcd, revision {}: {} objects were created since the backup, {} deleted, {} replaced, {} changed\n",
        loss["revision"],
        count("added"),
        count("removed"),
        count("replaced"),
        count("changed")
    );
    (text, diff::losses(&loss["named"]))
}
