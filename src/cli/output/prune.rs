//! What a pruning would remove, and what it has removed.

use std::fmt::Write as _;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use crate::backup::retention::Verdict;
use crate::error::{Failure, Kind};
use crate::keep::prune::{Decided, PrunePlan, Pruned};
use crate::sys::quote::printable;

/// The plan: what goes, and with `--explain` what stays; each with its reasons.
pub(crate) fn plan(plan: &PrunePlan, explain: bool) -> String {
    let mut text = String::new();
    let shown = |decided: &&Decided| explain || decided.decision.verdict == Verdict::Remove;
    for decided in plan.decisions.iter().filter(shown) {
        let decision = &decided.decision;
        let verdict = match decision.verdict {
            Verdict::Keep => "keep  ",
            Verdict::Remove => "remove",
        };
        let reasons: Vec<String> = decision
            .reasons
            .iter()
            .map(|reason| format!("{} [{}]", reason.detail, reason.rule))
            .collect();
        let created = decided
            .created
            .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let line = format!(
            "{verdict} {}  {}  {}",
            decision.name,
            created.unwrap_or_else(|| "-".to_owned()),
            reasons.join("; ")
        );
        let _ = writeln!(text, "{}", printable(line));
    }
    for chain in plan
        .changes
        .iter()
        .filter(|chain| explain || chain.remove > 0)
    {
        let line = format!(
            "changes {}: remove {} segments ({}), keep {}: {}",
            chain.chain.display(),
            chain.remove,
            HumanBytes(chain.freed),
            chain.keep,
            chain.reason
        );
        let _ = writeln!(text, "{}", printable(line));
    }
    let gone = plan.removals().count();
    let freed = plan
        .removals()
        .fold(0u64, |sum, decided| sum.saturating_add(decided.size));
    let _ = writeln!(
        text,
        "{gone} to remove ({}), {} to keep",
        HumanBytes(freed),
        plan.decisions.len().saturating_sub(gone)
    );
    text
}

/// What stopped each removal.
pub(crate) fn problems(done: &Pruned) -> impl Iterator<Item = Failure> {
    let failure = |problem: &String| Failure::new(Kind::Store, format!("pruning: {problem}"));
    done.problems.iter().map(failure)
}

/// What is gone.
pub(crate) fn summary(done: &Pruned) -> String {
    let mut text = String::new();
    for name in &done.removed {
        let _ = writeln!(text, "removed {}", printable(name.clone()));
    }
    for retained in &done.retained {
        let line = format!("kept {}: retained until {}", retained.name, retained.until);
        let _ = writeln!(text, "{}", printable(line));
    }
    let _ = writeln!(
        text,
        "{} removed ({}), {} kept",
        done.removed.len(),
        HumanBytes(done.freed),
        done.plan.decisions.len().saturating_sub(done.removed.len())
    );
    if done.segments.count > 0 {
        let _ = writeln!(
            text,
            "{} segments of recorded changes removed ({})",
            done.segments.count,
            HumanBytes(done.segments.bytes)
        );
    }
    if done.versions_kept {
        text.push_str(
            "The bucket keeps earlier versions: removed objects are hidden there, and use space until the bucket's own rules delete them.\n",
        );
    }
    text
}

/// A plan, and what was done of it, for programs.
pub(crate) fn document(plan: &PrunePlan, done: Option<&Pruned>) -> Value {
    json!({
        "dryRun": done.is_none(),
        "decisions": plan.decisions,
        "changes": plan.changes,
        "removed": done.map(|done| done.removed.clone()).unwrap_or_default(),
        "freed": done.map_or(0, |done| done.freed),
        "problems": done.map(|done| done.problems.clone()).unwrap_or_default(),
        "retained": done.map(|done| done.retained.clone()).unwrap_or_default(),
        "versionsKept": done.is_some_and(|done| done.versions_kept),
    })
}
