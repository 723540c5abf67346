//! What holds of any rules and any sets.

use proptest::prelude::*;

use super::tests::{NOW, at, good, n};
use super::*;

fn any_set() -> impl Strategy<Value = Candidate> {
    let standing = prop_oneof![
        6 => Just(Standing::Good),
        2 => Just(Standing::Dirty),
        1 => Just(Standing::Incomplete),
        1 => Just(Standing::Unrecognised),
    ];
    let flags = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.95),
    );
    // The minutes are those of sixty days from October on, which end after NOW.
    (0..60 * 24 * 60i64, 0..1000u64, standing, flags, 0..4u32).prop_map(
        |(minutes, size, standing, (verified, pinned, in_use, dated), version)| Candidate {
            name: String::new(),
            number: 0,
            sequence: None,
            origin: Some(("cluster".into(), "node".into())),
            failed: false,
            away: false,
            created: dated.then(|| at("2026-10-01T00:00:00Z") + SignedDuration::from_mins(minutes)),
            size,
            standing,
            verified,
            rehearsed: false,
            pinned,
            in_use,
            doubt: None,
            latest: false,
            ocp_version: (version > 0).then(|| format!("4.{version}")),
        },
    )
}

fn any_sets() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec(any_set(), 0..40).prop_map(|mut sets| {
        for (index, set) in sets.iter_mut().enumerate() {
            set.number = index as u64 + 1;
            set.name = format!("backup-{}", set.number);
        }
        sets
    })
}

fn some(most: u32) -> impl Strategy<Value = Option<NonZeroU32>> {
    (0..=most).prop_map(NonZeroU32::new)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let size = prop::option::of(0..20_000u64);
    let within = prop::option::of((0..1000u64).prop_map(|hours| Duration::from_secs(hours * 3600)));
    (
        some(9),
        some(9),
        some(9),
        some(5),
        some(3),
        within,
        size,
        some(5),
        any::<bool>(),
    )
        .prop_map(
            |(last, hourly, daily, weekly, monthly, within, max_size, min_keep, ocp_versions)| {
                Rules {
                    last,
                    hourly,
                    daily,
                    weekly,
                    monthly,
                    within,
                    moments: None,
                    max_size,
                    min_keep,
                    ocp_versions,
                    zone: None,
                }
            },
        )
        .prop_filter("a rule", |rules| rules.check().is_ok())
}

fn removed(sets: &[Candidate], rules: &Rules) -> BTreeSet<String> {
    decide(sets, rules, at(NOW))
        .unwrap()
        .into_iter()
        .filter(|decision| decision.verdict == Verdict::Remove)
        .map(|decision| decision.name)
        .collect()
}

