//! The quality gate of `backup`: checks by name, each an error unless it is allowed.
//!
//! Everything is read from etcd itself, over the connection the snapshot comes through. The
//! rules are pure functions of what was seen.

use jiff::{SignedDuration, Timestamp};

use crate::backup::manifest::{Check, CheckResult, Quality, QualityState, Reason};
use crate::error::{Fact, Failure, Kind, Result};

/// A member does not answer, or says it is unwell.
pub const ETCD_UNHEALTHY_MEMBER: &str = "etcd-unhealthy-member";
/// An alarm is raised.
pub const ETCD_ALARM: &str = "etcd-alarm";
/// The source knows no leader.
pub const ETCD_NO_LEADER: &str = "etcd-no-leader";
/// The source is a learner.
pub const LEARNER_SOURCE: &str = "learner-source";
/// The members' applied raft indexes are far apart.
pub const RAFT_LAG: &str = "raft-lag";
/// The members' data differ.
pub const HASHKV_MISMATCH: &str = "hashkv-mismatch";
/// A ClusterOperator is rolling out, or does not say that it is not.
pub const OPERATOR_PROGRESSING: &str = "operator-progressing";
/// The cluster or the node is younger than a day.
pub const BEFORE_FIRST_CERT_ROTATION: &str = "before-first-cert-rotation";
/// The static pods changed while the backup was taken.
pub const ROLLOUT_DURING_BACKUP: &str = "rollout-during-backup";
/// Not every static pod has resources that can be archived.
pub const STATIC_PODS_INCOMPLETE: &str = "static-pods-incomplete";
/// The profile's files are root's, and this process is not; no check of the backup's quality.
pub const ROOT_REQUIRED: &str = "root-required";

/// Every name that can be allowed.
pub const ALLOWABLE: [&str; 11] = [
    ETCD_UNHEALTHY_MEMBER,
    ETCD_ALARM,
    ETCD_NO_LEADER,
    LEARNER_SOURCE,
    RAFT_LAG,
    HASHKV_MISMATCH,
    OPERATOR_PROGRESSING,
    BEFORE_FIRST_CERT_ROTATION,
    ROLLOUT_DURING_BACKUP,
    STATIC_PODS_INCOMPLETE,
    ROOT_REQUIRED,
];

/// The checks of a backup's quality: a failed one that is allowed makes it dirty.
pub const CHECKS: [&str; 10] = [
    ETCD_UNHEALTHY_MEMBER,
    ETCD_ALARM,
    ETCD_NO_LEADER,
    LEARNER_SOURCE,
    RAFT_LAG,
    HASHKV_MISMATCH,
    OPERATOR_PROGRESSING,
    BEFORE_FIRST_CERT_ROTATION,
    ROLLOUT_DURING_BACKUP,
    STATIC_PODS_INCOMPLETE,
];

/// How far the members' applied indexes may be apart. etcd itself refuses requests when a
/// member's applied index trails its committed one by this much (`maxGapBetweenApplyAndCommitIndex`
/// in server/etcdserver/v3_server.go).
pub const RAFT_LAG_LIMIT: u64 = 5000;
/// OpenShift rotates the first certificates after this long; a backup from before restores
/// expired ones ("Backing up etcd" in the OpenShift documentation).
pub const FIRST_ROTATION: SignedDuration = SignedDuration::from_hours(24);

/// What one member answered.
#[derive(Debug, Clone)]
pub struct MemberSeen {
    /// Its name, or its id where it has none yet.
    pub name: String,
    /// Whether it is a learner.
    pub learner: bool,
    /// Its applied raft index, or why there is no answer.
    pub answer: Result<MemberAnswer, String>,
}

/// A member's own account of itself.
#[derive(Debug, Clone, Default)]
pub struct MemberAnswer {
    /// Raft index it has applied.
    pub applied: u64,
    /// What it reports as wrong.
    pub errors: Vec<String>,
}

/// One ClusterOperator.
#[derive(Debug, Clone)]
pub struct OperatorSeen {
    /// Its name.
    pub name: &'static str,
    /// Whether it is progressing, with its message; or why that is not known.
    pub progressing: Result<(bool, String), String>,
}

/// The members' data at one revision.
#[derive(Debug, Clone)]
pub struct HashSeen {
    /// The member's name.
    pub member: String,
    /// HashKV and the compact revision it was computed with; or why the member gave none.
    pub hash: Result<(u32, i64), String>,
}

