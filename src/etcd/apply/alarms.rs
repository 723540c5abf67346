//! Alarms: raised and cleared by requests, and what they refuse in the meantime.
//!
//! Bucket `alarm`: the key is an `AlarmMember` {memberID=1, alarm=2}, the value empty (etcd,
//! `server/etcdserver/api/v3alarm/alarms.go`).

use std::collections::BTreeSet;

use super::base::{Base, unknown};
use super::entries::{Entries, bucket, difference};
use crate::error::{Failure, Kind, Result};
use crate::etcd::bbolt::write::Edit;
use crate::etcd::proto::{Fields, WireError, put_u64};

const NONE: u64 = 0;
const NOSPACE: u64 = 1;
const CORRUPT: u64 = 2;

/// The alarms that are raised.
pub(super) struct Alarms {
    before: Entries,
    /// Kind and member.
    raised: BTreeSet<(u64, u64)>,
    /// Whether writes are refused for want of room.
    full: bool,
}

fn member(key: &[u8]) -> Result<(u64, u64), WireError> {
    let (mut member, mut kind) = (0, 0);
    for field in Fields::new(key) {
        let field = field?;
        match field.number {
            1 => member = field.u64()?,
            2 => kind = field.u64()?,
            _ => {}
        }
    }
    Ok((kind, member))
}

fn encode((kind, member): (u64, u64)) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, value) in [(1, member), (2, kind)] {
        if value != 0 {
            put_u64(&mut out, field, value);
        }
    }
    out
}

impl Alarms {
    pub(super) fn read(base: &Base<'_>) -> Result<Self> {
        let before = bucket(base, "alarm")?;
        let mut raised = BTreeSet::new();
        for key in before.keys() {
            let alarm = member(key).map_err(|cause| {
                Failure::new(Kind::BadBackup, format!("reading an alarm: {cause}"))
            })?;
            raised.insert(alarm);
        }
        let full = raised.iter().any(|(kind, _)| *kind == NOSPACE);
        Ok(Self {
            before,
            raised,
            full,
        })
    }

    fn count(&self, kind: u64) -> usize {
        let of_kind = |alarm: &&(u64, u64)| kind == NONE || alarm.0 == kind;
        self.raised.iter().filter(of_kind).count()
    }

    /// While CORRUPT is raised a server refuses almost everything, and releases differ in what they
    /// accept.
    pub(super) fn check(&self, index: u64) -> Result<()> {
        match self.count(CORRUPT) {
            0 => Ok(()),
            _ => Err(unknown(index, "for a store with the alarm CORRUPT raised")),
        }
    }

    /// Whether puts and grants are refused.
    pub(super) fn full(&self) -> bool {
        self.full
    }

    /// An `AlarmRequest`: action=1, memberID=2, alarm=3.
    pub(super) fn request(&mut self, index: u64, body: &[u8]) -> Result<()> {
        let numbers = || -> Result<(u64, u64, u64), WireError> {
            let (mut action, mut member, mut kind) = (0, 0, 0);
            for field in Fields::new(body) {
                let field = field?;
                match field.number {
                    1 => action = field.u64()?,
                    2 => member = field.u64()?,
                    3 => kind = field.u64()?,
                    _ => {}
                }
            }
            Ok((action, member, kind))
        };
        let (action, member, kind) =
            numbers().map_err(|cause| unknown(index, format_args!("undecodable ({cause})")))?;
        // A server changes what it refuses only with the first alarm of a kind that is raised, and
        // with the last that is cleared (`applierV3backend.Alarm`, apply.go).
        let before = self.count(kind);
        match (action, kind) {
            (1, NONE) => {}
            (1, NOSPACE | CORRUPT) => {
                self.raised.insert((kind, member));
                self.full |= kind == NOSPACE && before == 0 && self.count(kind) == 1;
            }
            (1, other) => return Err(unknown(index, format_args!("an alarm of kind {other}"))),
            (2, _) => {
                let gone = self.raised.remove(&(kind, member));
                if gone && before > 0 && self.count(kind) == 0 {
                    self.full = false;
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn edit(&self) -> Edit {
        let after = self.raised.iter().map(|alarm| (encode(*alarm), Vec::new()));
        difference(&self.before, &after.collect())
    }
}
