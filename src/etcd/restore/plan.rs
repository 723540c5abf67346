//! What is changed in a snapshot that was checked, and why.

use super::at_revision;
use super::changes::{authentication_off, changes};
use super::spec::{AtRevision, Spec};
use super::target::judge;
use crate::error::{Failure, Kind, Result};
use crate::etcd::bbolt::write::Changes;
use crate::etcd::build::{Decision, Question, decide_at};
use crate::etcd::snapshot::{DatabaseFacts, Report};
use crate::finding::Severity;

/// What is to be done about a snapshot that was checked.
pub(super) struct Plan {
    pub(super) report: Report,
    pub(super) decision: Decision,
    pub(super) notes: Vec<String>,
    pub(super) at: Option<AtRevision>,
    /// What is added to the database, or taken from it, bucket by bucket.
    pub(super) changes: Changes,
}

impl Plan {
    /// `leases` reads the bucket of that name.
    pub(super) fn make(
        spec: &Spec<'_>,
        report: Report,
        leases: impl FnOnce() -> Result<Vec<(Vec<u8>, Vec<u8>)>>,
    ) -> Result<Self> {
        let facts = match &report.facts {
            Some(facts) if report.is_good() && facts.complete => facts,
            _ => return Err(refuse(&report)),
        };
        let at = match spec.to_revision {
            Some(revision) => Some(at_revision::judge(revision, facts, &report, &leases()?)?),
            None => None,
        };
        let question = Question {
            bump: spec.bump,
            mark_compacted: spec.mark_compacted,
            snapshot: facts.revision,
            evidence: spec.evidence,
            allow_low: spec.allow_low_bump,
        };
        let decision = decide_at(&question, spec.to_revision)?;
        let versions = judge(
            facts.storage_version.as_deref(),
            facts.cluster_version.as_deref(),
            spec.target,
            spec.allow_unknown_version,
        )?;
        let present = facts.buckets.iter().map(|b| b.name.clone()).collect();
        let mut changes = changes(
            spec.cluster,
            decision.revision,
            at.as_ref(),
            versions.drop,
            &present,
        );
        if spec.authentication_off && facts.auth.enabled {
            let (bucket, change) = authentication_off();
            changes.insert(bucket, change);
        }
        let mut notes = versions.notes;
        notes.extend(at.iter().flat_map(|at| at_revision::notes(at, facts)));
        notes.extend(under_way(facts));
        Ok(Self {
            decision,
            notes,
            at,
            changes,
            report,
        })
    }
}

/// What the cluster was about to do when the snapshot was taken.
fn under_way(facts: &DatabaseFacts) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(downgrade) = facts.downgrade.as_ref().filter(|d| d.enabled) {
        notes.push(format!(
            "the snapshot was taken during a downgrade to {}, which the new cluster does not continue",
            downgrade.target_version
        ));
    }
    let scheduled = facts.scheduled_compact_revision;
    if scheduled > facts.finished_compact_revision {
        notes.push(format!(
            "the snapshot was taken during a compaction at revision {}, which etcd finishes when it starts",
            scheduled.unwrap_or_default()
        ));
    }
    notes
}

/// The failure for a snapshot that is broken.
pub(super) fn refuse(report: &Report) -> Failure {
    let errors = report.findings.errors();
    let first = report
        .findings
        .listed()
        .iter()
        .find(|finding| finding.severity == Severity::Error);
    let what = match first {
        Some(first) if errors > 1 => format!("{first}, and {} more findings", errors - 1),
        Some(first) => first.to_string(),
        None => "not all of it could be read".to_owned(),
    };
    Failure::new(Kind::BadBackup, what).doing("checking the snapshot")
}
