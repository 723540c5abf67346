//! Which backups' times are not believed when it is decided what to remove.
//!
//! A store that only takes new backups is no protection by itself where the writer chooses their times: dated
//! into the future or the past, they take the places that the rules keep, and the real ones go
//! (github.com/restic/restic/issues/22057). So a time must agree with the moment at which the store
//! received the backup and, where signatures count, with the chain.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::record::Records;
use super::{ARRIVAL, previous};
use crate::backup::newest::TOLERANCE;
use crate::backup::retention::Reason;
use crate::keep::catalog::{BackupSet, Distrust};
use crate::keep::trust::Trust;

/// Its time is later than its arrival.
pub const DATED_AHEAD: &str = "dated-ahead";
/// Its time is long before its arrival, and no backup that came in time names it.
pub const DATED_BACK: &str = "dated-back";
/// Its time is before that of the backup that it names as the one before it.
pub const OUT_OF_ORDER: &str = "out-of-order";

/// For each backup of a store why it does not count, if it does not.
pub fn doubts(sets: &[&BackupSet], trust: &Trust, records: &Records) -> Vec<Option<Reason>> {
    let mut doubts: Vec<Option<Reason>> = sets
        .iter()
        .map(|set| distrusted(set, trust).or_else(|| dated_ahead(set)))
        .collect();
    // Anybody can make a chain without a signature: it vouches for nothing.
    if !trust.is_asked() {
        return doubts;
    }
    let vouched = vouched(sets, &doubts, records);
    for ((set, doubt), vouched) in sets.iter().zip(&mut doubts).zip(vouched) {
        if doubt.is_none() && !vouched {
            *doubt = dated_back(set);
        }
    }
    let wrong: Vec<Option<Reason>> = sets
        .iter()
        .zip(&doubts)
        .map(|(set, doubt)| match doubt {
            None => out_of_order(set, sets, &doubts),
            Some(_) => None,
        })
        .collect();
    for (doubt, wrong) in doubts.iter_mut().zip(wrong) {
        *doubt = doubt.take().or(wrong);
    }
    doubts
}

fn reason(rule: &'static str, detail: String) -> Option<Reason> {
    Some(Reason { rule, detail })
}

fn distrusted(set: &BackupSet, trust: &Trust) -> Option<Reason> {
    // What is not ours never counts anyway.
    set.manifest.as_ref()?;
    let Distrust { name, why } = trust.doubt(set)?;
    reason(name, format!("{why}; it does not count"))
}

/// How much later a backup arrived than it says that it was taken; none if the store does not tell.
fn delay(set: &BackupSet) -> Option<(SignedDuration, Timestamp)> {
    set.manifest.as_ref()?;
    let arrived = set.arrived?;
    Some((arrived.duration_since(set.created?), arrived))
}

fn dated_ahead(set: &BackupSet) -> Option<Reason> {
    let (delay, arrived) = delay(set)?;
    let detail =
        format!("it arrived at {arrived}, before the time that it claims; it does not count");
    (delay < -ARRIVAL)
        .then(|| reason(DATED_AHEAD, detail))
        .flatten()
}

fn dated_back(set: &BackupSet) -> Option<Reason> {
    let (delay, arrived) = delay(set)?;
    let detail = format!(
        "it arrived at {arrived}, long after the time that it claims, and no backup that came in time names it; it does not count"
    );
    (delay > ARRIVAL)
        .then(|| reason(DATED_BACK, detail))
        .flatten()
}

/// Which backups came in time, or are named by one that did: a chain cannot be extended into its past.
fn vouched(sets: &[&BackupSet], doubts: &[Option<Reason>], records: &Records) -> Vec<bool> {
    let by_hash: BTreeMap<&str, usize> = sets
        .iter()
        .enumerate()
        .filter_map(|(index, set)| Some((set.manifest_sha256.as_deref()?, index)))
        .collect();
    let believed = |index: usize| doubts.get(index).is_some_and(Option::is_none);
    let mut vouched: Vec<bool> = sets
        .iter()
        .enumerate()
        .map(|(index, set)| {
            let late = delay(set).is_some_and(|(delay, _)| delay > ARRIVAL);
            believed(index) && !late
        })
        .collect();
    let mut open: Vec<usize> = (0..sets.len())
        .filter(|&index| vouched.get(index) == Some(&true))
        .collect();
    while let Some(index) = open.pop() {
        let named = sets
            .get(index)
            .and_then(|set| before(set, &by_hash, records));
        let Some(named) = named.filter(|&named| believed(named)) else {
            continue;
        };
        if let Some(place) = vouched.get_mut(named)
            && !std::mem::replace(place, true)
        {
            open.push(named);
        }
    }
    vouched
}

/// The backup before another that is still there; between them are only removed ones.
fn before(set: &BackupSet, by_hash: &BTreeMap<&str, usize>, records: &Records) -> Option<usize> {
    let mut next = previous(set)?;
    // A forged record could lead in a circle: no walk is longer than the records.
    for _ in 0..=records.len() {
        if let Some(&index) = by_hash.get(next.sha256.as_str()) {
            return Some(index);
        }
        next = records.get(&next.sha256)?.previous.as_ref()?;
    }
    None
}

fn out_of_order(set: &BackupSet, sets: &[&BackupSet], doubts: &[Option<Reason>]) -> Option<Reason> {
    let named = previous(set)?;
    let is_named = |other: &&BackupSet| other.manifest_sha256.as_deref() == Some(&named.sha256);
    let at = sets.iter().position(is_named)?;
    // Of two times that contradict each other the one already in doubt is the wrong one.
    doubts.get(at)?.is_none().then_some(())?;
    let (own, earlier) = (set.created?, sets.get(at)?.created?);
    let detail = format!(
        "it claims a time before that of {}, which it follows; it does not count",
        named.id
    );
    (earlier.duration_since(own) > TOLERANCE)
        .then(|| reason(OUT_OF_ORDER, detail))
        .flatten()
}
