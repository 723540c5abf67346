//! From the events of a watch to the records of a segment.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::body::Body;
use super::header::{Header, SCHEMA_VERSION};
use super::parse::Segment;
use crate::error::Result;
use crate::etcd::client::Event;
use crate::etcd::mvcc::{KeyValue, KvRevision, RevisionKey};

/// Why a watch cannot be recorded any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// Revisions are missing, or come again: `found` instead of `expected`.
    Sequence {
        /// The revision that comes next.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// An event that no etcd sends.
    Event {
        /// Its revision.
        revision: i64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The last revision that was recorded has other changes now.
    OtherHistory {
        /// That revision.
        revision: i64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence { expected, found } => {
                write!(
                    f,
                    "expected the events of revision {expected}, found revision {found}"
                )
            }
            Self::Event { revision, what } => {
                write!(f, "an event of revision {revision} {what}")
            }
            Self::OtherHistory { revision } => write!(
                f,
                "etcd has other changes at revision {revision} than those recorded: it was restored"
            ),
        }
    }
}

/// The last revision that was recorded, which a resumed watch shows again: by that it is known that the
/// history is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    revision: i64,
    /// Whether each record is a tombstone, and its value.
    records: Vec<(bool, Vec<u8>)>,
}

impl Again {
    /// The last revision of a segment.
    pub fn of(segment: &Segment) -> Self {
        let revision = segment.header().last_revision;
        let mut records = Vec::new();
        for record in segment.records().rev() {
            if record.key.revision.main != revision {
                break;
            }
            records.push((record.key.tombstone, record.value.to_vec()));
        }
        Self { revision, records }
    }

    /// Its revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether events of that revision are those recorded. A compaction at that very revision drops
    /// its tombstones, and nothing else of it.
    fn is_shown_by(&self, events: &[Event]) -> bool {
        let shown: Vec<(bool, Vec<u8>)> = events
            .iter()
            .map(|event| (event.deleted, value(event)))
            .collect();
        let known = |one: &(bool, Vec<u8>)| self.records.contains(one);
        let puts = |all: &[(bool, Vec<u8>)]| all.iter().filter(|(deleted, _)| !deleted).count();
        shown.iter().all(known) && puts(&shown) == puts(&self.records)
    }
}

fn value(event: &Event) -> Vec<u8> {
    let key = &event.key;
    let kv = match event.deleted {
        true => KeyValue {
            key,
            ..KeyValue::default()
        },
        false => KeyValue {
            key,
            create_revision: event.create_revision,
            mod_revision: event.mod_revision,
            version: event.version,
            value: &event.value,
            lease: event.lease,
        },
    };
    kv.encode()
}

/// Collects what a segment will have.
#[derive(Debug)]
pub struct Assembler {
    /// The last revision that is complete.
    last: i64,
    again: Option<Again>,
    body: Body,
    records: u64,
    first: Option<i64>,
    received: Option<(Timestamp, Timestamp)>,
    /// Where the last revision's records begin, for the next resumption.
    tail: Vec<(bool, Vec<u8>)>,
}

impl Assembler {
    /// For a watch whose first revision is the one after `last`.
    pub fn after(last: i64) -> Self {
        Self {
            last,
            again: None,
            body: Body::default(),
            records: 0,
            first: None,
            received: None,
            tail: Vec::new(),
        }
    }

    /// For a watch that shows the last recorded revision again.
    pub fn resume(again: Again) -> Self {
        Self {
            again: Some(again.clone()),
            ..Self::after(again.revision)
        }
    }

    /// The revision that a watch must begin at.
    pub fn start(&self) -> i64 {
        match &self.again {
            Some(again) => again.revision,
            None => self.last.saturating_add(1),
        }
    }

