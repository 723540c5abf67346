//! `verify --compare`: which disk to restore a cluster from that has lost its quorum.
//!
//! Disks are ranked as a leader is elected: the later term of the last entry wins, then the higher
//! index. A write is acknowledged once a majority of the voting members has it in its WAL, so among
//! the disks of any majority the one that would win the election has every acknowledged write. With
//! fewer disks, some writes may be only on the missing ones.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Fact, Failure, Kind, Result};
use crate::inspect::data_dir::{Known, Own, Revisions, Role};
use crate::sys::small::read_given;

/// The schema that is read here.
const SCHEMA_VERSION: u64 = 1;
/// The largest report that is read; findings and prefixes make a few hundred kilobytes.
const MAX_BYTES: u64 = 16 << 20;

/// What is needed of a report of `verify --data-dir -o json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReport {
    /// Where the report was read from.
    #[serde(skip)]
    pub file: PathBuf,
    /// Whether nothing is broken.
    pub good: bool,
    /// Whose disk it is.
    pub member: Own,
    /// The members at the end of its log.
    #[serde(default)]
    pub membership: Option<Vec<Known>>,
    /// Voters at its last index known to be committed.
    #[serde(default)]
    pub committed_voters: Option<Vec<String>>,
    /// Its key-value revisions.
    #[serde(default)]
    pub revisions: Option<Revisions>,
    /// Its log.
    pub wal: LogReport,
}

/// The end of a log.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogReport {
    /// Term of the last entry.
    pub last_term: u64,
    /// Index of the last entry.
    pub last_index: u64,
    /// The last index known to be committed, as far as it was written down.
    pub commit: u64,
}

/// Why a disk cannot be what the cluster is continued from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unfit {
    /// Its files are damaged.
    Damaged,
    /// It is a learner's, which never votes.
    Learner,
    /// Its own log says that it is not a member.
    NoMember,
}

impl Unfit {
    /// The reason in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Damaged => "its files are damaged",
            Self::Learner => "it belongs to a learner",
            Self::NoMember => "its own WAL does not list it as a member",
        }
    }
}

/// One disk in the ranking.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ranked {
    /// Where the report was read from.
    pub file: PathBuf,
    /// The member's id, as hex.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Term of its last entry.
    pub last_term: u64,
    /// Index of its last entry.
    pub last_index: u64,
    /// Its key-value revisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revisions: Option<Revisions>,
    /// Why it cannot be chosen, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfit: Option<Unfit>,
}

/// What a comparison says.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The cluster's id, as hex.
    pub cluster_id: String,
    /// The disks, the best first, those that cannot be chosen last.
    pub ranking: Vec<Ranked>,
    /// Why the first one is the best.
    pub reason: String,
    /// How many voters there are, as the best disk knows.
    pub voters: usize,
    /// How many of them have a sound disk among these.
    pub at_hand: usize,
    /// Members that the best disk knows of and that have no report.
    pub missing: Vec<Known>,
    /// Whether acknowledged writes may be missing from the best disk.
    pub may_lack_writes: bool,
    /// What may be lost, in a sentence.
    pub loss: String,
}

