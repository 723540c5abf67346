//! Bumps the revision above all that clients can have seen.
//!
//! A client that has watched the lost cluster up to revision 900 would wait at a store restored to
//! 500 for what it believes it has seen, and keep a cache of changes that no longer exist. So a
//! restore can bump the revision above all that were ever served and mark everything below as
//! compacted: then such a client gets "compacted" and re-lists. etcd does so for `etcdutl snapshot
//! restore --bump-revision N --mark-compacted`: one entry with an empty value at the new revision
//! in the bucket `key`, and the same as `scheduledCompactRev` in `meta`; the server finishes that
//! compaction when it starts (etcd, `etcdutl/snapshot/v3_snapshot.go`).

use crate::error::{Failure, Kind, Result};

/// Added to the highest known revision, for what the lost cluster may have written since: more than
/// eleven days at a thousand writes a second.
pub const SLACK: i64 = 1_000_000_000;

/// The highest revision that a restore bumps to. Half of all numbers remain for writes and further
/// restores.
pub const HIGHEST: i64 = i64::MAX / 2;

/// How the revision is to be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bump {
    /// Above the highest revision known of, by so many.
    Auto {
        /// What is added.
        slack: i64,
    },
    /// Adds this to the snapshot's own; 0 keeps it.
    By(i64),
}

/// A revision that the cluster is known to have reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Where that is known from: `backup-12`, a path.
    pub source: String,
    /// The revision, or a bound that it cannot have exceeded.
    pub revision: i64,
}

impl Evidence {
    /// The bound that a raft index gives for the revision. A raft entry makes one revision at most,
    /// so between two moments of *one* raft history the revision grows by no more than the index
    /// does. This does not hold across a restore, which begins a new history at index 1: the caller
    /// must know that both have the same cluster id.
    ///
    /// `None` if the sum overflows.
    pub fn from_raft_index(
        source: impl Into<String>,
        index: u64,
        known: (i64, u64),
    ) -> Option<Self> {
        let (revision, at_index) = known;
        let grown = i64::try_from(index.saturating_sub(at_index)).ok()?;
        Some(Self {
            source: source.into(),
            revision: revision.checked_add(grown)?,
        })
    }
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The new revision, marked as compacted; `None` if the snapshot's stays.
    pub revision: Option<i64>,
    /// The reasoning, a line each.
    pub reasons: Vec<String>,
}

/// What a bump is decided on.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What was asked for.
    pub bump: Bump,
    /// Whether everything up to the new revision is marked as compacted. Required if the revision
    /// is bumped by a number, impossible if it is not bumped.
    pub mark_compacted: bool,
    /// The snapshot's current revision.
    pub snapshot: i64,
    /// What else is known.
    pub evidence: &'a [Evidence],
    /// Whether a bump that does not exceed everything known is allowed.
    pub allow_low: bool,
}

/// The sum, unless it leaves too few numbers for later writes.
fn raised(base: i64, more: i64) -> Result<i64> {
    base.checked_add(more)
        .filter(|sum| *sum <= HIGHEST)
        .ok_or_else(|| {
            Failure::refused_for_good(
                "bump-too-large",
                format!(
                    "bumping the revision above {HIGHEST} would leave too few for later writes"
                ),
            )
        })
}

fn too_small(more: i64, raised: i64, top: i64, source: &str) -> Failure {
    Failure::refused(
        "bump-too-small",
        format!(
            "bumping the revision by {more} gives {raised}, which does not exceed {top}, known from {source}"
        ),
    )
}

fn check_options(bump: Bump, mark_compacted: bool) -> Result<()> {
    let what = match bump {
        Bump::By(0) if mark_compacted => "revisions can be marked as compacted only with a bump",
        Bump::By(more) if more < 0 => "the revision cannot be lowered",
        Bump::By(more) if more > 0 && !mark_compacted => {
            "a bump requires all older revisions to be marked as compacted"
        }
        Bump::Auto { slack } if slack < 1 => "the bump must go beyond the highest revision known",
        _ => return Ok(()),
    };
    Err(Failure::new(Kind::Usage, what))
}

/// Decides on the new revision.
///
/// # Errors
/// [`Kind::Usage`] if the options do not go together, and the refusals `bump-too-small` and,
/// not to be allowed, `bump-too-large`.
pub fn decide(question: &Question<'_>) -> Result<Decision> {
    let Question {
        bump,
        mark_compacted,
        snapshot,
        evidence,
        allow_low,
    } = *question;
    check_options(bump, mark_compacted)?;
    let mut reasons = vec![format!("the snapshot is at revision {snapshot}")];
    reasons.extend(
        evidence
            .iter()
            .map(|known| format!("{} says {}", known.source, known.revision)),
    );
    let highest = evidence
        .iter()
        .filter(|known| known.revision > snapshot)
        .max_by_key(|known| known.revision);
    let (top, source) = highest.map_or((snapshot, "the snapshot"), |known| {
        (known.revision, known.source.as_str())
    });
    let revision = match bump {
        Bump::By(0) => {
            reasons.push("the revision is not bumped, as requested".to_owned());
            if top > snapshot {
                reasons.push(format!(
                    "clients that have seen revisions up to {top} ({source}) will not notice the restore"
                ));
            }
            return Ok(Decision {
                revision: None,
                reasons,
            });
        }
        Bump::By(more) => {
            let raised = raised(snapshot, more)?;
            if raised <= top && !allow_low {
                return Err(too_small(more, raised, top, source));
            }
            reasons.push(format!("bumped by {more} to {raised}, as requested"));
            raised
        }
        Bump::Auto { slack } => {
            let raised = raised(top, slack)?;
            reasons.push(format!(
                "the highest known revision is {top}, from {source}; {slack} more for later writes gives {raised}"
            ));
            raised
        }
    };
    reasons.push(format!(
        "revisions up to {revision} are marked as compacted, so that clients re-list"
    ));
    Ok(Decision {
        revision: Some(revision),
        reasons,
    })
}

