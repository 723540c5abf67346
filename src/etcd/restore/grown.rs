//! A copy of a snapshot's database that is continued: with a member's WAL, or with recorded changes.

use super::plan::refuse;
use super::spec::{Forward, Spec};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::FileSource;
use crate::etcd::build::Watch;
use crate::etcd::roll::{Joined, Rolled};
use crate::etcd::segment::{Extended, extend};
use crate::etcd::snapshot::{DatabaseFacts, Options, Report, inspect};
use crate::sys::fs::OutFile;

/// What a copy was continued with.
pub(super) enum Grown {
    No,
    Rolled(Rolled),
    Extended(Extended),
}

impl Grown {
    pub(super) fn rolled(&self) -> Option<Rolled> {
        match self {
            Self::Rolled(rolled) => Some(rolled.clone()),
            _ => None,
        }
    }

    pub(super) fn extended(&self) -> Option<Extended> {
        match self {
            Self::Extended(extended) => Some(extended.clone()),
            _ => None,
        }
    }
}

/// Applies to the copy what is asked for, and reads all of the result again.
pub(super) fn grow(
    spec: &Spec<'_>,
    out: &mut OutFile,
    report: Report,
    options: &Options,
    watch: &dyn Watch,
) -> Result<(Grown, Report)> {
    match (&spec.roll_forward, &spec.recorded) {
        (None, None) => Ok((Grown::No, report)),
        (Some(forward), _) => {
            let rolled = roll(forward, facts(&report)?, out, watch)?;
            let report = read_again(out, options, rolled.revision)?;
            Ok((Grown::Rolled(rolled), report))
        }
        (None, Some(recorded)) => {
            let extended = extend(out, facts(&report)?.revision, recorded, watch)?;
            let report = read_again(out, options, extended.revision)?;
            Ok((Grown::Extended(extended), report))
        }
    }
}

/// What a sound snapshot says of itself.
fn facts(report: &Report) -> Result<&DatabaseFacts> {
    match &report.facts {
        Some(facts) if report.is_good() && facts.complete => Ok(facts),
        _ => Err(refuse(report)),
    }
}

fn roll(
    forward: &Forward<'_>,
    facts: &DatabaseFacts,
    out: &mut OutFile,
    watch: &dyn Watch,
) -> Result<Rolled> {
    let log = Joined::open(forward.dir, facts, forward.cluster)?;
    log.apply(out, facts, watch)
}

/// Reads a database that was continued up to a revision.
fn read_again(out: &OutFile, options: &Options, revision: i64) -> Result<Report> {
    let file = out.file().try_clone().and_then(FileSource::new);
    let source = file.doing(Kind::Store, || "reading the database again")?;
    let report = inspect(&source, options, &|_| {})?;
    let found = report.facts.as_ref().map(|facts| facts.revision);
    if !report.is_good() || found != Some(revision) {
        let what = format!(
            "expected a sound database at revision {revision} after it was continued, found {found:?}; {}",
            refuse(&report)
        );
        return Err(Failure::new(Kind::Unexpected, what));
    }
    Ok(report)
}
