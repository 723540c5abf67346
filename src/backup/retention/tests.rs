//! Tables of rules and sets, and what holds of any rules and any sets.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn n(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

fn good(number: u64, created: &str) -> Candidate {
    Candidate {
        name: format!("backup-{number}"),
        number,
        sequence: Some(number),
        origin: Some(("cluster".into(), "node".into())),
        created: Some(at(created)),
        size: 100,
        standing: Standing::Good,
        verified: false,
        rehearsed: false,
        failed: false,
        away: false,
        pinned: false,
        in_use: false,
        doubt: None,
        latest: false,
        ocp_version: None,
    }
}

fn kept(sets: &[Candidate], rules: &Rules, now: &str) -> Vec<u64> {
    let decisions = decide(sets, rules, at(now)).unwrap();
    let kept = sets.iter().zip(&decisions);
    kept.filter(|(_, decision)| decision.verdict == Verdict::Keep)
        .map(|(set, _)| set.number)
        .collect()
}

/// Two a day for three weeks, at 01:00 and 13:00: number 1 is the oldest.
fn twice_a_day() -> Vec<Candidate> {
    let first = at("2026-11-01T01:00:00Z");
    let made = |i: i64| {
        good(
            i as u64 + 1,
            &(first + SignedDuration::from_hours(12 * i)).to_string(),
        )
    };
    (0..42).map(made).collect()
}

const NOW: &str = "2026-11-21T14:00:00Z";

#[test]
fn each_rule_by_itself() {
    let sets = twice_a_day();
    let cases: [(&str, Rules, Vec<u64>); 8] = [
        (
            "last",
            Rules {
                last: n(3),
                ..Rules::default()
            },
            vec![40, 41, 42],
        ),
        (
            "hourly",
            Rules {
                hourly: n(2),
                ..Rules::default()
            },
            vec![41, 42],
        ),
        (
            "daily",
            Rules {
                daily: n(3),
                ..Rules::default()
            },
            vec![38, 40, 42],
        ),
        // Sundays the 8th and 15th end a week; Saturday the 21st is today.
        (
            "weekly",
            Rules {
                weekly: n(3),
                ..Rules::default()
            },
            vec![16, 30, 42],
        ),
        (
            "monthly",
            Rules {
                monthly: n(3),
                ..Rules::default()
            },
            vec![42],
        ),
        (
            "within",
            Rules {
                within: Some(Duration::from_secs(25 * 3600)),
                ..Rules::default()
            },
            vec![40, 41, 42],
        ),
        (
            "max-size",
            Rules {
                max_size: Some(250),
                ..Rules::default()
            },
            vec![41, 42],
        ),
        (
            "min-keep over max-size",
            Rules {
                max_size: Some(1),
                min_keep: n(4),
                ..Rules::default()
            },
            vec![39, 40, 41, 42],
        ),
    ];
    for (name, rules, expected) in cases {
        assert_eq!(kept(&sets, &rules, NOW), expected, "{name}");
    }
}

#[test]
fn what_one_rule_wants_stays_whatever_the_others_say() {
    let rules = Rules {
        last: n(2),
        daily: n(4),
        ..Rules::default()
    };
    assert_eq!(kept(&twice_a_day(), &rules, NOW), [36, 38, 40, 41, 42]);
    let tight = Rules {
        max_size: Some(300),
        ..rules
    };
    assert_eq!(kept(&twice_a_day(), &tight, NOW), [40, 41, 42]);
}

#[test]
fn no_rule_is_a_usage_error_and_so_is_only_a_floor() {
    for rules in [
        Rules::default(),
        Rules {
            min_keep: n(3),
            ocp_versions: true,
            ..Rules::default()
        },
    ] {
        let failure = decide(&twice_a_day(), &rules, at(NOW)).unwrap_err();
        assert_eq!(failure.kind(), Kind::Usage);
    }
}

#[test]
fn a_day_begins_where_the_zone_says() {
    let sets = [
        good(1, "2026-11-20T22:30:00Z"),
        good(2, "2026-11-20T23:30:00Z"),
        good(3, "2026-11-21T00:30:00Z"),
    ];
    let utc = Rules {
        daily: n(9),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &utc, NOW), [2, 3]);
    let east = Rules {
        zone: Some(TimeZone::fixed(jiff::tz::offset(1))),
        ..utc
    };
    assert_eq!(kept(&sets, &east, NOW), [1, 3]);
}

#[test]
fn the_hour_that_comes_twice_is_two_hours() {
    let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let sets = [
        good(1, "2026-10-25T00:30:00Z"),
        good(2, "2026-10-25T01:30:00Z"),
    ];
    let rules = Rules {
        hourly: n(5),
        zone: Some(berlin),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &rules, NOW), [1, 2]);
}