impl DiskReport {
    /// Reads a report.
    ///
    /// # Errors
    /// The refusals `newer-report` and `damaged-report`, neither to be allowed.
    pub fn read(path: &Path) -> Result<Self> {
        let named = |failure: Failure| failure.with(Fact::Path(path.to_owned()));
        let damaged = |what: String| {
            let what = format!("{}: {what}", path.display());
            named(Failure::refused_for_good("damaged-report", what))
        };
        let bytes = read_given(path, MAX_BYTES)
            .map_err(|failure| failure.as_kind(Kind::Usage))?
            .ok_or_else(|| Failure::new(Kind::Usage, format!("there is no {}", path.display())))?;
        let json: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| damaged(format!("expected a report as JSON: {e}")))?;
        let field = |name: &str| json.get(name).cloned().unwrap_or_default();
        match field("schemaVersion").as_u64() {
            Some(SCHEMA_VERSION) => {}
            Some(newer) if newer > SCHEMA_VERSION => {
                let what = format!(
                    "{} has schema version {newer}, but the newest known here is {SCHEMA_VERSION}",
                    path.display()
                );
                return Err(named(Failure::refused_for_good("newer-report", what)));
            }
            _ => return Err(damaged("expected a schema version".to_owned())),
        }
        if field("command") != "verify" || json.get("dataDir").is_none() {
            return Err(damaged("expected a report of verify --data-dir".to_owned()));
        }
        if json.get("member").is_none() {
            let what = "it does not say which member's disk it describes: the WAL has no metadata";
            return Err(damaged(what.to_owned()));
        }
        let report: Self = serde_json::from_value(json)
            .map_err(|e| damaged(format!("expected a report of verify --data-dir: {e}")))?;
        Ok(Self {
            file: path.to_owned(),
            ..report
        })
    }

    fn unfit(&self) -> Option<Unfit> {
        match self.member.role {
            _ if !self.good => Some(Unfit::Damaged),
            Role::Learner => Some(Unfit::Learner),
            Role::None => Some(Unfit::NoMember),
            Role::Voter | Role::Unknown => None,
        }
    }

    /// By what they are compared, as raft does.
    fn end(&self) -> (u64, u64) {
        (self.wal.last_term, self.wal.last_index)
    }

    fn ranked(&self) -> Ranked {
        Ranked {
            file: self.file.clone(),
            id: self.member.id.clone(),
            name: self.member.name.clone(),
            last_term: self.wal.last_term,
            last_index: self.wal.last_index,
            revisions: self.revisions,
            unfit: self.unfit(),
        }
    }
}

/// Reads the reports and compares them.
pub fn run(paths: &[PathBuf]) -> Result<Verdict> {
    let reports = paths
        .iter()
        .map(|path| DiskReport::read(path))
        .collect::<Result<Vec<_>>>()
        .map_err(|failure| failure.doing("comparing disks"))?;
    compare(reports).map_err(|failure| failure.doing("comparing disks"))
}

/// Compares disks.
///
/// # Errors
/// The refusals `different-clusters`, `same-member-twice` and `no-survivor`, none to be allowed.
pub fn compare(mut reports: Vec<DiskReport>) -> Result<Verdict> {
    check(&reports)?;
    // Among equals, the one that has applied the most has the least to do.
    reports.sort_by_key(|report| {
        let revision = report.revisions.map(|revisions| revisions.database);
        let fit = report.unfit().is_none();
        Reverse((fit, report.end(), report.wal.commit, revision))
    });
    let best = reports.first().filter(|best| best.unfit().is_none());
    let best = best.ok_or_else(|| no_survivor(&reports))?;
    let sound: BTreeSet<&str> = reports
        .iter()
        .filter(|report| report.good)
        .map(|report| report.member.id.as_str())
        .collect();
    let members = best.membership.clone().unwrap_or_default();
    let voters: Vec<&str> = members
        .iter()
        .filter(|member| !member.learner)
        .map(|member| member.id.as_str())
        .collect();
    let majority_of = |voters: &[&str]| {
        let here = voters.iter().filter(|id| sound.contains(**id)).count();
        here > voters.len() / 2
    };
    let committed: Vec<&str> = best
        .committed_voters
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    // While the membership changes, both the old and the new one have acknowledged writes.
    let whole = majority_of(&voters) && (committed.is_empty() || majority_of(&committed));
    let with_report: BTreeSet<&str> = reports
        .iter()
        .map(|report| report.member.id.as_str())
        .collect();
    let missing: Vec<Known> = members
        .iter()
        .filter(|member| !with_report.contains(member.id.as_str()))
        .cloned()
        .collect();
    let at_hand = voters.iter().filter(|id| sound.contains(**id)).count();
    Ok(Verdict {
        cluster_id: best.member.cluster_id.clone(),
        reason: reason(best, &reports),
        voters: voters.len(),
        at_hand,
        may_lack_writes: !whole,
        loss: loss(whole, at_hand, voters.len(), &missing, best, &reports),
        ranking: reports.iter().map(DiskReport::ranked).collect(),
        missing,
    })
}

