//! Leases: granted and revoked.
//!
//! Bucket `lease`: the key is the id, eight bytes big-endian, the value {ID=1, TTL=2,
//! RemainingTTL=3}, zeros left out (etcd, `server/lease/lessor.go`).

use std::collections::BTreeMap;

use super::base::{Base, unknown};
use super::entries::{Entries, bucket, difference};
use crate::error::Result;
use crate::etcd::bbolt::write::Edit;
use crate::etcd::proto::kv::last_number;
use crate::etcd::proto::{Fields, WireError, put_u64};

/// The longest time to live that is granted, in seconds (`MaxLeaseTTL`, lessor.go).
const MAX_TTL: i64 = 9_000_000_000;
/// The shortest time to live with etcd's default heartbeat and election timeout, in seconds. A
/// server with other settings raises shorter ones to its own minimum when it starts.
const LEAST_TTL: i64 = 2;

/// The leases that are there.
pub(super) struct Leases {
    before: Entries,
    after: Entries,
    known: BTreeMap<i64, ()>,
    /// Whether any lease has a remaining time, which is stored only if a flag asks for it.
    checkpoints: bool,
}

/// The value under a lease's id; the time to live is in seconds.
pub(in crate::etcd) fn encode_lease(id: i64, ttl: i64) -> Vec<u8> {
    let mut value = Vec::new();
    put_u64(&mut value, 1, id.cast_unsigned());
    put_u64(&mut value, 2, ttl.cast_unsigned());
    value
}

fn id(key: &[u8]) -> Option<i64> {
    key.try_into().ok().map(i64::from_be_bytes)
}

impl Leases {
    pub(super) fn read(base: &Base<'_>) -> Result<Self> {
        let before = bucket(base, "lease")?;
        let remaining = |value: &Vec<u8>| last_number(Fields::new(value), 3) != Ok(0);
        Ok(Self {
            known: before
                .keys()
                .filter_map(|key| Some((id(key)?, ())))
                .collect(),
            checkpoints: before.values().any(remaining),
            after: before.clone(),
            before,
        })
    }

    pub(super) fn has(&self, lease: i64) -> bool {
        self.known.contains_key(&lease)
    }

    /// A `LeaseGrantRequest`: TTL=1, ID=2.
    pub(super) fn grant(&mut self, body: &[u8]) -> Result<(), WireError> {
        let ttl = last_number(Fields::new(body), 1)?;
        let lease = last_number(Fields::new(body), 2)?;
        // For each of these the client gets an error, and nothing changes (`Grant`, lessor.go).
        if lease == 0 || ttl > MAX_TTL || self.has(lease) {
            return Ok(());
        }
        let value = encode_lease(lease, ttl.max(LEAST_TTL));
        self.after.insert(lease.to_be_bytes().to_vec(), value);
        self.known.insert(lease, ());
        Ok(())
    }

    /// A `LeaseRevokeRequest`: ID=1. Says which lease went.
    pub(super) fn revoke(&mut self, body: &[u8]) -> Result<Option<i64>, WireError> {
        let lease = last_number(Fields::new(body), 1)?;
        if self.known.remove(&lease).is_none() {
            return Ok(None);
        }
        self.after.remove(lease.to_be_bytes().as_slice());
        Ok(Some(lease))
    }

    /// Remaining times are kept in memory only, unless an experimental flag is set, or from 3.6 on.
    pub(super) fn checkpoint(&self, index: u64, cluster: Option<&str>) -> Result<()> {
        let numbers: Vec<u64> = cluster
            .unwrap_or("3.0.0")
            .split('.')
            .map_while(|part| part.parse().ok())
            .collect();
        if self.checkpoints || numbers >= vec![3, 6] {
            return Err(unknown(index, "a lease checkpoint that may be persisted"));
        }
        Ok(())
    }

    pub(super) fn edit(&self) -> Edit {
        difference(&self.before, &self.after)
    }
}
