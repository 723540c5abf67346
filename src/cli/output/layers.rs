//! What was found of each layer of a backup, or of a member's files.

use std::fmt::Write as _;

use indicatif::HumanBytes;

use crate::finding::{Finding, Layer, Severity};
use crate::inspect::layers::{LayerReport, LayerState};
use crate::keep::database;
use crate::sys::quote::printable;

/// How many prefixes are shown to people.
const PREFIXES_SHOWN: usize = 5;

/// Whose layers follow, and the verdict.
pub(crate) fn head(name: &str, good: bool) -> String {
    let verdict = if good {
        console::style("good").green()
    } else {
        console::style("BAD").red().bold()
    };
    format!("{}: {verdict}\n", printable(name.to_owned()))
}

/// Each layer with its findings.
pub(crate) fn layers(text: &mut String, reports: &[LayerReport], findings: &[Finding]) {
    for layer in reports {
        let state = match layer.state {
            LayerState::Ok => console::style(layer.state.word()).green(),
            LayerState::Failed => console::style(layer.state.word()).red().bold(),
            _ => console::style(layer.state.word()).yellow(),
        };
        let detail = if layer.detail.is_empty() {
            String::new()
        } else {
            format!("  {}", layer.detail)
        };
        let _ = writeln!(text, "  {:<12} {state}{detail}", word(layer.layer));
        for found in findings.iter().filter(|found| found.layer == layer.layer) {
            let mark = if found.severity == Severity::Error {
                ""
            } else {
                "warning: "
            };
            let _ = writeln!(text, "    {mark}{found}");
        }
    }
}

/// What a snapshot holds: what `snapshot status` prints, HashKV, what a defragmentation would
/// save, and what fills it.
pub(crate) fn describe(text: &mut String, database: &database::Report) {
    if let Some(status) = &database.status {
        let _ = writeln!(
            text,
            "  status: hash {:x}, revision {}, {} entries (as 3.4 and 3.5 count), {} live keys (3.6), {}",
            status.hash,
            status.revision,
            status.total_entries,
            status.total_keys,
            HumanBytes(status.total_size)
        );
    }
    if let Some(hash) = &database.hash_kv {
        let _ = writeln!(
            text,
            "  HashKV: {} at revision {}, compacted at {}",
            hash.hash, hash.revision, hash.compact_revision
        );
    }
    let Some(facts) = &database.facts else { return };
    if facts.free_pages > 0 {
        let _ = writeln!(
            text,
            "  defragmenting would free {} of {}",
            HumanBytes(facts.reclaimable_size),
            HumanBytes(facts.total_size)
        );
    }
    if !facts.prefixes.is_empty() {
        let _ = writeln!(text, "  largest prefixes, by bytes of all revisions:");
    }
    for prefix in facts.prefixes.iter().take(PREFIXES_SHOWN) {
        let _ = writeln!(
            text,
            "    {:>12}  {:>9} keys  {}",
            HumanBytes(prefix.usage.revision_bytes).to_string(),
            prefix.usage.keys,
            printable(prefix.prefix.to_string())
        );
    }
}

/// A layer's stable word.
fn word(layer: Layer) -> String {
    match serde_json::to_value(layer) {
        Ok(serde_json::Value::String(word)) => word,
        _ => format!("{layer:?}"),
    }
}
