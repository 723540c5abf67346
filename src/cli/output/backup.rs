//! Results of backups and copies.

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::prune;
use crate::backup::manifest::QualityState;
use crate::keep::backup::Taken;
use crate::keep::remote::Copied;
use crate::sys::quote::printable;

/// A backup that was taken, for people.
pub(crate) fn taken(taken: &Taken) -> String {
    let manifest = &taken.manifest;
    let mut text = String::new();
    let state = if manifest.quality.reasons.is_empty() {
        "good"
    } else {
        "dirty"
    };
    let what = if taken.is_set {
        format!("{} ({state})", manifest.id)
    } else {
        format!("a {state} backup")
    };
    text.push_str(&format!("{what} in {}\n", taken.dir.display()));
    for file in &manifest.files {
        text.push_str(&format!("  {}  {}\n", file.name, HumanBytes(file.size)));
    }
    if let Some(shared) = taken.shared.filter(|shared| *shared > 0) {
        text.push_str(&format!(
            "  {} shared with the previous backup\n",
            HumanBytes(shared)
        ));
    }
    text.push_str(&reasons(manifest));
    if let Some(pruned) = &taken.pruned {
        text.push_str(&prune::summary(pruned));
    }
    text
}

/// The same for programs.
pub(crate) fn document(taken: &Taken) -> Value {
    let timings = &taken.timings;
    let mut document = json!({
        "result": "taken",
        "directory": taken.dir,
        "isSet": taken.is_set,
        "manifest": taken.manifest,
        "sharedBytes": taken.shared,
        "pruned": taken.pruned,
        "seconds": {
            "snapshot": timings.snapshot.as_secs_f64(),
            "check": timings.check.as_secs_f64(),
            "archives": timings.archives.as_secs_f64(),
        },
    });
    if !taken.encrypted.is_empty() {
        document["encrypted"] = json!(taken.encrypted);
    }
    if !taken.problems.is_empty() {
        document["problems"] = json!(taken.problems);
    }
    document
}

/// Why a committed set is dirty, a line each.
pub(crate) fn reasons(manifest: &crate::backup::Manifest) -> String {
    if manifest.quality.state == QualityState::Good {
        return String::new();
    }
    manifest
        .quality
        .reasons
        .iter()
        .map(|reason| format!("{} [{}]", reason.message, reason.check))
        .map(|reason| format!("  dirty: {}\n", printable(reason)))
        .collect()
}

/// The result of a copy, as text.
pub(crate) fn copied(copied: &Copied) -> String {
    if copied.already_there {
        return format!("{} exists already\n", copied.url);
    }
    let resumed = match copied.resumed {
        0 => String::new(),
        n => format!(", {n} of its files were already there"),
    };
    format!(
        "copied to {} ({} sent{resumed})\n",
        copied.url,
        HumanBytes(copied.sent)
    )
}