/// All that the gate looks at.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The source member's name.
    pub source: String,
    /// Whether the source is a learner.
    pub source_learner: bool,
    /// Whether the source knows a leader.
    pub has_leader: bool,
    /// Every member, the source included.
    pub members: Vec<MemberSeen>,
    /// Alarms: member name and kind.
    pub alarms: Vec<(String, String)>,
    /// The members' hashes, if they were asked for.
    pub hashes: Option<Vec<HashSeen>>,
    /// The ClusterOperators, where the profile has them.
    pub operators: Option<Vec<OperatorSeen>>,
    /// When cluster and node were made, if that is known: what, and when.
    pub births: Vec<(String, Timestamp)>,
}

/// What the operator allowed.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// By name.
    pub names: Vec<String>,
    /// All of them.
    pub all: bool,
}

impl Allowed {
    /// Whether a check of this name may fail.
    pub fn allows(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|allowed| allowed == name)
    }
}

/// Runs every check but [`STATIC_PODS_INCOMPLETE`] and [`ROLLOUT_DURING_BACKUP`], which are about the
/// node and not the cluster.
pub fn assess(seen: &Seen, now: Timestamp) -> Vec<Check> {
    vec![
        verdict(ETCD_UNHEALTHY_MEMBER, unhealthy(seen)),
        verdict(
            ETCD_ALARM,
            seen.alarms
                .iter()
                .map(|(member, kind)| format!("{member} raised {kind}"))
                .collect(),
        ),
        verdict(
            ETCD_NO_LEADER,
            if seen.has_leader {
                vec![]
            } else {
                vec![format!("{} has no leader", seen.source)]
            },
        ),
        verdict(
            LEARNER_SOURCE,
            if seen.source_learner {
                vec![format!("{} is a learner", seen.source)]
            } else {
                vec![]
            },
        ),
        verdict(RAFT_LAG, lag(seen)),
        match &seen.hashes {
            Some(hashes) => verdict(HASHKV_MISMATCH, disagreement(hashes)),
            None => not_checked(HASHKV_MISMATCH, "not requested"),
        },
        match &seen.operators {
            Some(operators) => verdict(OPERATOR_PROGRESSING, progressing(operators)),
            None => not_checked(OPERATOR_PROGRESSING, "only OpenShift has ClusterOperators"),
        },
        if seen.operators.is_none() {
            // Elsewhere no certificate is rotated after a day.
            not_checked(
                BEFORE_FIRST_CERT_ROTATION,
                "only OpenShift rotates certificates on the first day",
            )
        } else if seen.births.is_empty() {
            not_checked(
                BEFORE_FIRST_CERT_ROTATION,
                "no object tells when the cluster was created",
            )
        } else {
            verdict(BEFORE_FIRST_CERT_ROTATION, newborn(seen, now))
        },
    ]
}

/// Turns the checks into the backup's quality.
///
/// # Errors
/// [`Kind::Refused`] with the name of each check that failed and is not allowed.
pub fn gate(checks: &[Check], allowed: &Allowed) -> Result<Quality> {
    let failed = || {
        checks
            .iter()
            .filter(|check| check.result == CheckResult::Failed)
    };
    let refused: Vec<&Check> = failed()
        .filter(|check| !allowed.allows(&check.name))
        .collect();
    if !refused.is_empty() {
        let words: Vec<&str> = refused.iter().map(|check| check.detail.as_str()).collect();
        let mut failure =
            Failure::new(Kind::Refused, words.join("; ")).doing("checking the cluster");
        for name in CHECKS
            .iter()
            .copied()
            .filter(|name| refused.iter().any(|check| check.name == *name))
        {
            failure = failure.with(Fact::Refusal {
                name,
                allowable: true,
            });
        }
        return Err(failure);
    }
    let reasons: Vec<Reason> = failed()
        .map(|check| Reason {
            check: check.name.clone(),
            message: check.detail.clone(),
        })
        .collect();
    let state = if reasons.is_empty() {
        QualityState::Good
    } else {
        QualityState::Dirty
    };
    Ok(Quality { state, reasons })
}

/// A check that failed for these reasons; without any, it passed.
pub fn verdict(name: &str, complaints: Vec<String>) -> Check {
    let result = if complaints.is_empty() {
        CheckResult::Ok
    } else {
        CheckResult::Failed
    };
    Check {
        name: name.to_owned(),
        result,
        detail: complaints.join("; "),
    }
}

