//! Which sets count, and which is verified next.

use std::time::Duration;

use jiff::Timestamp;

use crate::backup::newest;
use crate::keep::catalog;
use crate::keep::catalog::{BackupSet, SetState};

/// When the newest set of ours was begun that is whole, dirty ones too: a check that was allowed is
/// no reason to take the same backup again. One from the future does not count.
pub fn newest_whole(sets: &[BackupSet], now: Timestamp) -> Option<Timestamp> {
    let whole = |set: &BackupSet| matches!(set.state, SetState::Good | SetState::Dirty);
    catalog::newest(sets, now, whole)?.created
}

/// The set whose turn it is: the oldest that was never verified, else the one whose verification
/// is the longest ago. The set `but` was read back when it was written, and is left out. A record
/// from the future does not count: it would keep its set from ever being looked at again.
pub fn next_to_verify<'a>(
    sets: &'a [BackupSet],
    but: Option<&str>,
    now: Timestamp,
) -> Option<&'a BackupSet> {
    sets.iter()
        .filter(|set| set.manifest.is_some() && Some(set.name.as_str()) != but)
        .min_by_key(|set| {
            let verified = set.verified.as_ref().map(|verified| verified.time);
            let believed = verified.filter(|time| !newest::is_future(*time, now));
            (believed, set.created)
        })
}

/// The set to rehearse: the newest good one, if no rehearsal of any was within a time.
pub fn next_to_rehearse(sets: &[BackupSet], every: Duration, now: Timestamp) -> Option<&BackupSet> {
    let times = sets.iter().filter_map(|set| set.believed_rehearsal(now));
    let last = times.map(|rehearsed| rehearsed.time).max();
    let recent = |last| {
        let age = Duration::try_from(now.duration_since(last));
        age.is_ok_and(|age| age < every)
    };
    match last.is_some_and(recent) {
        true => None,
        false => catalog::newest_good(sets, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::catalog::{Rehearsed, Verified};

    fn set(name: &str, created: i64, verified: Option<i64>) -> BackupSet {
        let time = |second| Timestamp::from_second(second).unwrap();
        BackupSet {
            created: Some(time(created)),
            manifest: Some(crate::backup::manifest::tests::example()),
            verified: verified.map(|second| Verified {
                schema_version: 1,
                time: time(second),
                good: true,
                tool_version: String::new(),
                failed: Vec::new(),
            }),
            ..BackupSet::at(name.to_owned(), name.as_ref(), SetState::Good)
        }
    }

    #[test]
    fn each_in_its_turn() {
        let mut sets = vec![set("a", 1, None), set("b", 2, None), set("c", 3, None)];
        let mut turns = String::new();
        for now in 10..16 {
            let now_is = Timestamp::from_second(now).unwrap();
            let name = next_to_verify(&sets, Some("c"), now_is)
                .map(|set| set.name.clone())
                .unwrap();
            turns.push_str(&name);
            let at = sets.iter().position(|set| set.name == name).unwrap();
            sets[at] = set(&name, sets[at].created.unwrap().as_second(), Some(now));
        }
        assert_eq!(turns, "ababab");
        let now = Timestamp::from_second(16).unwrap();
        assert!(next_to_verify(&sets[..1], Some("a"), now).is_none());
        // What says that it was verified in the year 2100 comes first.
        sets.push(set("d", 4, Some(4_102_444_800)));
        let next = next_to_verify(&sets, Some("c"), now);
        assert_eq!(next.map(|set| set.name.as_str()), Some("d"));
    }

    #[test]
    fn the_newest_good_one_is_rehearsed_once_the_last_rehearsal_is_long_ago() {
        let mut sets = vec![set("a", 1, None), set("b", 5, None)];
        let week = Duration::from_secs(7 * 86_400);
        let now = Timestamp::from_second(800_000).unwrap();
        let next =
            |sets: &[BackupSet]| next_to_rehearse(sets, week, now).map(|set| set.name.clone());
        assert_eq!(next(&sets).as_deref(), Some("b"));
        let rehearsed = |second| {
            Some(Rehearsed {
                schema_version: 1,
                time: Timestamp::from_second(second).unwrap(),
                good: false,
                tool_version: String::new(),
                etcd_version: String::new(),
                served_after_seconds: None,
                failed: Vec::new(),
            })
        };
        // One that failed counts as well: it is told, and not made every hour.
        sets[0].rehearsed = rehearsed(200_000);
        assert_eq!(next(&sets), None);
        sets[0].rehearsed = rehearsed(100_000);
        assert_eq!(next(&sets).as_deref(), Some("b"));
        sets[0].rehearsed = rehearsed(4_102_444_800);
        assert_eq!(next(&sets).as_deref(), Some("b"));
        sets[1].state = SetState::Dirty;
        assert_eq!(next(&sets).as_deref(), Some("a"));
        assert_eq!(next(&[]), None);
    }

    #[test]
    fn what_counts_as_the_newest() {
        let mut sets = vec![set("a", 1, None), set("b", 5, None), set("c", 900, None)];
        let now = Timestamp::from_second(50).unwrap();
        let newest = |sets: &[BackupSet]| newest_whole(sets, now).map(Timestamp::as_second);
        assert_eq!(newest(&sets), Some(5));
        sets[1].state = SetState::Incomplete;
        assert_eq!(newest(&sets), Some(1));
        sets[1].state = SetState::Dirty;
        assert_eq!(newest(&sets), Some(5));
        assert_eq!(newest(&[]), None);
    }
}