#[test]
fn what_is_protected_stays() {
    let mut sets: Vec<Candidate> = (1..=9u64)
        .map(|i| good(i, &format!("2026-11-0{i}T00:00:00Z")))
        .collect();
    sets[0].pinned = true;
    sets[1].in_use = true;
    sets[2].verified = true;
    sets[3].ocp_version = Some("4.17.1".into());
    sets[4].standing = Standing::Unrecognised;
    sets[5].standing = Standing::Dirty;
    sets[6].standing = Standing::Incomplete;
    let rules = Rules {
        last: n(1),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &rules, NOW), [1, 2, 3, 5, 9]);
    sets[3].rehearsed = true;
    assert_eq!(kept(&sets, &rules, NOW), [1, 2, 3, 4, 5, 9]);
    let decided = decide(&sets, &rules, NOW.parse().unwrap()).unwrap();
    assert_eq!(decided[3].reasons[0].rule, "newest-rehearsed");
    sets[3].rehearsed = false;
    let versions = Rules {
        ocp_versions: true,
        max_size: Some(1),
        ..rules.clone()
    };
    assert_eq!(kept(&sets, &versions, NOW), [1, 2, 3, 4, 5, 9]);
    // A dirty or incomplete one is all there is of its time until a good one is newer.
    sets[7].standing = Standing::Incomplete;
    sets[8].standing = Standing::Dirty;
    assert_eq!(kept(&sets, &rules, NOW), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn an_incomplete_one_stays_while_it_may_be_in_the_making() {
    let mut sets = vec![
        good(1, "2026-11-21T00:00:00Z"),
        good(2, "2026-11-21T10:00:00Z"),
    ];
    sets[0].standing = Standing::Incomplete;
    let rules = Rules {
        last: n(1),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &rules, "2026-11-21T23:59:59Z"), [1, 2]);
    assert_eq!(kept(&sets, &rules, "2026-11-22T00:00:00Z"), [2]);
    sets[0].created = None;
    assert_eq!(kept(&sets, &rules, "2027-11-22T00:00:00Z"), [1, 2]);
}

#[test]
fn only_good_sets_count() {
    let mut sets = twice_a_day();
    for dirty in [40, 38] {
        sets[dirty].standing = Standing::Dirty;
    }
    let rules = Rules {
        last: n(3),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &rules, NOW), [38, 40, 42]);
}

#[test]
fn clearing_takes_all_of_a_cluster_but_what_is_held() {
    let mut sets = twice_a_day();
    sets[3].pinned = true;
    let decisions = clear(&sets, |set| set.number <= 10);
    let gone = decisions.iter().filter(|d| d.verdict == Verdict::Remove);
    assert_eq!(gone.count(), 9);
}

#[test]
fn three_from_the_future_take_no_place_and_the_real_ones_stay() {
    let mut sets = vec![
        good(1, "2031-01-01T00:00:00Z"),
        good(2, "2032-01-01T00:00:00Z"),
        good(3, "2033-01-01T00:00:00Z"),
        good(4, "2026-11-20T00:00:00Z"),
        good(5, "2026-11-21T00:00:00Z"),
    ];
    let rules = Rules {
        last: n(3),
        min_keep: n(3),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &rules, NOW), [1, 2, 3, 4, 5]);
    // Among copies, where a number tells nothing of time, it is the same.
    for set in &mut sets {
        set.sequence = None;
    }
    assert_eq!(kept(&sets, &rules, NOW), [1, 2, 3, 4, 5]);
    let decisions = decide(&sets, &rules, at(NOW)).unwrap();
    let rules_of = |place: usize| -> Vec<_> {
        let reasons = &decisions[place].reasons;
        reasons.iter().map(|reason| reason.rule).collect()
    };
    assert_eq!(rules_of(0), ["from-the-future"]);
    assert_eq!(rules_of(4), ["newest-good", "min-keep", "keep-last"]);
}

#[test]
fn the_time_of_a_clock_that_was_a_day_ahead_comes_and_the_numbers_still_tell() {
    let sets = [
        good(1, "2026-11-21T12:00:00Z"),
        good(2, "2026-11-20T13:00:00Z"),
        good(3, "2026-11-20T14:00:00Z"),
    ];
    let rules = Rules {
        last: n(1),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &rules, NOW), [3]);
}

#[test]
fn a_failed_verification_removes_nothing_by_itself() {
    let mut sets: Vec<Candidate> = (1..=4u64)
        .map(|i| good(i, &format!("2026-11-0{i}T00:00:00Z")))
        .collect();
    let rules = Rules {
        last: n(2),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &rules, NOW), [3, 4]);
    sets[2].failed = true;
    sets[3].failed = true;
    assert_eq!(kept(&sets, &rules, NOW), [1, 2, 3, 4]);
    // It goes when it would have gone anyway.
    sets.push(good(5, "2026-11-05T00:00:00Z"));
    sets.push(good(6, "2026-11-06T00:00:00Z"));
    assert_eq!(kept(&sets, &rules, NOW), [5, 6]);
}

#[test]
fn each_node_of_a_directory_keeps_its_own() {
    let mut sets = vec![
        good(1, "2026-11-01T00:00:00Z"),
        good(2, "2026-11-02T00:00:00Z"),
        good(3, "2026-11-03T00:00:00Z"),
    ];
    sets[0].origin = Some(("cluster".into(), "another".into()));
    sets[1].origin = Some(("another".into(), "node".into()));
    let rules = Rules {
        last: n(1),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &rules, NOW), [1, 2, 3]);
    let small = Rules {
        max_size: Some(1),
        ..Rules::default()
    };
    assert_eq!(kept(&sets, &small, NOW), [1, 2, 3]);
}

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
    fn the_order_they_are_told_in_is_nothing(sets in any_sets(), rules in any_rules()) {
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
