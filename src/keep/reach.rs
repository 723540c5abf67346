//! The backup that reaches a revision or a time, by its own history or by the changes recorded after it.

use jiff::{SignedDuration, Timestamp};

use super::catalog::{self, BackupSet};
use super::ranges::{Chain, Continuation, Recorded, continuation};
use crate::error::{Failure, Kind, Result};
use crate::etcd::history::{History, Moment, Reach, Target, UNREACHABLE};

/// Backups whose reach a refusal lists.
const LISTED: usize = 5;
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
    let recorded = history
        .is_recorded(moment.revision)
        .then(|| continued.up_to(moment.revision));
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
    let all = sets.clone();
    let mut sets = sets;
    sets.retain(BackupSet::is_good);
    let mut reaches: Vec<String> = Vec::new();
    let mut refused = None;
    while let Some(name) = catalog::newest_good(&sets, now).map(|set| set.name.clone()) {
        let Some(at) = sets.iter().position(|set| set.name == name) else {
            break;
        };
        let set = sets.swap_remove(at);
        // What a later backup has is restored from that one.
        let continued = continuation(chains, &all, &set).map(|continued| continued.to_next());
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
