//! Tables of rules and sets.

use super::*;

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn n(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

pub(super) fn good(number: u64, created: &str) -> Candidate {
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

pub(super) const NOW: &str = "2026-11-21T14:00:00Z";

/// The base of the moments that are to be kept is the newest that was there when they began.
#[test]
fn moments_are_reached_from_a_base() {
    let sets = twice_a_day();
    let kept = |hours: u64| -> Vec<String> {
        let rules = Rules {
            moments: Some(Duration::from_secs(hours * 3600)),
            ..Rules::default()
        };
        let decisions = decide(&sets, &rules, at(NOW)).unwrap();
        let by_rule = decisions.into_iter().filter(|decision| {
            let mut reasons = decision.reasons.iter();
            reasons.any(|reason| reason.rule == KEEP_MOMENTS)
        });
        by_rule.map(|decision| decision.name).collect()
    };
    let created = |name: &String| {
        let set = sets.iter().find(|set| set.name == *name);
        set.and_then(|set| set.created).unwrap()
    };
    for hours in [1, 30, 100] {
        let [base]: [String; 1] = kept(hours).try_into().unwrap();
        let begun = at(NOW) - SignedDuration::from_hours(i64::try_from(hours).unwrap());
        let later = sets
            .iter()
            .filter_map(|set| set.created)
            .filter(|at| *at <= begun);
        assert_eq!(later.max(), Some(created(&base)), "{hours}");
    }
    // Without one that is so old it is the first.
    let first = sets.iter().filter_map(|set| set.created).min();
    assert_eq!(kept(100_000).first().map(created), first);
}

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
    let decided = decide(&sets, &versions, NOW.parse().unwrap()).unwrap();
    assert_eq!(decided[3].reasons[0].rule, "ocp-version");
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