    /// The last revision that was taken.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Whether there is nothing to seal.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes to be sealed.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// When the first event that is to be sealed arrived.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.received.map(|(first, _)| first)
    }

    /// Takes the events of one response: all of its revisions are complete. `live` says whether they
    /// came as they were written, so that their time of arrival is that of their writing.
    ///
    /// # Errors
    /// If they do not continue what was taken; nothing of the response is taken then.
    pub fn take(&mut self, events: &[Event], now: Timestamp, live: bool) -> Result<(), Broken> {
        let mut events = events;
        if let (Some(again), false) = (&self.again, events.is_empty()) {
            let shown = events.partition_point(|event| event.mod_revision <= again.revision);
            let (shown, rest) = events.split_at_checked(shown).unwrap_or((&[], events));
            if !again.is_shown_by(shown) {
                let revision = again.revision;
                return Err(Broken::OtherHistory { revision });
            }
            self.again = None;
            events = rest;
        }
        let keys = keys(events, self.last)?;
        let Some(last) = keys.last().map(|key| key.revision.main) else {
            return Ok(());
        };
        let before = self.received.map(|(_, last)| last);
        // The clock may have been set back since.
        let time = before
            .map_or(now, |before| before.max(now))
            .as_millisecond();
        self.tail.clear();
        let first = keys.first().map(|key| key.revision.main);
        for (event, key) in events.iter().zip(&keys) {
            let (main, sub) = (key.revision.main, key.revision.sub);
            // All of a response arrived at once: its last revision has the same time as its first.
            if live && sub == 0 && (Some(main) == first || main == last) {
                self.body.time(time);
            }
            let value = value(event);
            self.body.record(&key.encode(), &value);
            if main == last {
                self.tail.push((event.deleted, value));
            }
        }
        self.records += keys.len() as u64;
        self.first = self.first.or(first);
        self.last = last;
        let since = self.received.map_or(now, |(first, _)| first);
        let until = self.received.map_or(now, |(_, last)| last.max(now));
        self.received = Some((since, until));
        Ok(())
    }

    /// The file of everything that was taken since the last one, its header, its hash in hex, and what
    /// shows that a later watch continues it; `None` if nothing was taken. The header's ids, version,
    /// link and cause are those given. What was taken stays until [`Assembler::sealed`].
    ///
    /// # Errors
    /// Only where the header cannot be written.
    pub fn seal(
        &self,
        about: &Header,
        leases: &BTreeMap<i64, i64>,
    ) -> Result<Option<(Header, Vec<u8>, String)>> {
        let (Some(first), Some(received)) = (self.first, self.received) else {
            return Ok(None);
        };
        let mut body = self.body.clone();
        for (id, ttl) in leases {
            body.lease(*id, *ttl);
        }
        let header = Header {
            schema_version: SCHEMA_VERSION,
            first_revision: first,
            last_revision: self.last,
            records: self.records,
            leases: leases.len() as u64,
            first_received: received.0,
            last_received: received.1,
            ..about.clone()
        };
        let (file, hash) = body.seal(&header)?;
        Ok(Some((header, file, hex::encode(hash))))
    }

    /// Everything that was taken is durable: the next segment begins.
    pub fn sealed(&mut self) -> Again {
        let again = Again {
            revision: self.last,
            records: std::mem::take(&mut self.tail),
        };
        *self = Self {
            received: None,
            ..Self::after(self.last)
        };
        again
    }
}

/// The keys that events have in the bucket `key`, if they continue a revision.
fn keys(events: &[Event], last: i64) -> Result<Vec<RevisionKey>, Broken> {
    let mut at = KvRevision {
        main: last,
        sub: -1,
    };
    let mut keys = Vec::with_capacity(events.len());
    for event in events {
        let main = event.mod_revision;
        let sub = match main.saturating_sub(at.main) {
            // More of this revision, but never of one that was taken before.
            0 if at.sub >= 0 => at.sub + 1,
            1 => 0,
            _ => {
                return Err(Broken::Sequence {
                    expected: at.main.saturating_add(1),
                    found: main,
                });
            }
        };
        check(event)?;
        at = KvRevision { main, sub };
        keys.push(RevisionKey {
            revision: at,
            tombstone: event.deleted,
        });
    }
    Ok(keys)
}

