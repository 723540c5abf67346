//! Which backups are kept: a pure function of what is known about them, of the rules and of the
//! time.
//!
//! A backup is kept if any keep rule matches it. `max-size` overrides the keep rules, oldest first.
//! Protected backups are kept whatever the rules say, and so are the newest `min-keep` good ones.
//! Only good backups count for a rule that counts. Their time is the Manifest's, never a file's;
//! one from the future neither counts nor is removed ([`super::newest`]). Each node of each cluster
//! is judged separately.
//!
//! A failed verification never removes anything: the backup no longer counts, so an older one is
//! kept in its place, and it is removed no sooner than if it were good.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::newest::{self, Age};
use crate::error::{Fact, Failure, Kind, Result};

/// The rule that keeps what moments are reached from.
pub const KEEP_MOMENTS: &str = "keep-moments";
/// What it says of such a backup.
pub const BASE: &str = "moments that are to be kept are reached from it";

/// The age at which an incomplete backup may be removed: no upload takes longer.
pub const INCOMPLETE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What a set is, as far as retention cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Whole, and every check held.
    Good,
    /// Whole, and taken although a check failed.
    Dirty,
    /// Ours and not whole; `created` is when it was begun.
    Incomplete,
    /// Not ours, or not readable: never touched.
    Unrecognised,
}

/// What is known of one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name in the store.
    pub name: String,
    /// Its number, which decides between sets of one moment.
    pub number: u64,
    /// The number, if the store gave it when the backup was taken: then it tells the order.
    pub sequence: Option<u64>,
    /// Cluster and node that it is of, if that is known.
    pub origin: Option<(String, String)>,
    /// When it was taken; for an incomplete one, when it last grew.
    pub created: Option<Timestamp>,
    /// Bytes of its files.
    pub size: u64,
    /// What it is.
    pub standing: Standing,
    /// Whether the last verification found nothing.
    pub verified: bool,
    /// Whether a real etcd served it.
    pub rehearsed: bool,
    /// Whether the last verification found damage.
    pub failed: bool,
    /// Whether it is in a remote store, where others may have written the records that are added
    /// later.
    pub away: bool,
    /// Whether an operator has pinned it.
    pub pinned: bool,
    /// Whether a restore uses it.
    pub in_use: bool,
    /// Why its Manifest is not trusted: then it neither counts nor is removed.
    pub doubt: Option<Reason>,
    /// Whether the store's link to the newest set leads to it.
    pub latest: bool,
    /// The OpenShift version it is of.
    pub ocp_version: Option<String>,
}

/// What is to stay.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The newest so many.
    pub last: Option<NonZeroU32>,
    /// Keeps the newest of each of the newest N hours that have a backup.
    pub hourly: Option<NonZeroU32>,
    /// The same of days.
    pub daily: Option<NonZeroU32>,
    /// The same of weeks, which begin on Monday (ISO 8601).
    pub weekly: Option<NonZeroU32>,
    /// The same of months.
    pub monthly: Option<NonZeroU32>,
    /// All that are younger, dirty ones too.
    pub within: Option<Duration>,
    /// For how long every moment is to be reachable, from a backup with the changes recorded after it.
    pub moments: Option<Duration>,
    /// Bytes of all sets together at most; overrides the rules above.
    pub max_size: Option<u64>,
    /// The newest so many good ones stay whatever any rule says.
    pub min_keep: Option<NonZeroU32>,
    /// Whether the newest good one of each OpenShift version is protected.
    pub ocp_versions: bool,
    /// Where hours, days, weeks and months begin; UTC where none is given.
    pub zone: Option<TimeZone>,
}

/// What happens to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
}

/// Why, by a stable name and in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// `keep-last`, `pinned`, …
    pub rule: &'static str,
    /// In a few words.
    pub detail: String,
}

/// A verdict with every reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The set's name.
    pub name: String,
    /// What happens to it.
    pub verdict: Verdict,
    /// Why; never empty.
    pub reasons: Vec<Reason>,
}