proptest! {
    #[test]
    fn what_must_stay_stays(sets in any_sets(), rules in any_rules()) {
        let decisions = decide(&sets, &rules, at(NOW)).unwrap();
        prop_assert_eq!(decisions.len(), sets.len());
        prop_assert!(decisions.iter().all(|decision| !decision.reasons.is_empty()));
        let gone = removed(&sets, &rules);
        let counts = |at: Timestamp| !newest::is_future(at, super::tests::at(NOW));
        let mut good: Vec<_> = sets
            .iter()
            .filter(|set| set.standing == Standing::Good && set.created.is_some_and(counts))
            .collect();
        good.sort_by_key(|set| std::cmp::Reverse((set.created, set.number)));
        let floor = rules.min_keep.map_or(1, |n| n.get() as usize).max(1);
        prop_assert!(good.iter().take(floor).all(|set| !gone.contains(&set.name)));
        let verified = good.iter().find(|set| set.verified);
        prop_assert!(verified.is_none_or(|set| !gone.contains(&set.name)));
        for set in &sets {
            let held = set.pinned || set.in_use || set.created.is_none()
                || set.standing == Standing::Unrecognised;
            prop_assert!(!(held && gone.contains(&set.name)));
        }
    }

    #[test]
    fn the_order_of_the_sets_does_not_matter(sets in any_sets(), rules in any_rules()) {
        let mut turned = sets.clone();
        turned.reverse();
        prop_assert_eq!(removed(&sets, &rules), removed(&turned, &rules));
    }

    #[test]
    fn a_second_run_has_nothing_to_do(sets in any_sets(), rules in any_rules()) {
        let gone = removed(&sets, &rules);
        let left: Vec<_> = sets.into_iter().filter(|set| !gone.contains(&set.name)).collect();
        prop_assert_eq!(removed(&left, &rules), BTreeSet::new());
    }

    #[test]
    fn sets_from_the_future_stay_and_change_nothing(sets in any_sets(), rules in any_rules()) {
        let future = |set: &Candidate| set.created.is_some_and(|time| newest::is_future(time, at(NOW)));
        let gone = removed(&sets, &rules);
        prop_assert!(sets.iter().filter(|set| future(set)).all(|set| !gone.contains(&set.name)));
        let real: Vec<_> = sets.iter().filter(|set| !future(set)).cloned().collect();
        prop_assert_eq!(gone, removed(&real, &rules));
    }

    #[test]
    fn nodes_are_judged_each_by_itself(ours in any_sets(), theirs in any_sets(), rules in any_rules()) {
        let rules = Rules { max_size: None, ..rules };
        if rules.check().is_ok() {
            let theirs = theirs.into_iter().map(|set| Candidate {
                name: format!("their-{}", set.name),
                origin: Some(("cluster".into(), "other".into())),
                ..set
            });
            let theirs: Vec<_> = theirs.collect();
            let both: Vec<_> = ours.iter().chain(&theirs).cloned().collect();
            let apart = &removed(&ours, &rules) | &removed(&theirs, &rules);
            prop_assert_eq!(removed(&both, &rules), apart);
        }
    }

    #[test]
    fn what_is_learnt_later_never_removes_more(
        sets in any_sets(),
        rules in any_rules(),
        flags in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 40),
    ) {
        let untold = sets.iter().cloned().map(|set| Candidate {
            verified: false,
            rehearsed: false,
            pinned: false,
            away: true,
            ..set
        });
        let untold: Vec<_> = untold.collect();
        let told = untold.iter().cloned().zip(flags).map(|(set, (looked_at, bad, pinned))| Candidate {
            verified: looked_at && !bad,
            rehearsed: looked_at && !bad,
            failed: looked_at && bad,
            pinned,
            ..set
        });
        let told: Vec<_> = told.collect();
        prop_assert!(removed(&told, &rules).is_subset(&removed(&untold, &rules)));
        // One that was found bad takes no other's place.
        let rules = Rules { max_size: None, ..rules };
        if rules.check().is_ok() {
            let others: Vec<_> = told.iter().filter(|set| !set.failed).cloned().collect();
            let without = removed(&others, &rules);
            let is_bad = |name: &String| told.iter().any(|set| set.failed && set.name == *name);
            let gone = removed(&told, &rules);
            prop_assert!(gone.iter().all(|name| without.contains(name) || is_bad(name)));
        }
    }

    /// Backups taken one after the other by a clock that jumps, and after each one a prune by the
    /// same clock: once it is right, the newest ones are those taken last.
    #[test]
    fn whatever_a_clock_did_what_was_taken_last_stays(
        jumps in prop::collection::vec(-40_000..40_000i64, 1..20),
        last in 1..6u32,
    ) {
        let rules = Rules { last: n(last), ..Rules::default() };
        let mut sets: Vec<Candidate> = Vec::new();
        let mut right = at("2026-10-01T00:00:00Z");
        let mut wrong: Vec<Timestamp> = jumps.iter().map(|minutes| {
            right += SignedDuration::from_hours(1);
            right + SignedDuration::from_mins(*minutes)
        }).collect();
        // The clock is right again for so many backups as are to stay.
        for _ in 0..last {
            right += SignedDuration::from_hours(1);
            wrong.push(right);
        }
        for (index, now) in wrong.iter().enumerate() {
            let mut set = good(index as u64 + 1, &now.to_string());
            set.size = 1;
            sets.push(set);
            let gone = decide(&sets, &rules, *now).unwrap();
            let gone: Vec<bool> = gone.iter().map(|decision| decision.verdict == Verdict::Remove).collect();
            let newest = sets.len() - 1;
            prop_assert!(!gone[newest], "the one just taken");
            let mut each = gone.iter();
            sets.retain(|_| !each.next().unwrap());
        }
        let total = wrong.len() as u64;
        let numbers: BTreeSet<u64> = sets.iter().map(|set| set.number).collect();
        let first = total.saturating_sub(u64::from(last)) + 1;
        prop_assert!((first..=total).all(|number| numbers.contains(&number)), "{numbers:?}");
    }

    #[test]
    fn a_further_keep_rule_never_removes_more(sets in any_sets(), rules in any_rules(), more in 1..20u32) {
        let rules = Rules { max_size: None, ..rules };
        if rules.check().is_ok() {
            let further = Rules { last: n(more.max(rules.last.map_or(0, NonZeroU32::get))), ..rules.clone() };
            prop_assert!(removed(&sets, &further).is_subset(&removed(&sets, &rules)));
        }
    }

    #[test]
    fn the_size_is_kept_or_all_that_is_left_is_protected(sets in any_sets(), rules in any_rules(), most in 0..20_000u64) {
        let rules = Rules { max_size: Some(most), ..rules };
        let gone = removed(&sets, &rules);
        let future = |set: &Candidate| set.created.is_some_and(|time| newest::is_future(time, at(NOW)));
        let ours = |set: &&Candidate| {
            set.standing != Standing::Unrecognised && !future(set) && !gone.contains(&set.name)
        };
        let total: u64 = sets.iter().filter(ours).map(|set| set.size).sum();
        let mut sorting = Sorting::new(&sets, at(NOW));
        sorting.protect(&rules);
        let all_protected = sets
            .iter()
            .enumerate()
            .filter(|(_, set)| ours(set))
            .all(|(index, _)| sorting.protected.contains_key(&index));
        prop_assert!(total <= most || all_protected);
    }
}