/// The same for a restore to an earlier revision of the snapshot, if `to` is one. Clients have seen
/// the snapshot's own revision in any case.
///
/// # Errors
/// Those of [`decide`].
pub fn decide_at(question: &Question<'_>, to: Option<i64>) -> Result<Decision> {
    let Some(revision) = to else {
        return decide(question);
    };
    let mut evidence = question.evidence.to_vec();
    evidence.push(Evidence {
        source: "the snapshot".to_owned(),
        revision: question.snapshot,
    });
    let mut decision = decide(&Question {
        snapshot: revision,
        evidence: &evidence,
        ..*question
    })?;
    if let Some(first) = decision.reasons.first_mut() {
        *first = format!("the data is restored to revision {revision}");
    }
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(source: &str, revision: i64) -> Evidence {
        Evidence {
            source: source.into(),
            revision,
        }
    }

    fn ask(bump: Bump, mark_compacted: bool, evidence: &[Evidence]) -> Result<Decision> {
        decide(&Question {
            bump,
            mark_compacted,
            snapshot: 500,
            evidence,
            allow_low: false,
        })
    }

    #[test]
    fn auto_exceeds_everything_known() {
        let evidence = [
            known("backup-1", 499),
            known("backup-2", 900),
            known("x", 7),
        ];
        let auto = Bump::Auto { slack: SLACK };
        let decision = ask(auto, true, &evidence).unwrap();
        assert_eq!(decision.revision, Some(900 + SLACK));
        assert!(
            decision
                .reasons
                .iter()
                .any(|r| r.contains("900, from backup-2")),
            "{:?}",
            decision.reasons
        );
        let alone = ask(auto, true, &[]).unwrap();
        assert_eq!(alone.revision, Some(500 + SLACK));
    }

    #[test]
    fn a_number_must_exceed_everything_known() {
        let evidence = [known("backup-2", 900)];
        let low = ask(Bump::By(400), true, &evidence).unwrap_err();
        assert_eq!(low.refusal(), Some("bump-too-small"));
        assert_eq!(
            ask(Bump::By(401), true, &evidence).unwrap().revision,
            Some(901)
        );
        let allowed = decide(&Question {
            bump: Bump::By(1),
            mark_compacted: true,
            snapshot: 500,
            evidence: &evidence,
            allow_low: true,
        });
        assert_eq!(allowed.unwrap().revision, Some(501));
        // Its own revision is known too.
        assert_eq!(ask(Bump::By(1), true, &[]).unwrap().revision, Some(501));
    }

    #[test]
    fn both_or_neither() {
        assert_eq!(ask(Bump::By(0), false, &[]).unwrap().revision, None);
        for (bump, mark) in [
            (Bump::By(0), true),
            (Bump::By(1), false),
            (Bump::By(-1), true),
            (Bump::Auto { slack: 0 }, true),
        ] {
            assert_eq!(ask(bump, mark, &[]).unwrap_err().kind(), Kind::Usage);
        }
        let warned = ask(Bump::By(0), false, &[known("b", 900)]).unwrap();
        assert!(warned.reasons.iter().any(|r| r.contains("up to 900")));
    }

    #[test]
    fn nothing_overflows() {
        for (bump, evidence) in [
            (Bump::By(i64::MAX), vec![]),
            (Bump::By(HIGHEST), vec![]),
            (Bump::Auto { slack: SLACK }, vec![known("x", i64::MAX)]),
            (Bump::Auto { slack: i64::MAX }, vec![]),
        ] {
            let failure = ask(bump, true, &evidence).unwrap_err();
            assert_eq!(failure.refusal(), Some("bump-too-large"));
        }
        assert!(ask(Bump::By(HIGHEST - 500), true, &[]).is_ok());
    }

    #[test]
    fn a_raft_index_bounds_the_revision() {
        let of = |index, known| Evidence::from_raft_index("revision.json", index, known);
        assert_eq!(of(1200, (500, 1000)).unwrap().revision, 700);
        // Of another history: no more than what is known.
        assert_eq!(of(3, (500, 1000)).unwrap().revision, 500);
        assert_eq!(of(u64::MAX, (500, 1000)), None);
        assert_eq!(of(1 << 62, (i64::MAX, 1)), None);
    }

    #[test]
    fn data_that_goes_back_is_bumped_above_the_snapshots_own_revision() {
        let question = |bump, mark_compacted| Question {
            bump,
            mark_compacted,
            snapshot: 500,
            evidence: &[],
            allow_low: false,
        };
        let auto = question(Bump::Auto { slack: 10 }, true);
        assert_eq!(decide_at(&auto, Some(400)).unwrap().revision, Some(510));
        assert_eq!(decide_at(&auto, None).unwrap().revision, Some(510));
        let low = decide_at(&question(Bump::By(100), true), Some(400)).unwrap_err();
        assert_eq!(low.refusal(), Some("bump-too-small"));
        let by = decide_at(&question(Bump::By(101), true), Some(400)).unwrap();
        assert_eq!(by.revision, Some(501));
        let kept = decide_at(&question(Bump::By(0), false), Some(400)).unwrap();
        assert!(
            kept.reasons
                .iter()
                .any(|reason| reason.contains("up to 500"))
        );
    }
}