impl Candidate {
    fn age(&self) -> Age<'_> {
        let origin = self.origin.as_ref();
        Age {
            created: self.created.filter(|_| self.doubt.is_none()),
            origin: origin.map(|(cluster, node)| (cluster.as_str(), node.as_str())),
            sequence: self.sequence,
            number: self.number,
            name: &self.name,
        }
    }
}

impl Rules {
    /// Whether any rule says what is to stay by itself.
    fn has_keep_rule(&self) -> bool {
        let counted = [
            self.last,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
        ];
        counted.iter().any(Option::is_some) || self.within.is_some() || self.moments.is_some()
    }

    /// Fails if no rule could ever remove anything.
    ///
    /// # Errors
    /// [`Kind::Usage`] with [`Fact::Missing`] `keep-rule`.
    pub fn check(&self) -> Result<()> {
        if self.has_keep_rule() || self.max_size.is_some() {
            return Ok(());
        }
        let what = "no rule says which backups to keep";
        Err(Failure::new(Kind::Usage, what).with(Fact::Missing("keep-rule")))
    }
}

/// Decides over every set; the order is that of `sets`.
///
/// # Errors
/// As [`Rules::check`].
pub fn decide(sets: &[Candidate], rules: &Rules, now: Timestamp) -> Result<Vec<Decision>> {
    rules.check()?;
    let mut decisions = by_rules(sets, rules, now);
    let learnt = |set: &Candidate| {
        let learnt = set.verified || set.rehearsed || set.pinned;
        set.failed || set.away && learnt
    };
    if sets.iter().any(learnt) {
        // Facts from elsewhere may keep more backups, never fewer.
        let unlearnt = |set: &Candidate| Candidate {
            failed: false,
            verified: false,
            rehearsed: false,
            pinned: set.pinned && !set.away,
            ..set.clone()
        };
        let unlearnt: Vec<Candidate> = sets.iter().map(unlearnt).collect();
        let before = by_rules(&unlearnt, rules, now);
        for ((set, decision), before) in sets.iter().zip(&mut decisions).zip(before) {
            if decision.verdict == Verdict::Remove && before.verdict == Verdict::Keep {
                *decision = before;
            }
            if set.failed && decision.verdict == Verdict::Keep {
                let detail = "its last verification failed, so it does not count";
                decision.reasons.push(reason("failed-verification", detail));
            }
        }
    }
    Ok(decisions)
}

fn by_rules(sets: &[Candidate], rules: &Rules, now: Timestamp) -> Vec<Decision> {
    let mut sorting = Sorting::new(sets, now);
    sorting.protect(rules);
    sorting.want(rules);
    if let Some(most) = rules.max_size {
        sorting.limit(most);
    }
    sorting.decisions()
}

/// Decides to remove all unprotected backups of a cluster that no longer exists.
pub fn clear(sets: &[Candidate], of_cluster: impl Fn(&Candidate) -> bool) -> Vec<Decision> {
    let decide = |set: &Candidate| {
        let mut reasons = Vec::new();
        hold(set, &mut reasons);
        let verdict = match (reasons.is_empty(), of_cluster(set)) {
            (true, true) => {
                reasons.push(reason("cluster", "it belongs to the cluster being removed"));
                Verdict::Remove
            }
            (_, false) => {
                reasons.push(reason(
                    "cluster",
                    "it does not belong to the cluster being removed",
                ));
                Verdict::Keep
            }
            _ => Verdict::Keep,
        };
        Decision {
            name: set.name.clone(),
            verdict,
            reasons,
        }
    };
    sets.iter().map(decide).collect()
}

fn reason(rule: &'static str, detail: impl Into<String>) -> Reason {
    Reason {
        rule,
        detail: detail.into(),
    }
}