fn not_checked(name: &str, why: &str) -> Check {
    Check {
        name: name.to_owned(),
        result: CheckResult::NotChecked,
        detail: why.to_owned(),
    }
}

fn unhealthy(seen: &Seen) -> Vec<String> {
    let complaint = |member: &MemberSeen| match &member.answer {
        Err(why) => Some(format!("member {} does not answer: {why}", member.name)),
        Ok(answer) => {
            // An alarm repeats itself among the errors and has its own check.
            let told: Vec<&str> = answer
                .errors
                .iter()
                .map(String::as_str)
                .filter(|error| !error.contains("alarm:"))
                .collect();
            (!told.is_empty())
                .then(|| format!("member {} reports: {}", member.name, told.join(", ")))
        }
    };
    seen.members.iter().filter_map(complaint).collect()
}

fn lag(seen: &Seen) -> Vec<String> {
    let applied: Vec<(&str, u64)> = seen
        .members
        .iter()
        // A learner that has just joined is behind by nature.
        .filter(|member| !member.learner)
        .filter_map(|member| Some((member.name.as_str(), member.answer.as_ref().ok()?.applied)))
        .collect();
    let highest = applied.iter().map(|(_, index)| *index).max().unwrap_or(0);
    applied
        .iter()
        .filter(|(_, index)| highest - index > RAFT_LAG_LIMIT)
        .map(|(name, index)| {
            format!(
                "member {name} is {} raft entries behind (limit {RAFT_LAG_LIMIT})",
                highest - index
            )
        })
        .collect()
}

fn disagreement(hashes: &[HashSeen]) -> Vec<String> {
    let mut complaints: Vec<String> = hashes
        .iter()
        .filter_map(|seen| {
            Some(format!(
                "member {} returned no hash: {}",
                seen.member,
                seen.hash.as_ref().err()?
            ))
        })
        .collect();
    let told: Vec<(&str, (u32, i64))> = hashes
        .iter()
        .filter_map(|seen| Some((seen.member.as_str(), *seen.hash.as_ref().ok()?)))
        .collect();
    let Some(&(first, (hash, compact))) = told.first() else {
        return complaints;
    };
    for &(member, (other, other_compact)) in &told {
        if other_compact != compact {
            complaints.push(format!(
                "{first} and {member} are compacted at different revisions ({compact}, {other_compact})"
            ));
        } else if other != hash {
            complaints.push(format!(
                "{first} has hash {hash}, {member} has {other} at the same revision"
            ));
        }
    }
    complaints
}

fn progressing(operators: &[OperatorSeen]) -> Vec<String> {
    let complaint = |operator: &OperatorSeen| match &operator.progressing {
        Ok((false, _)) => None,
        Ok((true, message)) if message.is_empty() => {
            Some(format!("operator {} is progressing", operator.name))
        }
        Ok((true, message)) => Some(format!(
            "operator {} is progressing: {message}",
            operator.name
        )),
        Err(why) => Some(format!(
            "cannot tell whether operator {} is progressing: {why}",
            operator.name
        )),
    };
    operators.iter().filter_map(complaint).collect()
}

