//! When what has arrived is sealed.
//!
//! Each segment is a file, and an object in each store that it is copied to. A cluster that writes little
//! would fill them with segments of a few changes, so that these wait longer.

use std::time::Duration;

use tokio::time::Instant;

use crate::etcd::segment::Assembler;

/// After this time what has arrived is sealed.
const EVERY: Duration = Duration::from_secs(2);
/// Or after this one, as long as it is little.
const LITTLE_EVERY: Duration = Duration::from_secs(10);
/// So many changes are not little. 500 writes/s, whatever their size, are sealed after [`EVERY`].
const MANY: u64 = 500;
/// So many bytes are not little.
const LARGE: u64 = 1 << 20;

/// How long what has arrived waits until it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealing {
    every: Duration,
    little_every: Duration,
    max_bytes: u64,
}

impl Sealing {
    /// After a time, however little has arrived, or earlier once there are so many bytes. Without a time
    /// it is two seconds, and ten while there are fewer than 500 changes and less than 1 MiB.
    pub fn new(every: Option<Duration>, max_bytes: u64) -> Self {
        Self {
            every: every.unwrap_or(EVERY),
            little_every: every.unwrap_or(LITTLE_EVERY),
            max_bytes,
        }
    }

    fn wait(&self, assembler: &Assembler) -> Duration {
        match assembler.records() < MANY && (assembler.len() as u64) < LARGE {
            true => self.little_every,
            false => self.every,
        }
    }
}

/// When the next segment is due.
#[derive(Debug)]
pub(super) struct Pace {
    sealing: Sealing,
    /// When the first change that is not sealed arrived.
    since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(sealing: Sealing) -> Self {
        Self {
            sealing,
            since: None,
        }
    }

    /// When what has arrived must be sealed; `None` if nothing has.
    pub(super) fn due(&self, assembler: &Assembler) -> Option<Instant> {
        Some(self.since? + self.sealing.wait(assembler))
    }

    /// Whether there is so much that it is sealed at once.
    pub(super) fn is_full(&self, assembler: &Assembler) -> bool {
        assembler.len() as u64 >= self.sealing.max_bytes
    }

    /// Something arrived, or was sealed.
    pub(super) fn note(&mut self, assembler: &Assembler, now: Instant) {
        self.since = match assembler.is_empty() {
            true => None,
            false => self.since.or(Some(now)),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use jiff::Timestamp;

    use super::super::tape::Tape;
    use super::*;
    use crate::etcd::client::Event;
    use crate::etcd::segment::{Header, names};

    const DAY: u64 = 86_400;
    const SIZE: u64 = 8 << 20;

    fn put(revision: i64, bytes: usize) -> Event {
        Event {
            deleted: false,
            key: Bytes::from_static(b"/registry/leases/kube-node-lease/node"),
            value: Bytes::from(vec![0; bytes]),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        }
    }

    fn about(now: Timestamp) -> Header {
        Header {
            schema_version: 0,
            cluster_id: "c1".to_owned(),
            member_id: "a1".to_owned(),
            etcd_version: "3.5.16".to_owned(),
            first_revision: 0,
            last_revision: 0,
            records: 0,
            leases: 0,
            leases_fresh: true,
            first_received: now,
            last_received: now,
            previous: None,
            begun: None,
            checkpoint: None,
        }
    }

    /// The files that a recorder makes of evenly spread writes, as for a whole day, and the longest time
    /// that a change was not sealed.
    fn recorded(
        sealing: Sealing,
        seconds: u64,
        (writes, per): (u64, u64),
        bytes: usize,
    ) -> (u64, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let mut tape = Tape::open(dir.path()).unwrap();
        let mut assembler = Assembler::after(1);
        let mut pace = Pace::new(sealing);
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        let clock: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let mut seal = |assembler: &mut Assembler, at: Duration| {
            let mut header = about(clock + at);
            tape.link(&mut header);
            let sealed = assembler.seal(&header, &BTreeMap::new()).unwrap();
            let (header, file, hash) = sealed.unwrap();
            tape.append(&header, &file, hash, || assembler.sealed())
                .unwrap();
        };
        for write in 0..seconds * writes / per {
            let at = Duration::from_millis(write * 1000 * per / writes);
            if let Some(due) = pace.due(&assembler).filter(|due| *due <= start + at) {
                longest = longest.max(due - pace.since.unwrap());
                seal(&mut assembler, due - start);
                pace.note(&assembler, due);
            }
            let event = put(assembler.last() + 1, bytes);
            assembler.take(&[event], clock + at, true).unwrap();
            if pace.is_full(&assembler) {
                seal(&mut assembler, at);
            }
            pace.note(&assembler, start + at);
        }
        let chain = tape.dir().unwrap();
        (names(chain).unwrap().len() as u64 * DAY / seconds, longest)
    }

    /// The counts of docs/interface.md.
    #[test]
    fn a_day_has_as_many_segments_as_the_pages_say() {
        let usual = Sealing::new(None, SIZE);
        let (every, little) = (EVERY, LITTLE_EVERY);
        // A write every three seconds, and ones of a few nodes, of a large cluster.
        for (rate, bytes) in [((1, 3), 500), ((5, 1), 1_000), ((45, 1), 1_000)] {
            let (files, longest) = recorded(usual, 1_800, rate, bytes);
            assert!(files <= 8_640, "{rate:?}: {files}");
            assert!(longest <= little, "{rate:?}: {longest:?}");
        }
        // What is much is not sealed later than ever.
        for (rate, bytes) in [((500, 1), 50), ((500, 1), 5_000)] {
            let (files, longest) = recorded(usual, 60, rate, bytes);
            assert!((40_000..=43_200).contains(&files), "{rate:?}: {files}");
            assert!(longest <= every, "{rate:?}: {longest:?}");
        }
        // Between the two: a segment more for each 500 changes, or each 1 MiB.
        let (files, _) = recorded(usual, 300, (100, 1), 500);
        assert!(files <= 8_640 + 100 * DAY / MANY, "{files}");
        let (files, _) = recorded(usual, 300, (20, 1), 10_000);
        assert!(files <= 8_640 + 20 * DAY * 10_100 / LARGE, "{files}");
    }

    #[test]
    fn a_time_that_is_given_holds_however_little_was_written() {
        for (every, files) in [(1, 86_400), (2, 43_200), (30, 2_880)] {
            let every = Duration::from_secs(every);
            let (found, longest) = recorded(Sealing::new(Some(every), SIZE), 300, (2, 1), 100);
            assert!(found <= files, "{every:?}: {found}");
            assert!(longest <= every, "{every:?}: {longest:?}");
        }
        // And so does a size.
        let (files, _) = recorded(Sealing::new(None, 1), 30, (2, 1), 100);
        assert_eq!(files, 2 * DAY);
    }
}
