//! When revisions were written, by the clocks in the objects.
//!
//! A Lease has the time at which its holder renewed it, milliseconds before the write: each node
//! renews one every ten seconds, each leader election every two. Other objects have the time at which
//! the API server created them or changed their managed fields, in whole seconds. Each writer's clock
//! may be wrong, so that a single one decides nothing: each is held against the median of those
//! around it, and one that is off is left out.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::object::ObjectKey;
use super::read::Change;
use super::stored::Stamps;

/// Times kept of each source; with more, every second one is dropped, evenly.
const MAX_SAMPLES: usize = 1 << 18;
/// Writers told apart.
const MAX_WRITERS: usize = 1 << 16;
/// Times on each side of one that it is held against.
const NEIGHBOURS: usize = 7;
/// A clock may always be off by so much, in microseconds, and by more where all are.
const TOLERATED: i64 = 2_000_000;
/// So many Leases suffice without other objects.
const ENOUGH_WRITERS: usize = 3;
const SECOND: i64 = 1_000_000;

/// Which clocks were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockSource {
    /// The renewals of Leases: one clock for each holder.
    Leases,
    /// The times at which the API server created and changed objects.
    Objects,
    /// Both.
    LeasesAndObjects,
    /// When a recorder received them; before the first recorded revision, the clocks in the objects.
    Recorder,
}

/// What times are known by, and how far they may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    /// Which clocks were read.
    pub source: ClockSource,
    /// How many writers agree.
    pub writers: u64,
    /// How many were left out because their clocks are off.
    pub left_out: u64,
    /// How far a time may be off, in seconds.
    pub within_seconds: u64,
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = match self.source {
            ClockSource::Leases => "Leases",
            ClockSource::Objects => "the API server's times",
            ClockSource::LeasesAndObjects => "Leases and the API server's times",
            ClockSource::Recorder => "the times at which changes were recorded",
        };
        let within = self.within_seconds;
        let writers = match self.writers {
            1 => "1 writer".to_owned(),
            more => format!("{more} writers"),
        };
        write!(f, "by {of} ({writers}), within {within} s")?;
        match self.left_out {
            0 => Ok(()),
            1 => f.write_str("; 1 clock was off and is left out"),
            more => write!(f, "; {more} clocks were off and are left out"),
        }
    }
}

/// The time of each revision of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moments {
    clock: Clock,
    /// Revision and microseconds since 1970, both ascending; never empty.
    marks: Vec<(i64, i64)>,
}

/// Collects when recorded revisions arrived.
#[derive(Debug, Default)]
pub(super) struct Received(Samples);

impl Received {
    /// Takes a revision and when it arrived, in milliseconds since 1970; both ascend.
    pub(super) fn add(&mut self, revision: i64, millis: i64) {
        self.0.add(Sample {
            revision,
            micros: millis.saturating_mul(1000),
            writer: 0,
        });
    }

    /// The times of a history whose recorded part these are; before it, those of its objects.
    pub(super) fn join(self, older: Option<Moments>) -> Option<Moments> {
        let Some(first) = self.0.kept.first().copied() else {
            return older;
        };
        let (mut marks, within) = match older {
            Some(older) => (older.marks, older.clock.within_seconds),
            None => (Vec::new(), 1),
        };
        // What a recorder has seen is more certain than the times in objects.
        marks.retain(|(revision, micros)| *revision < first.revision && *micros <= first.micros);
        // A recorder that was resumed may have a clock that was set in the meantime.
        for sample in &self.0.kept {
            let before = marks.last().map_or(i64::MIN, |(_, micros)| *micros);
            marks.push((sample.revision, sample.micros.max(before)));
        }
        let recorded = gap(&marks).unsigned_abs() / 2;
        let recorded = recorded.div_ceil(SECOND.unsigned_abs()) + 1;
        let clock = Clock {
            source: ClockSource::Recorder,
            writers: 1,
            left_out: 0,
            within_seconds: within.min(recorded).max(1),
        };
        Some(Moments { clock, marks })
    }
}

