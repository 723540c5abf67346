//! `verify --compare`: which member's disk is the best.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::super::output::json;
use super::super::session::Shown;
use crate::error::{Result, exit};
use crate::inspect::compare::{self, Ranked, Verdict};
use crate::sys::quote::printable;

/// Compares reports.
pub(super) fn run(paths: &[PathBuf]) -> Result<Shown> {
    let verdict = compare::run(paths)?;
    Ok(Shown {
        text: table(&verdict),
        problems: Vec::new(),
        json: json::document("verify", &verdict),
        remark: None,
        status: if verdict.may_lack_writes {
            exit::DIFFERS
        } else {
            exit::DONE
        },
    })
}

fn table(verdict: &Verdict) -> String {
    let mut text = String::new();
    if let Some(best) = verdict.ranking.first() {
        let _ = writeln!(
            text,
            "the best disk: {} {}",
            best.id,
            printable(best.name.clone())
        );
    }
    let _ = writeln!(text, "  why: {}", printable(verdict.reason.clone()));
    let _ = writeln!(text, "  lost: {}", printable(verdict.loss.clone()));
    for disk in &verdict.ranking {
        let _ = writeln!(text, "  {}", printable(row(disk)));
    }
    text
}

fn row(disk: &Ranked) -> String {
    let revisions = disk.revisions.map_or_else(String::new, |revisions| {
        format!(", revision {} to {}", revisions.database, revisions.at_most)
    });
    let unfit = disk.unfit.map_or_else(String::new, |unfit| {
        format!("; not eligible: {}", unfit.words())
    });
    format!(
        "{} {}: last entry {} of term {}{revisions}{unfit}",
        disk.id, disk.name, disk.last_index, disk.last_term
    )
}
