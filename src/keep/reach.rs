//! The backup that reaches a revision or a time.

use jiff::Timestamp;

use super::catalog::{self, BackupSet};
use crate::error::{Failure, Kind, Result};
use crate::etcd::history::{History, Moment, Reach, Target, UNREACHABLE};

/// Backups whose reach a refusal lists.
const LISTED: usize = 5;

/// The revision of a backup that is meant.
///
/// # Errors
/// The refusal `unreachable-target` with what the backup reaches; [`Kind::BadBackup`] if it has no
/// snapshot; those of reading it.
pub fn moment(set: &BackupSet, target: &Target) -> Result<Moment> {
    let found = open(set).and_then(|history| Moment::find(&history, target));
    found.map_err(|failure| failure.doing(format!("looking for the moment in {}", set.name)))
}

/// Opens a backup's history.
///
/// # Errors
/// [`Kind::BadBackup`] if it has no snapshot; those of reading it.
pub fn open(set: &BackupSet) -> Result<History> {
    let snapshot = set.files.snapshot.as_deref();
    let without = || Failure::new(Kind::BadBackup, format!("{} has no snapshot", set.name));
    History::open(snapshot.ok_or_else(without)?)
}

/// The newest good backup that reaches a target, and the revision in it.
///
/// # Errors
/// The refusal `unreachable-target`, not to be allowed, with what the newest backups reach.
pub fn newest(
    mut sets: Vec<BackupSet>,
    target: &Target,
    now: Timestamp,
) -> Result<(BackupSet, Moment)> {
    sets.retain(BackupSet::is_good);
    let mut reaches: Vec<String> = Vec::new();
    let mut refused = None;
    while let Some(name) = catalog::newest_good(&sets, now).map(|set| set.name.clone()) {
        let Some(at) = sets.iter().position(|set| set.name == name) else {
            break;
        };
        let set = sets.swap_remove(at);
        match moment(&set, target) {
            Ok(moment) => return Ok((set, moment)),
            Err(failure) if failure.kind() == Kind::Usage => return Err(failure),
            Err(failure) => {
                let reach = open(&set).and_then(|history| Reach::read(&history));
                reaches.push(match reach {
                    Ok(reach) => format!("{name}: {reach}"),
                    Err(unread) => format!("{name}: {unread}"),
                });
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