/// The revision of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The last revision that was written at or before it.
    Revision(i64),
    /// It is before the first time that is known.
    Before,
    /// It is after the last one.
    After,
}

impl Moments {
    /// What the times are known by.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// When a revision was written; before the first known time and after the last one, that one.
    pub fn time_of(&self, revision: i64) -> Option<Timestamp> {
        let after = self.marks.partition_point(|(known, _)| *known <= revision);
        let before = after.checked_sub(1).and_then(|at| self.marks.get(at));
        let micros = match (before, self.marks.get(after)) {
            (Some((r0, t0)), Some((r1, t1))) => {
                let part = i128::from(revision - r0) * i128::from(t1 - t0);
                t0 + (part / i128::from((r1 - r0).max(1))) as i64
            }
            (Some((_, time)), None) | (None, Some((_, time))) => *time,
            (None, None) => return None,
        };
        Timestamp::from_microsecond(micros).ok()
    }

    /// The first and the last time that is known.
    pub fn ends(&self) -> Option<(Timestamp, Timestamp)> {
        let time = |mark: Option<&(i64, i64)>| Timestamp::from_microsecond(mark?.1).ok();
        Some((time(self.marks.first())?, time(self.marks.last())?))
    }

    /// The last revision that was written at or before a time. Between two known times the writes are
    /// taken as evenly spread. A time that is later than the last known one by no more than the clocks
    /// may be off is the last revision.
    pub(super) fn at(&self, time: Timestamp, newest: i64) -> At {
        let micros = time.as_microsecond();
        let after = self.marks.partition_point(|(_, known)| *known <= micros);
        let before = after.checked_sub(1).and_then(|at| self.marks.get(at));
        match (before, self.marks.get(after)) {
            (None, _) => At::Before,
            (Some((r0, t0)), Some((r1, t1))) => {
                let part = i128::from(micros - t0) * i128::from(r1 - r0);
                let more = (part / i128::from((t1 - t0).max(1))) as i64;
                // The later mark's own revision was written after this time.
                At::Revision(r0 + more.min((r1 - r0 - 1).max(0)))
            }
            (Some((revision, known)), None) => {
                let tolerated = self.clock.within_seconds.min(3600) as i64 * SECOND;
                match micros - known {
                    0 => At::Revision(*revision),
                    late if late <= tolerated => At::Revision(newest),
                    _ => At::After,
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    revision: i64,
    micros: i64,
    writer: u32,
}

/// Samples, thinned evenly where there are too many.
#[derive(Debug, Default)]
struct Samples {
    kept: Vec<Sample>,
    seen: usize,
    /// Every so many-th is kept, as a power of two.
    stride: u32,
}

impl Samples {
    fn add(&mut self, sample: Sample) {
        self.seen = self.seen.wrapping_add(1);
        if self.seen & ((1usize << self.stride) - 1) != 0 {
            return;
        }
        self.kept.push(sample);
        if self.kept.len() >= MAX_SAMPLES {
            let mut odd = false;
            self.kept.retain(|_| {
                odd = !odd;
                odd
            });
            self.stride = (self.stride + 1).min(30);
        }
    }
}

/// Reads the times of a history while it is walked.
#[derive(Debug, Default)]
pub(super) struct ClockReader {
    leases: Samples,
    objects: Samples,
    writers: HashMap<Vec<u8>, u32>,
}

/// The writer of all times that the API servers set.
const API_SERVERS: u32 = u32::MAX;

impl ClockReader {
    /// Takes a change. Changes may come in any order.
    pub(super) fn take(&mut self, change: &Change<'_>) {
        let Some(put) = change.put else { return };
        let Some(object) = ObjectKey::parse(change.key) else {
            return;
        };
        let lease = object.resource == "leases";
        let Some(stamps) = Stamps::of(put.value, lease) else {
            return;
        };
        let revision = change.revision.main;
        if let (true, Some(micros)) = (lease, stamps.renewed) {
            let count = self.writers.len();
            if count < MAX_WRITERS || self.writers.contains_key(change.key) {
                let next = count as u32;
                let writer = *self.writers.entry(change.key.to_vec()).or_insert(next);
                self.leases.add(Sample {
                    revision,
                    micros,
                    writer,
                });
            }
            return;
        }
        let written = if put.version == 1 {
            stamps.created
        } else {
            stamps.managed
        };
        if let Some(micros) = written {
            self.objects.add(Sample {
                revision,
                micros,
                writer: API_SERVERS,
            });
        }
    }

    /// The time of each revision; nothing if no object has any.
    pub(super) fn finish(self) -> Option<Moments> {
        let (leases, objects) = (self.leases.kept, self.objects.kept);
        let (source, samples) = match (self.writers.len(), objects.is_empty()) {
            (0, true) => return None,
            (0, false) => (ClockSource::Objects, objects),
            (writers, none) if writers >= ENOUGH_WRITERS || none => (ClockSource::Leases, leases),
            _ => (ClockSource::LeasesAndObjects, [leases, objects].concat()),
        };
        settle(source, samples)
    }
}

fn median(values: &mut [i64]) -> i64 {
    let middle = values.len() / 2;
    match values.is_empty() {
        true => 0,
        false => *values.select_nth_unstable(middle).1,
    }
}

/// The median of the times around each; near an end, of as many as there are on both sides.
fn medians(samples: &[Sample]) -> Vec<i64> {
    let mut around = Vec::new();
    (0..samples.len())
        .map(|at| {
            let reach = NEIGHBOURS.min(at).min(samples.len() - 1 - at);
            around.clear();
            let near = samples.get(at - reach..=at + reach).unwrap_or_default();
            around.extend(near.iter().map(|sample| sample.micros));
            median(&mut around)
        })
        .collect()
}

/// How far each writer's clock is off those around it.
fn offsets(samples: &[Sample]) -> HashMap<u32, i64> {
    let mut by_writer: HashMap<u32, Vec<i64>> = HashMap::new();
    for (sample, expected) in samples.iter().zip(medians(samples)) {
        let offset = sample.micros.saturating_sub(expected);
        by_writer.entry(sample.writer).or_default().push(offset);
    }
    by_writer
        .into_iter()
        .map(|(writer, mut offsets)| (writer, median(&mut offsets)))
        .collect()
}

fn settle(source: ClockSource, mut samples: Vec<Sample>) -> Option<Moments> {
    samples.sort_by_key(|sample| (sample.revision, sample.micros));
    let offsets = offsets(&samples);
    let mut sizes: Vec<i64> = offsets.values().map(|o| o.saturating_abs()).collect();
    let limit = median(&mut sizes).saturating_mul(4).max(TOLERATED);
    let agrees = |writer: &u32| {
        offsets
            .get(writer)
            .is_some_and(|o| o.saturating_abs() <= limit)
    };
    let left_out = offsets.keys().filter(|writer| !agrees(writer)).count() as u64;
    samples.retain(|sample| agrees(&sample.writer));
    // Without those that were off, the others are closer to each other.
    let kept = self::offsets(&samples);
    let most = kept.values().map(|offset| offset.saturating_abs()).max();
    let most = most.unwrap_or(0);
    let mut marks: Vec<(i64, i64)> = Vec::with_capacity(samples.len());
    for (sample, micros) in samples.iter().zip(medians(&samples)) {
        // Time does not run backwards.
        let micros = marks.last().map_or(micros, |(_, last)| micros.max(*last));
        match marks.last_mut() {
            Some((revision, last)) if *revision == sample.revision => *last = micros,
            _ => marks.push((sample.revision, micros)),
        }
    }
    let whole = if source == ClockSource::Leases {
        0
    } else {
        SECOND
    };
    let within = most.saturating_add(whole).saturating_add(gap(&marks) / 2);
    let clock = Clock {
        source,
        writers: offsets.len() as u64 - left_out,
        left_out,
        within_seconds: (within.cast_unsigned().div_ceil(SECOND.cast_unsigned())).max(1),
    };
    (!marks.is_empty()).then_some(Moments { clock, marks })
}

/// The longest time between two known ones, but for the longest hundredth.
fn gap(marks: &[(i64, i64)]) -> i64 {
    let pairs = marks.windows(2);
    let mut gaps: Vec<i64> = pairs
        .filter_map(|pair| match pair {
            [(_, a), (_, b)] => Some(b - a),
            _ => None,
        })
        .collect();
    gaps.sort_unstable();
    let at = gaps.len().saturating_sub(1 + gaps.len() / 100);
    gaps.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(revision: i64, seconds: f64, writer: u32) -> Sample {
        Sample {
            revision,
            micros: 1_700_000_000 * SECOND + (seconds * 1e6) as i64,
            writer,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    /// Ten writes a second, of which five nodes renew their leases every ten seconds.
    fn renewals(off: f64) -> Vec<Sample> {
        let mut samples = Vec::new();
        for second in 0..600 {
            let node = (second % 10) as u32;
            if node < 5 {
                let wrong = if node == 3 { off } else { 0.0 };
                samples.push(sample(1000 + second * 10, second as f64 + wrong, node));
            }
        }
        samples
    }

    #[test]
    fn several_clocks_agree() {
        let moments = settle(ClockSource::Leases, renewals(0.0)).unwrap();
        let clock = moments.clock();
        assert_eq!((clock.writers, clock.left_out), (5, 0));
        assert!(clock.within_seconds <= 6, "{clock:?}");
        for second in [3, 100, 101, 257, 590] {
            let revision = 1000 + second * 10;
            let off = moments
                .time_of(revision)
                .unwrap()
                .duration_since(at(second));
            assert!(off.as_secs().abs() <= 3, "{second}: {off:?}");
            let At::Revision(found) = moments.at(at(second), 7000) else {
                panic!()
            };
            assert!((found - revision).abs() <= 30, "{second}: {found}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_left_out() {
        for off in [-3600.0, 120.0, 86_400.0] {
            let moments = settle(ClockSource::Leases, renewals(off)).unwrap();
            let clock = moments.clock();
            assert_eq!((clock.writers, clock.left_out), (4, 1), "{off}");
            let time = moments.time_of(1000 + 2570).unwrap();
            assert!(time.duration_since(at(257)).as_secs().abs() <= 4, "{off}");
        }
    }

    #[test]
    fn a_time_outside_is_told_apart() {
        let moments = settle(ClockSource::Leases, renewals(0.0)).unwrap();
        assert_eq!(moments.at(at(-1), 7000), At::Before);
        let within = moments.clock().within_seconds as i64;
        assert_eq!(moments.at(at(594 + within), 7000), At::Revision(7000));
        assert_eq!(moments.at(at(596 + within), 7000), At::After);
        assert_eq!(moments.time_of(1), moments.ends().map(|ends| ends.0));
        assert_eq!(moments.time_of(9000), moments.ends().map(|ends| ends.1));
    }

    #[test]
    fn the_revision_of_a_time_was_not_written_after_it() {
        let samples = vec![sample(10, 0.0, 0), sample(20, 10.0, 0), sample(21, 11.0, 0)];
        let moments = settle(ClockSource::Leases, samples).unwrap();
        assert_eq!(moments.at(at(0), 30), At::Revision(10));
        assert_eq!(moments.at(at(5), 30), At::Revision(15));
        assert_eq!(moments.at(at(9), 30), At::Revision(19));
        assert_eq!(moments.at(at(10), 30), At::Revision(20));
        assert_eq!(moments.at(at(11), 30), At::Revision(21));
    }

    #[test]
    fn too_many_samples_are_thinned_evenly() {
        let mut samples = Samples::default();
        for revision in 0..4 * MAX_SAMPLES as i64 {
            samples.add(sample(revision, 0.0, 0));
        }
        assert!(samples.kept.len() < MAX_SAMPLES && samples.kept.len() >= MAX_SAMPLES / 4);
        let last = samples.kept.last().unwrap().revision;
        assert!(last > 4 * MAX_SAMPLES as i64 - 16);
        assert!(settle(ClockSource::Objects, Vec::new()).is_none());
    }
}
