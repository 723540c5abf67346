//! Which sets count, and which is verified next.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::catalog::{SetFiles, SetSignature, Verified};

    fn set(name: &str, created: i64, verified: Option<i64>) -> BackupSet {
        let time = |second| Timestamp::from_second(second).unwrap();
        BackupSet {
            name: name.to_owned(),
            dir: name.into(),
            state: SetState::Good,
            created: Some(time(created)),
            size: 0,
            marked_dirty: false,
            manifest: Some(crate::backup::manifest::tests::example()),
            files: SetFiles::default(),
            latest: false,
            problems: Vec::new(),
            verified: verified.map(|second| Verified {
                schema_version: 1,
                time: time(second),
                good: true,
                tool_version: String::new(),
                failed: Vec::new(),
            }),
            pinned: false,
            shared: None,
            manifest_sha256: None,
            arrived: None,
            signature: SetSignature::None,
            signer: None,
            distrust: None,
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
