//! Which backups count now, and which of them is the newest. All choices of a backup use this.
//!
//! A Manifest's time comes from a clock, which can be wrong, and a Manifest can be forged. A backup
//! from the future does not count: it is shown and kept, and replaces no other. Among the others,
//! the numbers in a directory are a second witness: the store gives each backup a higher number
//! than those before it, so a clock that was ahead for a while changes no order once its time has
//! come.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// How far ahead of this clock another node's may be.
pub const TOLERANCE: SignedDuration = SignedDuration::from_mins(2);

/// What tells one backup's place in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age<'a> {
    /// When it was taken, by its own account.
    pub created: Option<Timestamp>,
    /// Whose clock that was: backups of one cluster and node share a sequence.
    pub origin: Option<(&'a str, &'a str)>,
    /// The number that its store gave it when it was taken; `None` if numbers tell nothing about
    /// time, as in a store of copies.
    pub sequence: Option<u64>,
    /// Its number, which decides between backups of one moment.
    pub number: u64,
    /// Its name, which decides after that.
    pub name: &'a str,
}

/// Whether a time is later than a correct clock can show now.
pub fn is_future(moment: Timestamp, now: Timestamp) -> bool {
    moment.duration_since(now) > TOLERANCE
}

/// The rank of each backup among those that count now, from 0 for the oldest; none for a backup
/// without a time, or from the future.
pub fn ranks(ages: &[Age<'_>], now: Timestamp) -> Vec<Option<usize>> {
    let mut counting: Vec<(usize, Timestamp)> = Vec::with_capacity(ages.len());
    for (index, age) in ages.iter().enumerate() {
        if let Some(created) = age.created.filter(|created| !is_future(*created, now)) {
            counting.push((index, created));
        }
    }
    raise(&mut counting, ages);
    let key = |index: usize| ages.get(index).map(|age| (age.number, age.name));
    counting.sort_by(|(a, at), (b, bt)| at.cmp(bt).then_with(|| key(*a).cmp(&key(*b))));
    let mut ranks = vec![None; ages.len()];
    for (rank, (index, _)) in counting.into_iter().enumerate() {
        if let Some(place) = ranks.get_mut(index) {
            *place = Some(rank);
        }
    }
    ranks
}

/// Raises the time of each numbered backup to the latest time of a lower number in its sequence: it
/// was taken later, whatever the clock showed.
fn raise(counting: &mut [(usize, Timestamp)], ages: &[Age<'_>]) {
    counting.sort_by_key(|(index, _)| ages.get(*index).map(|age| age.sequence));
    let mut latest: BTreeMap<Option<(&str, &str)>, Timestamp> = BTreeMap::new();
    for (index, time) in counting {
        let Some(age) = ages.get(*index).filter(|age| age.sequence.is_some()) else {
            continue;
        };
        let latest = latest.entry(age.origin).or_insert(*time);
        *latest = (*latest).max(*time);
        *time = *latest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn numbered(number: u64, second: i64) -> Age<'static> {
        Age {
            created: Some(at(second)),
            origin: Some(("c", "n")),
            sequence: Some(number),
            number,
            name: "",
        }
    }

    #[test]
    fn the_future_has_no_rank_and_small_differences_of_clocks_do_not_count() {
        let now = at(1_000_000);
        let tolerated = 1_000_000 + TOLERANCE.as_secs();
        let ages = [
            numbered(1, 2_000_000),
            numbered(2, 999_000),
            numbered(3, tolerated),
            numbered(4, tolerated + 1),
            Age {
                created: None,
                ..numbered(5, 0)
            },
        ];
        assert_eq!(ranks(&ages, now), [None, Some(0), Some(1), None, None]);
    }

    #[test]
    fn a_clock_that_was_ahead_or_behind_does_not_change_the_order_of_numbers() {
        let now = at(1_000_000);
        // The second was taken by a clock that was a day ahead, the fourth by one at 1970.
        let ages = [
            numbered(1, 100_000),
            numbered(2, 186_400),
            numbered(3, 103_600),
            numbered(4, 7),
            numbered(5, 107_200),
        ];
        let expected: Vec<_> = (0..5).map(Some).collect();
        assert_eq!(ranks(&ages, now), expected);
        // Another node's clock says nothing about these, and a copy's number nothing about time.
        let other = Age {
            origin: Some(("c", "m")),
            ..numbered(6, 102_000)
        };
        let copy = Age {
            sequence: None,
            ..numbered(7, 101_000)
        };
        let ages = [numbered(1, 100_000), numbered(2, 186_400), other, copy];
        let expected = [Some(0), Some(3), Some(2), Some(1)];
        assert_eq!(ranks(&ages, now), expected);
    }

    #[test]
    fn one_moment_is_ordered_by_number_and_then_by_name() {
        let plain = |number, name| Age {
            origin: None,
            sequence: None,
            name,
            ..numbered(number, 5)
        };
        let ages = [plain(2, "b"), plain(1, "z"), plain(2, "a")];
        assert_eq!(ranks(&ages, at(10)), [Some(2), Some(0), Some(1)]);
    }
}
