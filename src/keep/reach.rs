//! The backup that reaches a revision or a time, by its own history or by the changes recorded after it.

use jiff::{SignedDuration, Timestamp};

use super::catalog::{self, BackupSet};
use super::ranges::{Chain, Continuation, Recorded, continuation};
use crate::error::{Failure, Kind, Result};
use crate::etcd::history::{History, Moment, Reach, Target, UNREACHABLE};
use crate::etcd::segment::changed_beside;

/// Backups whose reach a refusal lists.
const LISTED: usize = 5;
/// Backups that are fetched from a store away from the node for one moment.
const TRIED: usize = 4;
/// A backup's clock and a recorder's may differ by so much.
const CLOCKS: SignedDuration = SignedDuration::from_mins(10);

/// A revision to restore to, and what leads there.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The revision.
    pub moment: Moment,
    /// The recorded changes that are applied to the backup; none if its own history reaches it.
    pub recorded: Option<Recorded>,
}

/// The revision that is meant: of a backup's own history, or else of the changes recorded after it.
///
/// # Errors
/// The refusal `unreachable-target` with what the backup reaches; [`Kind::BadBackup`] if it has no
/// snapshot; those of reading it.
pub fn moment(
    set: &BackupSet,
    target: &Target,
    continued: Option<&Continuation>,
) -> Result<Reached> {
    let found = look(set, target, continued);
    found.map_err(|failure| failure.doing(format!("looking for the moment in {}", set.name)))
}

fn look(set: &BackupSet, target: &Target, continued: Option<&Continuation>) -> Result<Reached> {
    let own = open(set, None).and_then(|history| Moment::find(&history, target));
    let refused = match own {
        Ok(moment) => {
            return Ok(Reached {
                moment,
                recorded: None,
            });
        }
        Err(refused) if refused.refusal() != Some(UNREACHABLE) => return Err(refused),
        Err(refused) => refused,
    };
    let Some(continued) = continued else {
        return Err(refused);
    };
    let history = open(set, Some(continued))?;
    let moment = Moment::find(&history, target)?;
    let mut recorded = history
        .is_recorded(moment.revision)
        .then(|| continued.up_to(moment.revision));
    if let (Some(recorded), Some(snapshot)) = (&mut recorded, &set.files.snapshot) {
        let (dir, from) = (&continued.dir, continued.from);
        recorded.notes = changed_beside(snapshot, dir, from, moment.revision)?;
    }
    Ok(Reached { moment, recorded })
}

/// Opens a backup's history, with the changes recorded after it.
///
/// # Errors
/// [`Kind::BadBackup`] if it has no snapshot; those of reading it.
pub fn open(set: &BackupSet, continued: Option<&Continuation>) -> Result<History> {
    let snapshot = set.files.snapshot.as_deref();
    let without = || Failure::new(Kind::BadBackup, format!("{} has no snapshot", set.name));
    let history = History::open(snapshot.ok_or_else(without)?)?;
    match continued {
        Some(continued) => history.continued(&continued.dir, continued.until),
        None => Ok(history),
    }
}

/// Whether the changes recorded after a backup can have what is meant.
fn may_have(set: &BackupSet, continued: &Continuation, target: &Target) -> bool {
    match target {
        Target::Revision(revision) => (continued.from..=continued.until).contains(revision),
        Target::Time(time) => {
            let after = set.created.is_some_and(|created| {
                created
                    .saturating_sub(CLOCKS)
                    .is_ok_and(|from| from <= *time)
            });
            after
                && *time
                    <= continued
                        .last_received
                        .saturating_add(CLOCKS)
                        .unwrap_or(Timestamp::MAX)
        }
        Target::Before(_) => true,
    }
}

/// The newest good backup that reaches a target, and the revision in it.
///
/// # Errors
/// The refusal `unreachable-target`, not to be allowed, with what the newest backups reach.
pub fn newest(
    sets: Vec<BackupSet>,
    chains: &[Chain],
    target: &Target,
    now: Timestamp,
) -> Result<(BackupSet, Reached)> {
    let mut reaches: Vec<String> = Vec::new();
    let mut refused = None;
    for set in newest_first(&sets, now) {
        // What a later backup has is restored from that one.
        let continued = continuation(chains, &sets, &set).map(|continued| continued.to_next());
        let tried = continued
            .as_ref()
            .filter(|continued| may_have(&set, continued, target));
        match moment(&set, target, tried) {
            Ok(reached) => return Ok((set, reached)),
            Err(failure) if is_final(&failure) => return Err(failure),
            Err(failure) => {
                reaches.push(reach(&set, continued.as_ref()));
                refused.get_or_insert(failure);
            }
        }
    }
    let Some(refused) = refused else {
        let what = "finding a backup that reaches this: there is no good backup";
        return Err(Failure::new(Kind::Usage, what));
    };
    if reaches.len() < 2 {
        return Err(refused);
    }
    let more = match reaches.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!("; and {more} older ones, which do not reach it either"),
    };
    reaches.truncate(LISTED);
    let what = format!("no backup reaches it. {}{more}", reaches.join("; "));
    Err(Failure::refused_for_good(UNREACHABLE, what))
}