/// What holds a set by itself, whatever others there are.
fn hold(set: &Candidate, reasons: &mut Vec<Reason>) {
    if set.pinned {
        reasons.push(reason("pinned", "it is pinned"));
    }
    if set.in_use {
        reasons.push(reason("in-use", "a restore uses it"));
    }
    if set.standing == Standing::Unrecognised {
        reasons.push(reason("unrecognised", "it is not a known backup"));
    } else if set.created.is_none() {
        reasons.push(reason("unrecognised", "its creation time is unknown"));
    }
}

/// Good sets of one cluster and node as indexes, newest first.
type Group = Vec<usize>;

/// The sets while it is decided about them; every list holds indexes into `sets`.
struct Sorting<'a> {
    sets: &'a [Candidate],
    now: Timestamp,
    /// The place in time of each; none for one that does not count now.
    ranks: Vec<Option<usize>>,
    /// The good sets that count.
    good: BTreeMap<Option<&'a (String, String)>, Group>,
    protected: BTreeMap<usize, Vec<Reason>>,
    wanted: BTreeMap<usize, Vec<Reason>>,
    squeezed: BTreeSet<usize>,
    max_size: u64,
}

impl<'a> Sorting<'a> {
    fn new(sets: &'a [Candidate], now: Timestamp) -> Self {
        let ages: Vec<Age<'_>> = sets.iter().map(Candidate::age).collect();
        let ranks = newest::ranks(&ages, now);
        let mut good: BTreeMap<_, Group> = BTreeMap::new();
        for (index, (set, rank)) in sets.iter().zip(&ranks).enumerate() {
            if set.standing == Standing::Good && !set.failed && rank.is_some() {
                good.entry(set.origin.as_ref()).or_default().push(index);
            }
        }
        let rank = |index: &usize| ranks.get(*index).copied().flatten();
        for group in good.values_mut() {
            group.sort_by_key(|index| std::cmp::Reverse(rank(index)));
        }
        Self {
            sets,
            now,
            ranks,
            good,
            protected: BTreeMap::new(),
            wanted: BTreeMap::new(),
            squeezed: BTreeSet::new(),
            max_size: 0,
        }
    }

    /// Its place in time among those that count.
    fn rank(&self, index: usize) -> Option<usize> {
        self.ranks.get(index).copied().flatten()
    }

    fn is_future(&self, index: usize) -> bool {
        let created = self.sets.get(index).and_then(|set| set.created);
        created.is_some_and(|at| newest::is_future(at, self.now))
    }