fn newborn(seen: &Seen, now: Timestamp) -> Vec<String> {
    seen.births
        .iter()
        .filter(|(_, born)| now.duration_since(*born) < FIRST_ROTATION)
        .map(|(what, born)| format!("{what} was created at {born}, less than a day ago: its certificates have not been rotated yet"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T06:00:00Z".parse().unwrap()
    }

    fn well() -> Seen {
        let member = |name: &str| MemberSeen {
            name: name.into(),
            learner: false,
            answer: Ok(MemberAnswer {
                applied: 100_000,
                errors: vec![],
            }),
        };
        Seen {
            source: "m0".into(),
            source_learner: false,
            has_leader: true,
            members: vec![member("m0"), member("m1"), member("m2")],
            alarms: vec![],
            hashes: Some(vec![
                HashSeen {
                    member: "m0".into(),
                    hash: Ok((7, 5)),
                },
                HashSeen {
                    member: "m1".into(),
                    hash: Ok((7, 5)),
                },
            ]),
            operators: Some(vec![OperatorSeen {
                name: "etcd",
                progressing: Ok((false, String::new())),
            }]),
            births: vec![(
                "the cluster".into(),
                "2026-01-01T00:00:00Z".parse().unwrap(),
            )],
        }
    }

    #[test]
    fn a_healthy_cluster_passes_every_check() {
        let checks = assess(&well(), now());
        assert_eq!(checks.len(), CHECKS.len() - 2);
        assert!(
            checks.iter().all(|check| check.result == CheckResult::Ok),
            "{checks:?}"
        );
        assert_eq!(
            gate(&checks, &Allowed::default()).unwrap().state,
            QualityState::Good
        );
    }

    /// Each failure is refused by its own name, passes when that name or all is allowed, and
    /// leaves its reason.
    #[test]
    fn each_check_fails_by_its_name_and_can_be_allowed_by_it() {
        type Spoil = fn(&mut Seen);
        let cases: [(&str, Spoil); 11] = [
            (ETCD_UNHEALTHY_MEMBER, |seen| {
                seen.members[1].answer = Err("refused".into())
            }),
            (ETCD_UNHEALTHY_MEMBER, |seen| {
                seen.members[1]
                    .answer
                    .as_mut()
                    .unwrap()
                    .errors
                    .push("disk".into())
            }),
            (ETCD_ALARM, |seen| {
                seen.alarms.push(("m1".into(), "NOSPACE".into()))
            }),
            (ETCD_NO_LEADER, |seen| seen.has_leader = false),
            (LEARNER_SOURCE, |seen| seen.source_learner = true),
            (RAFT_LAG, |seen| {
                seen.members[2].answer.as_mut().unwrap().applied = 100_000 - RAFT_LAG_LIMIT - 1
            }),
            (HASHKV_MISMATCH, |seen| {
                seen.hashes.as_mut().unwrap()[1].hash = Ok((8, 5))
            }),
            (HASHKV_MISMATCH, |seen| {
                seen.hashes.as_mut().unwrap()[1].hash = Err("timed out".into())
            }),
            (OPERATOR_PROGRESSING, |seen| {
                seen.operators.as_mut().unwrap()[0].progressing = Ok((true, "x".into()))
            }),
            (OPERATOR_PROGRESSING, |seen| {
                seen.operators.as_mut().unwrap()[0].progressing = Err("absent".into())
            }),
            (BEFORE_FIRST_CERT_ROTATION, |seen| {
                seen.births[0].1 = "2026-11-21T05:00:00Z".parse().unwrap()
            }),
        ];
        for (name, spoil) in cases {
            let mut seen = well();
            spoil(&mut seen);
            let checks = assess(&seen, now());
            let failure = gate(&checks, &Allowed::default()).unwrap_err();
            assert_eq!(
                (failure.kind(), failure.refusal()),
                (Kind::Refused, Some(name))
            );
            let others = Allowed {
                names: CHECKS
                    .iter()
                    .filter(|n| **n != name)
                    .map(ToString::to_string)
                    .collect(),
                all: false,
            };
            assert!(
                gate(&checks, &others).is_err(),
                "{name} is not allowed by the others' names"
            );
            for allowed in [
                Allowed {
                    names: vec![name.into()],
                    all: false,
                },
                Allowed {
                    names: vec![],
                    all: true,
                },
            ] {
                let quality = gate(&checks, &allowed).unwrap();
                assert_eq!(quality.state, QualityState::Dirty);
                assert_eq!(
                    quality
                        .reasons
                        .iter()
                        .map(|reason| reason.check.as_str())
                        .collect::<Vec<_>>(),
                    [name]
                );
                assert!(!quality.reasons[0].message.is_empty());
            }
        }
    }

    #[test]
    fn values_at_the_limit_hold() {
        let mut seen = well();
        seen.members[2].answer.as_mut().unwrap().applied = 100_000 - RAFT_LAG_LIMIT;
        seen.births[0].1 = "2026-11-20T06:00:00Z".parse().unwrap();
        assert!(gate(&assess(&seen, now()), &Allowed::default()).is_ok());
    }

    #[test]
    fn only_openshift_has_a_first_day() {
        let mut seen = well();
        seen.births[0].1 = now();
        seen.operators = None;
        let checks = assess(&seen, now());
        let first_day = checks
            .iter()
            .find(|check| check.name == BEFORE_FIRST_CERT_ROTATION)
            .unwrap();
        assert_eq!(first_day.result, CheckResult::NotChecked);
        gate(&checks, &Allowed::default()).unwrap();
    }
}