/// The backups of a store away from the node that are worth fetching for a target, in the order in which
/// they are tried. Only a revision is certain to be in one; of a time a Manifest tells no more than when
/// its backup was taken.
pub fn candidates(
    sets: &[BackupSet],
    chains: &[Chain],
    target: &Target,
    now: Timestamp,
) -> Vec<BackupSet> {
    let newest_first = newest_first(sets, now);
    let recorded = |set: &BackupSet| {
        let continued = continuation(chains, sets, set);
        continued.is_some_and(|continued| may_have(set, &continued.to_next(), target))
    };
    let own = |set: &BackupSet, revision: i64| {
        let database = set.manifest.as_ref().map(|manifest| &manifest.database);
        database.is_some_and(|database| {
            let first = database.compact_revision.unwrap_or(1);
            (Some(first)..=database.kv_revision).contains(&Some(revision))
        })
    };
    let mut found: Vec<BackupSet> = match target {
        Target::Before(_) => Vec::new(),
        Target::Revision(revision) => newest_first
            .iter()
            .filter(|set| own(set, *revision) || recorded(set))
            .cloned()
            .collect(),
        Target::Time(time) => {
            // A later backup's own history begins later than that of the first one after the time.
            let after = newest_first.iter().rev();
            let after = after.filter(|set| set.created.is_some_and(|created| created >= *time));
            let earlier = newest_first.iter().filter(|set| recorded(set));
            let mut found: Vec<BackupSet> = after.take(1).cloned().collect();
            for set in earlier {
                if found.iter().all(|known| known.name != set.name) {
                    found.push(set.clone());
                }
            }
            found
        }
    };
    found.truncate(TRIED);
    if found.is_empty() {
        found.extend(newest_first.into_iter().take(1));
    }
    found
}

/// The good backups that count now.
fn newest_first(sets: &[BackupSet], now: Timestamp) -> Vec<BackupSet> {
    let mut left: Vec<BackupSet> = sets.to_vec();
    left.retain(BackupSet::is_good);
    let mut ordered = Vec::new();
    while let Some(name) = catalog::newest_good(&left, now).map(|set| set.name.clone()) {
        let Some(at) = left.iter().position(|set| set.name == name) else {
            break;
        };
        ordered.push(left.swap_remove(at));
    }
    ordered
}

/// Whether no other backup is tried: the word means several things, or recorded changes are not sound.
fn is_final(failure: &Failure) -> bool {
    let refused = failure.refusal();
    failure.kind() == Kind::Usage || refused.is_some_and(|name| name != UNREACHABLE)
}

/// What a backup reaches, in words.
fn reach(set: &BackupSet, continued: Option<&Continuation>) -> String {
    let name = &set.name;
    let own = open(set, None).and_then(|history| Reach::read(&history));
    let recorded = continued.map(|continued| {
        format!(
            ", and recorded revisions up to {}, {}",
            continued.until,
            continued.last_received.strftime("%Y-%m-%dT%H:%M:%SZ")
        )
    });
    let recorded = recorded.unwrap_or_default();
    match own {
        Ok(reach) => format!("{name}: {reach}{recorded}"),
        Err(unread) => format!("{name}: {unread}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::backup::manifest::HashKv;
    use crate::backup::manifest::tests::example;
    use crate::etcd::segment::Name;
    use crate::keep::catalog::SetState;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    fn set(name: &str, compacted: i64, revision: i64, minute: i64) -> BackupSet {
        let mut manifest = example();
        manifest.cluster.etcd_id = "c".to_owned();
        manifest.created = at(minute);
        manifest.database.kv_revision = Some(revision);
        manifest.database.compact_revision = Some(compacted);
        manifest.database.hash_kv = Some(HashKv {
            hash: 1,
            revision,
            compact_revision: compacted,
        });
        BackupSet {
            created: Some(at(minute)),
            manifest: Some(manifest),
            ..BackupSet::at(name.to_owned(), Path::new("/x"), SetState::Good)
        }
    }

    #[test]
    fn only_backups_that_may_reach_a_moment_are_fetched() {
        let sets = [
            set("c/n/backup-1", 10, 100, 60),
            set("c/n/backup-2", 150, 200, 120),
            set("c/n/backup-3", 250, 300, 180),
        ];
        let chains = [Chain {
            dir: PathBuf::from("c/n/changes/x"),
            cluster_id: "c".to_owned(),
            segments: vec![Name {
                first: 101,
                last: 310,
            }],
            begun: None,
            encrypted: false,
            last_received: at(185),
        }];
        let found = |chains: &[Chain], target: Target| {
            let found = candidates(&sets, chains, &target, at(1000));
            found
                .iter()
                .map(|set| set.number().unwrap())
                .collect::<Vec<_>>()
        };
        let revision = |chains: &[Chain], n| found(chains, Target::Revision(n));
        let time = |chains: &[Chain], minute| found(chains, Target::Time(at(minute)));
        assert_eq!(revision(&chains, 160), [2, 1]);
        assert_eq!(revision(&chains, 140), [1]);
        assert_eq!(revision(&chains, 305), [3]);
        assert_eq!(revision(&[], 160), [2]);
        // What refuses it is the newest.
        assert_eq!(revision(&[], 140), [3]);
        assert_eq!(revision(&chains, 999), [3]);
        assert_eq!(time(&chains, 100), [2, 1]);
        assert_eq!(time(&chains, 150), [3, 2, 1]);
        assert_eq!(time(&chains, 184), [3, 2, 1]);
        assert_eq!(time(&[], 100), [2]);
        assert_eq!(time(&[], 900), [3]);
        assert_eq!(found(&chains, Target::Before("/x".to_owned())), [3]);
    }
}