    fn sets_of<'g>(
        &self,
        group: &'g Group,
    ) -> impl Iterator<Item = (usize, &'a Candidate)> + use<'a, 'g> {
        let sets = self.sets;
        let of = move |&index: &usize| Some((index, sets.get(index)?));
        group.iter().filter_map(of)
    }

    fn protect(&mut self, rules: &Rules) {
        let mut found: Vec<(usize, Reason)> = Vec::new();
        for group in self.good.values() {
            self.protect_group(group, rules, &mut found);
        }
        for (index, set) in self.sets.iter().enumerate() {
            let mut reasons = Vec::new();
            hold(set, &mut reasons);
            if set.latest {
                reasons.push(reason("latest", "latest-backup points to it"));
            }
            if self.is_future(index) {
                let detail = "its time is in the future: a clock was wrong";
                reasons.push(reason("from-the-future", detail));
            }
            reasons.extend(set.doubt.clone());
            reasons.extend(self.not_good(index, set));
            found.extend(reasons.into_iter().map(|reason| (index, reason)));
        }
        for (index, reason) in found {
            self.protected.entry(index).or_default().push(reason);
        }
    }

    fn protect_group(&self, group: &Group, rules: &Rules, found: &mut Vec<(usize, Reason)>) {
        let floor = rules.min_keep.map_or(0, |n| n.get() as usize);
        let mut versions = BTreeSet::new();
        for (place, (index, set)) in self.sets_of(group).enumerate() {
            if place == 0 {
                found.push((index, reason("newest-good", "it is the newest good backup")));
            }
            if place < floor {
                let detail = format!("it is one of the newest {floor} good backups");
                found.push((index, reason("min-keep", detail)));
            }
            if let (true, Some(version)) = (rules.ocp_versions, &set.ocp_version)
                && versions.insert(version.as_str())
            {
                let detail = format!("it is the newest good backup of {version}");
                found.push((index, reason("ocp-version", detail)));
            }
        }
        if let Some((index, _)) = self.sets_of(group).find(|(_, set)| set.verified) {
            let detail = "it is the newest verified backup";
            found.push((index, reason("newest-verified", detail)));
        }
        // Its record tells when a rehearsal is due again.
        if let Some((index, _)) = self.sets_of(group).find(|(_, set)| set.rehearsed) {
            let detail = "it is the newest backup that etcd served in a rehearsal";
            found.push((index, reason("newest-rehearsed", detail)));
        }
    }

    /// What protects a backup that is not good: no good one is newer, or it may still be in
    /// progress.
    fn not_good(&self, index: usize, set: &Candidate) -> Option<Reason> {
        if !matches!(set.standing, Standing::Dirty | Standing::Incomplete) {
            return None;
        }
        let created = set.created?;
        let newest = match &set.origin {
            Some(origin) => self.good.get(&Some(origin)).and_then(|group| group.first()),
            // Whose it is nothing says: the newest of all.
            None => {
                let firsts = self.good.values().filter_map(|group| group.first());
                firsts.max_by_key(|index| self.rank(**index))
            }
        };
        if newest.is_none_or(|&newest| self.rank(newest) < self.rank(index)) {
            return Some(reason("no-newer-good", "no good backup is newer"));
        }
        let age = self.now.duration_since(created);
        let young = age < SignedDuration::try_from(INCOMPLETE_AFTER).unwrap_or_default();
        (set.standing == Standing::Incomplete && young)
            .then(|| reason("recent-incomplete", "it may still be in progress"))
    }

    fn want(&mut self, rules: &Rules) {
        let mut found: Vec<(usize, Reason)> = Vec::new();
        if !rules.has_keep_rule() {
            for (index, set) in self.sets.iter().enumerate() {
                let whole = matches!(set.standing, Standing::Good | Standing::Dirty);
                if whole && !set.failed {
                    found.push((
                        index,
                        reason("no-keep-rule", "only the total size is limited"),
                    ));
                }
            }
        }
        for group in self.good.values() {
            self.want_of_group(group, rules, &mut found);
        }
        if let Some(within) = rules.within {
            let limit = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
            for (index, set) in self.sets.iter().enumerate() {
                let counts = matches!(set.standing, Standing::Good | Standing::Dirty);
                let young = set
                    .created
                    .is_some_and(|at| self.now.duration_since(at) <= limit);
                if counts && young && !set.failed {
                    found.push((index, reason("keep-within", "it is recent enough")));
                }
            }
        }
        for (index, reason) in found {
            self.wanted.entry(index).or_default().push(reason);
        }
    }

    /// The backup that every moment since a time is reached from: the newest that was there then, or else
    /// the first.
    fn base_of_moments(&self, group: &Group, moments: Duration) -> Option<usize> {
        let limit = SignedDuration::try_from(moments).unwrap_or(SignedDuration::MAX);
        let mut sets = self.sets_of(group);
        let before = |created: Timestamp| self.now.duration_since(created) >= limit;
        let found = sets.find(|(_, set)| set.created.is_some_and(before));
        found.map(|(index, _)| index).or(group.last().copied())
    }

    /// What the rules want that count.
    fn want_of_group(&self, group: &Group, rules: &Rules, found: &mut Vec<(usize, Reason)>) {
        let base = rules
            .moments
            .and_then(|moments| self.base_of_moments(group, moments));
        found.extend(base.map(|index| (index, reason(KEEP_MOMENTS, BASE))));
        if let Some(last) = rules.last {
            let newest = group.iter().take(last.get() as usize).enumerate();
            found.extend(newest.map(|(place, &index)| {
                let detail = format!("{} of {last}", place + 1);
                (index, reason("keep-last", detail))
            }));
        }
        let zone = rules.zone.clone().unwrap_or(TimeZone::UTC);
        let periods: [(&'static str, Option<NonZeroU32>, Period); 4] = [
            ("keep-hourly", rules.hourly, hour),
            ("keep-daily", rules.daily, day),
            ("keep-weekly", rules.weekly, week),
            ("keep-monthly", rules.monthly, month),
        ];
        for (rule, most, period) in periods {
            let Some(most) = most else { continue };
            let mut seen = BTreeSet::new();
            for (index, set) in self.sets_of(group) {
                let Some(key) = set.created.map(|at| period(at, &zone)) else {
                    continue;
                };
                // They come newest first: the newest of a period stands for it.
                if seen.len() < most.get() as usize && seen.insert(key.clone()) {
                    let detail = format!("{} of {most}: {key}", seen.len());
                    found.push((index, reason(rule, detail)));
                }
            }
        }
    }

    /// Drops what the rules keep, oldest first, until the rest is small enough.
    fn limit(&mut self, most: u64) {
        self.max_size = most;
        let stays =
            |index: &usize| self.protected.contains_key(index) || self.wanted.contains_key(index);
        let mut staying: Vec<usize> = (0..self.sets.len())
            .filter(stays)
            .filter(|&index| {
                let set = self.sets.get(index);
                set.is_some_and(|set| set.standing != Standing::Unrecognised)
            })
            // A backup from the future, or in doubt, must not displace those that count.
            .filter(|&index| !self.is_future(index))
            .filter(|&index| self.sets.get(index).is_some_and(|set| set.doubt.is_none()))
            .collect();
        staying.sort_by_key(|&index| self.rank(index));
        let size = |index: usize| self.sets.get(index).map_or(0, |set| set.size);
        let mut total = staying
            .iter()
            .fold(0u64, |sum, &index| sum.saturating_add(size(index)));
        let mut squeezed = BTreeSet::new();
        for index in staying {
            if total <= most {
                break;
            }
            if !self.protected.contains_key(&index) {
                total = total.saturating_sub(size(index));
                squeezed.insert(index);
            }
        }
        self.squeezed = squeezed;
    }

    fn decisions(mut self) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(self.sets.len());
        for (index, set) in self.sets.iter().enumerate() {
            let mut reasons = self.protected.remove(&index).unwrap_or_default();
            let protected = !reasons.is_empty();
            let wanted = self.wanted.remove(&index).unwrap_or_default();
            let verdict = if self.squeezed.contains(&index) {
                let detail = format!("all together are more than {} bytes", self.max_size);
                reasons = vec![reason("max-size", detail)];
                Verdict::Remove
            } else if protected || !wanted.is_empty() {
                reasons.extend(wanted);
                Verdict::Keep
            } else {
                reasons.push(unwanted(set.standing));
                Verdict::Remove
            };
            decisions.push(Decision {
                name: set.name.clone(),
                verdict,
                reasons,
            });
        }
        decisions
    }
}

fn unwanted(standing: Standing) -> Reason {
    match standing {
        Standing::Dirty => reason("dirty", "it does not count, and a good backup is newer"),
        Standing::Incomplete => {
            reason("incomplete", "it is incomplete, and a good backup is newer")
        }
        _ => reason("unwanted", "no rule keeps it"),
    }
}

/// Names the period that contains a moment.
type Period = fn(Timestamp, &TimeZone) -> String;

/// The hour; by the offset too, since an hour comes twice when summer ends.
fn hour(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone())
        .strftime("%Y-%m-%d %H:00%:z")
        .to_string()
}

fn day(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d").to_string()
}

fn week(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%G-W%V").to_string()
}

fn month(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m").to_string()
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