fn no_survivor(reports: &[DiskReport]) -> Failure {
    let reasons = reports.iter().map(|report| {
        let why = report.unfit().map_or("", Unfit::words);
        format!("{}: {why}", name(&report.member))
    });
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    let what = format!("none of these disks can be used for recovery: {reasons}");
    Failure::refused_for_good("no-survivor", what)
}

fn check(reports: &[DiskReport]) -> Result<()> {
    let Some(first) = reports.first() else {
        return Err(Failure::new(Kind::Usage, "no report is given"));
    };
    let mut seen = BTreeSet::new();
    for report in reports {
        if report.member.cluster_id != first.member.cluster_id {
            return Err(Failure::refused_for_good(
                "different-clusters",
                format!(
                    "{} belongs to cluster {}, {} to cluster {}",
                    first.file.display(),
                    first.member.cluster_id,
                    report.file.display(),
                    report.member.cluster_id
                ),
            ));
        }
        if !seen.insert(&report.member.id) {
            return Err(Failure::refused_for_good(
                "same-member-twice",
                format!(
                    "{} describes member {}, as another of these reports does",
                    report.file.display(),
                    name(&report.member)
                ),
            ));
        }
    }
    Ok(())
}

fn name(member: &Own) -> String {
    match member.name.as_str() {
        "" => member.id.clone(),
        name => format!("{name} ({})", member.id),
    }
}

fn reason(best: &DiskReport, reports: &[DiskReport]) -> String {
    let (term, index) = best.end();
    let who = name(&best.member);
    let next = reports
        .iter()
        .skip(1)
        .find(|report| report.unfit().is_none());
    match next {
        None => format!("only {who}'s disk can be used"),
        Some(next) if next.end() == best.end() => format!(
            "{who} ends with entry {index} of term {term}, as {} does: both are equally good",
            name(&next.member)
        ),
        Some(next) if next.wal.last_term < term => format!(
            "{who} ends with an entry of term {term}, {} with one of term {}: the later term wins, whatever the index",
            name(&next.member),
            next.wal.last_term
        ),
        Some(next) => format!(
            "{who} ends with entry {index} of term {term}, {} entries after {}",
            index.saturating_sub(next.wal.last_index),
            name(&next.member)
        ),
    }
}