/// Whether an event can be one of etcd's.
fn check(event: &Event) -> Result<(), Broken> {
    let revision = event.mod_revision;
    let wrong = |what| Err(Broken::Event { revision, what });
    if event.key.is_empty() {
        return wrong("has no key");
    }
    if event.deleted {
        return Ok(());
    }
    let fresh = event.create_revision == revision;
    let sound = (1..=revision).contains(&event.create_revision)
        && event.version >= 1
        && (event.version == 1) == fresh;
    match sound {
        true => Ok(()),
        false => wrong("has a version that does not fit its revisions"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::header::{Begun, Cause};
    use super::*;

    fn put(revision: i64, key: &str, value: &str) -> Event {
        Event {
            deleted: false,
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        }
    }

    fn delete(revision: i64, key: &str) -> Event {
        Event {
            deleted: true,
            create_revision: 0,
            version: 0,
            value: Bytes::new(),
            ..put(revision, key, "")
        }
    }

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    fn about() -> Header {
        Header {
            schema_version: 1,
            cluster_id: "c1".into(),
            member_id: "a1".into(),
            etcd_version: "3.5.16".into(),
            first_revision: 0,
            last_revision: 0,
            records: 0,
            leases: 0,
            leases_fresh: true,
            first_received: now(),
            last_received: now(),
            previous: None,
            begun: Some(Begun {
                cause: Cause::First,
                after: None,
            }),
            checkpoint: None,
        }
    }

    fn sealed() -> Vec<u8> {
        let mut assembler = Assembler::after(4);
        let events = [put(5, "a", "1"), put(5, "b", "2"), delete(6, "a")];
        assembler.take(&events, now(), true).unwrap();
        let leases = BTreeMap::from([(7, 60), (9, 30)]);
        assembler.seal(&about(), &leases).unwrap().unwrap().1
    }

    #[test]
    fn what_is_sealed_reads_back_and_what_is_changed_does_not() {
        let file = sealed();
        let segment = Segment::parse(file.clone()).unwrap();
        let revisions: Vec<String> = segment
            .records()
            .map(|record| format!("{} {}", record.key.revision, record.key.tombstone))
            .collect();
        assert_eq!(revisions, ["5/0 false", "5/1 false", "6/0 true"]);
        assert_eq!(segment.leases(), [(7, 60), (9, 30)]);
        let time = now().as_millisecond();
        assert_eq!(segment.times(), [(5, time), (6, time)]);
        assert_eq!(
            (
                segment.header().first_revision,
                segment.header().last_revision
            ),
            (5, 6)
        );
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(Segment::parse(changed).is_err(), "{at}");
            assert!(Segment::parse(file[..at].to_vec()).is_err(), "{at}");
        }
    }

    /// With a right hash, too, nothing is taken that is not whole and in order.
    #[test]
    fn a_segment_that_lies_about_its_records_is_refused() {
        let header = |first, last, records| Header {
            first_revision: first,
            last_revision: last,
            records,
            ..about()
        };
        let kv = |key: &str, revision| value(&put(revision, key, "1"));
        let key = |main, sub| RevisionKey {
            revision: KvRevision { main, sub },
            tombstone: false,
        };
        let file = |header: &Header, records: &[(RevisionKey, Vec<u8>)]| {
            let mut body = Body::default();
            for (key, value) in records {
                body.record(&key.encode(), value);
            }
            body.seal(header).unwrap().0
        };
        let two = [(key(5, 0), kv("a", 5)), (key(6, 0), kv("b", 6))];
        assert!(Segment::parse(file(&header(5, 6, 2), &two)).is_ok());
        for (header, records, why) in [
            (header(5, 7, 2), two.to_vec(), "expected revision 7"),
            (header(4, 6, 2), two.to_vec(), "expected revision 4/0"),
            (header(5, 6, 3), two.to_vec(), "expected 3 records"),
            (header(5, 5, 2), two.to_vec(), "found 6/0"),
            (
                header(5, 7, 2),
                vec![two[0].clone(), (key(7, 0), kv("b", 7))],
                "the revision after 5/0",
            ),
            (
                header(5, 6, 2),
                vec![two[0].clone(), (key(6, 1), kv("b", 6))],
                "found 6/1",
            ),
            (
                header(5, 6, 2),
                vec![two[0].clone(), (key(6, 0), kv("b", 5))],
                "its own revision",
            ),
        ] {
            let refused = Segment::parse(file(&header, &records)).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}: {why}");
        }
    }

    #[test]
    fn a_hole_a_repetition_and_an_odd_event_end_it() {
        let mut assembler = Assembler::after(4);
        assembler.take(&[put(5, "a", "1")], now(), true).unwrap();
        let hole = assembler.take(&[put(7, "a", "1")], now(), true);
        let sequence = |expected, found| Err(Broken::Sequence { expected, found });
        assert_eq!(hole, sequence(6, 7));
        assert_eq!(
            assembler.take(&[put(5, "a", "1")], now(), true),
            sequence(6, 5)
        );
        let again = [put(6, "a", "1"), put(6, "b", "1"), put(5, "c", "1")];
        assert_eq!(assembler.take(&again, now(), true), sequence(7, 5));
        let odd = Event {
            version: 3,
            ..put(6, "a", "1")
        };
        assert!(matches!(
            assembler.take(&[odd], now(), true),
            Err(Broken::Event { .. })
        ));
        assert_eq!(assembler.last(), 5, "nothing of these was taken");
        assembler.take(&[put(6, "b", "1")], now(), true).unwrap();
        assert_eq!(assembler.last(), 6);
    }

    #[test]
    fn a_resumed_watch_shows_that_its_history_is_the_same() {
        let segment = Segment::parse(sealed()).unwrap();
        let resume = || Assembler::resume(Again::of(&segment));
        assert_eq!(resume().start(), 6);
        let mut same = resume();
        same.take(&[delete(6, "a"), put(7, "c", "1")], now(), false)
            .unwrap();
        assert_eq!(same.last(), 7);
        // Its tombstones went with a compaction at that revision.
        assert!(resume().take(&[put(7, "c", "1")], now(), false).is_ok());
        for other in [put(6, "a", "1"), delete(6, "b")] {
            let broken = resume().take(&[other], now(), false);
            assert_eq!(broken, Err(Broken::OtherHistory { revision: 6 }));
        }
        let mut after = Assembler::after(7);
        after
            .take(&[put(8, "x", "1"), delete(8, "y")], now(), true)
            .unwrap();
        let again = after.sealed();
        let missing = Assembler::resume(again).take(&[put(9, "z", "1")], now(), false);
        assert_eq!(missing, Err(Broken::OtherHistory { revision: 8 }));
    }
}