fn loss(
    whole: bool,
    at_hand: usize,
    voters: usize,
    missing: &[Known],
    best: &DiskReport,
    reports: &[DiskReport],
) -> String {
    let mut text = if whole {
        format!(
            "no acknowledged write: the disks of {at_hand} of {voters} voting members are here, a majority"
        )
    } else if voters == 0 {
        "acknowledged writes may be missing: the voting members are unknown".to_owned()
    } else {
        let names: Vec<String> = missing
            .iter()
            .map(|member| match member.name.as_str() {
                "" => member.id.clone(),
                name => name.to_owned(),
            })
            .collect();
        let without = match names.as_slice() {
            [] => String::new(),
            names => format!("; without a report: {}", names.join(", ")),
        };
        format!(
            "acknowledged writes may be missing: sound disks of {at_hand} of {voters} voting members are here, and a majority is {}{without}",
            voters / 2 + 1
        )
    };
    for further in reports.iter().filter(|report| report.end() > best.end()) {
        let why = further.unfit().map_or("", Unfit::words);
        text.push_str(&format!(
            "; {} reaches further, to entry {} of term {}, but {why}",
            name(&further.member),
            further.wal.last_index,
            further.wal.last_term
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn disk(id: &str, end: (u64, u64), change: impl FnOnce(&mut DiskReport)) -> DiskReport {
        let member = |id: &str| json!({"id": id, "name": format!("m{id}"), "peerURLs": [], "learner": id == "d"});
        let members: Vec<_> = ["a", "b", "c"].into_iter().map(member).collect();
        let json = json!({
            "good": true,
            "member": {"id": id, "name": format!("m{id}"), "clusterId": "c1", "role": "voter"},
            "membership": members,
            "committedVoters": ["a", "b", "c"],
            "revisions": {"database": 5, "atMost": 9},
            "wal": {"lastTerm": end.0, "lastIndex": end.1, "commit": 3, "unknown": 1},
        });
        let mut report: DiskReport = serde_json::from_value(json).unwrap();
        report.file = PathBuf::from(format!("{id}.json"));
        change(&mut report);
        report
    }

    fn same(_: &mut DiskReport) {}

    #[test]
    fn the_later_term_wins_and_then_the_index() {
        let verdict = compare(vec![
            disk("a", (4, 900), same),
            disk("b", (5, 100), same),
            disk("c", (5, 99), same),
        ])
        .unwrap();
        let order: Vec<_> = verdict.ranking.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(order, ["b", "c", "a"]);
        assert!(
            verdict.reason.contains("1 entries after mc"),
            "{}",
            verdict.reason
        );
        assert!(!verdict.may_lack_writes && verdict.missing.is_empty());
        let by_term = compare(vec![disk("a", (4, 900), same), disk("b", (5, 100), same)]).unwrap();
        assert!(by_term.reason.contains("the later term wins"));
        assert!(!by_term.may_lack_writes);
        assert_eq!(by_term.missing[0].name, "mc");
    }

    #[test]
    fn a_minority_may_lack_writes() {
        let verdict = compare(vec![disk("a", (4, 900), same)]).unwrap();
        assert!(verdict.may_lack_writes);
        assert!(
            verdict.loss.contains("without a report: mb, mc"),
            "{}",
            verdict.loss
        );
        // A damaged disk is not a disk.
        let broken = |report: &mut DiskReport| report.good = false;
        let verdict =
            compare(vec![disk("a", (4, 900), same), disk("b", (4, 901), broken)]).unwrap();
        assert!(verdict.may_lack_writes);
        assert!(verdict.loss.contains("mb (b) reaches further"));
        // While b joins, the old majority counts too.
        let alone = |report: &mut DiskReport| report.committed_voters = Some(vec!["x".into()]);
        let joining = vec![disk("a", (4, 900), alone), disk("b", (4, 1), same)];
        assert!(compare(joining).unwrap().may_lack_writes);
    }

    #[test]
    fn who_cannot_be_chosen_comes_last() {
        let learner = |report: &mut DiskReport| report.member.role = Role::Learner;
        let verdict = compare(vec![disk("d", (9, 9), learner), disk("a", (4, 4), same)]).unwrap();
        assert_eq!(verdict.ranking[0].id, "a");
        assert_eq!(verdict.ranking[1].unfit, Some(Unfit::Learner));
        assert!(verdict.may_lack_writes);
        let nobody = compare(vec![disk("d", (9, 9), learner)]).unwrap_err();
        assert_eq!(nobody.refusal(), Some("no-survivor"));
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let foreign = |report: &mut DiskReport| report.member.cluster_id = "c2".into();
        let two = vec![disk("a", (1, 1), same), disk("b", (1, 1), foreign)];
        assert_eq!(
            compare(two).unwrap_err().refusal(),
            Some("different-clusters")
        );
        let twice = vec![disk("a", (1, 1), same), disk("a", (1, 2), same)];
        assert_eq!(
            compare(twice).unwrap_err().refusal(),
            Some("same-member-twice")
        );
        assert_eq!(compare(vec![]).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn reports_are_read_with_care() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let refusal = |text: &str| {
            std::fs::write(&path, text).unwrap();
            DiskReport::read(&path).unwrap_err().refusal()
        };
        assert_eq!(refusal("{"), Some("damaged-report"));
        assert_eq!(refusal("{\"schemaVersion\":2}"), Some("newer-report"));
        assert_eq!(
            refusal("{\"schemaVersion\":1,\"command\":\"list\"}"),
            Some("damaged-report")
        );
        let none = DiskReport::read(&dir.path().join("none")).unwrap_err();
        assert_eq!(none.kind(), Kind::Usage);
    }
}
