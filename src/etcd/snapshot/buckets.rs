//! The buckets beside `key`: what each holds, judged and gathered.
//!
//! | bucket | key | value |
//! | --- | --- | --- |
//! | `meta` | `consistent_index`, `term` | u64, big-endian |
//! | `meta` | `scheduledCompactRev`, `finishedCompactRev` | a revision key |
//! | `meta` | `confState` | JSON of raft's ConfState |
//! | `meta` | `storageVersion` | text, `3.6.0` |
//! | `members` | id, hexadecimal without padding | JSON of the member |
//! | `members_removed` | id | `removed` |
//! | `cluster` | `clusterVersion`, `downgrade` | text; JSON |
//! | `lease` | id, i64 big-endian | proto: ID=1, TTL=2, RemainingTTL=3 |
//! | `alarm` | proto: memberID=1, alarm=2 | empty |
//! | `auth` | `authEnabled`, `authRevision` | one byte; u64 big-endian |
//! | `authUsers` | name | proto: name=1, password=2, roles=3, options=4 |
//! | `authRoles` | name | proto: name=1, keyPermission=2 {permType=1, key=2, range_end=3} |
//!
//! From etcd `server/storage/schema` and the messages under `api/`.

use std::io;

use super::facts::{Alarm, Auth, ConfState, Downgrade, Member};
use crate::etcd::bbolt::write::Digest;
use crate::etcd::bbolt::{Entry, Large, Leaf, Visitor};
use crate::etcd::crc::CrcSpan;
use crate::etcd::mvcc::{KvRevision, RevisionKey};
use crate::etcd::proto::strict::WireFault;
use crate::etcd::proto::{Field, Fields, Value};
use crate::finding::{Findings, Layer, Place};

/// The buckets that every release since 3.4 makes, by name.
pub const STANDARD: [&str; 10] = [
    "alarm",
    "auth",
    "authRoles",
    "authUsers",
    "cluster",
    "key",
    "lease",
    "members",
    "members_removed",
    "meta",
];

/// Members, alarms and removed members that are remembered; a cluster has seven members at most.
const MOST: usize = 1024;
/// Leases whose ids are remembered, 8 bytes each.
const MAX_LEASES: usize = 2_000_000;
/// Bytes read at a time of a value too big to be held.
pub(super) const PIECE: usize = 1 << 20;

/// What the small buckets say.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) scheduled: Option<i64>,
    pub(super) finished: Option<i64>,
    pub(super) consistent_index: Option<u64>,
    pub(super) term: Option<u64>,
    pub(super) conf_state: Option<ConfState>,
    pub(super) storage_version: Option<String>,
    pub(super) cluster_version: Option<String>,
    pub(super) downgrade: Option<Downgrade>,
    pub(super) members: Vec<Member>,
    pub(super) members_removed: Vec<String>,
    pub(super) auth: Auth,
    pub(super) alarms: Vec<Alarm>,
    pub(super) leases: Leases,
}

impl Gathered {
    /// The revision the store is compacted at.
    pub(super) fn compact_revision(&self) -> Option<i64> {
        self.scheduled.max(self.finished)
    }
}

/// The ids of all leases, ascending as unsigned numbers, as the bucket has them.
#[derive(Debug, Default)]
pub(super) struct Leases {
    ids: Vec<u64>,
    pub(super) count: u64,
}

impl Leases {
    /// Whether a lease exists; nothing if there are too many to remember.
    pub(super) fn contains(&self, id: i64) -> Option<bool> {
        (self.ids.len() as u64 == self.count)
            .then(|| self.ids.binary_search(&id.cast_unsigned()).is_ok())
    }
}

/// Entries, bytes and CRC of one bucket in ascending order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Content {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    crc: u32,
}

impl Content {
    fn take(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(super) fn span(&self) -> CrcSpan {
        CrcSpan::new(self.crc, self.bytes)
    }

    pub(super) fn digest(&self) -> Digest {
        Digest {
            entries: self.entries,
            bytes: self.bytes,
            crc: self.crc,
        }
    }
}

/// Reads one bucket other than `key`.
pub(super) struct SmallBucket<'a> {
    name: &'a [u8],
    pub(super) content: Content,
    into: &'a mut Gathered,
}

impl<'a> SmallBucket<'a> {
    pub(super) fn new(name: &'a [u8], into: &'a mut Gathered) -> Self {
        Self {
            name,
            content: Content::default(),
            into,
        }
    }

    fn entry(&mut self, entry: &Entry<'_>, findings: &mut Findings) {
        let read = match self.name {
            b"meta" => self.meta(entry),
            b"members" => self.member(entry, findings),
            b"members_removed" => self.member_removed(entry),
            b"cluster" => self.cluster(entry),
            b"lease" => self.lease(entry),
            b"alarm" => self.alarm(entry),
            b"auth" => self.auth(entry),
            b"authUsers" => {
                self.into.auth.users += 1;
                user(entry)
            }
            b"authRoles" => {
                self.into.auth.roles += 1;
                role(entry)
            }
            _ => Ok(()),
        };
        let bucket = String::from_utf8_lossy(self.name);
        match read {
            Ok(()) => {}
            Err(Fault::Broken { expected, found }) => {
                findings.error(Layer::Keys, entry.place(), || {
                    (format!("in bucket {bucket}: {expected}"), found)
                });
            }
            Err(Fault::Unknown(what)) => {
                findings.warning(Layer::Keys, entry.place(), || {
                    (
                        format!("in bucket {bucket}: what etcd 3.4 to 3.7 write"),
                        what,
                    )
                });
            }
        }
    }

    fn meta(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        let into = &mut *self.into;
        match entry.key {
            b"consistent_index" => into.consistent_index = Some(number(entry)?),
            b"term" => into.term = Some(number(entry)?),
            b"scheduledCompactRev" => into.scheduled = Some(revision(entry)?),
            b"finishedCompactRev" => into.finished = Some(revision(entry)?),
            b"storageVersion" => into.storage_version = Some(version(entry)?),
            b"confState" => {
                let state: ConfState = json(entry)?;
                let unknown = unknown_field(&state.rest, |name| {
                    matches!(name, "auto_leave" | "voters_outgoing" | "learners_next")
                });
                // A field that is not known does not make the others worthless.
                into.conf_state = Some(state);
                unknown?;
            }
            _ => return Err(unknown_key(entry)),
        }
        Ok(())
    }

    fn member(&mut self, entry: &Entry<'_>, findings: &mut Findings) -> Result<(), Fault> {
        let id = member_id(entry)?;
        let member: Member = json(entry)?;
        if member.id != id {
            return Err(Fault::broken(
                format!("member {id:x} under its own id"),
                format!("member {:x}", member.id),
            ));
        }
        if member.peer_urls.is_empty() {
            findings.warning(Layer::Keys, entry.place(), || {
                (format!("peer URLs of member {id:x}"), "none".into())
            });
        }
        let unknown = unknown_field(&member.unknown, |_| false);
        if self.into.members.len() < MOST {
            self.into.members.push(member);
        }
        unknown
    }

    fn member_removed(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        let id = member_id(entry)?;
        if self.into.members_removed.len() < MOST {
            self.into.members_removed.push(format!("{id:x}"));
        }
        if entry.value == b"removed" {
            Ok(())
        } else {
            Err(Fault::broken("the word removed", show(entry.value)))
        }
    }

    fn cluster(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        match entry.key {
            b"clusterVersion" => self.into.cluster_version = Some(version(entry)?),
            b"downgrade" => self.into.downgrade = Some(json(entry)?),
            _ => return Err(unknown_key(entry)),
        }
        Ok(())
    }

    fn lease(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        let id = number_of(entry.key)
            .ok_or_else(|| Fault::broken("a lease id of 8 bytes", show(entry.key)))?;
        let leases = &mut self.into.leases;
        leases.count += 1;
        // Ascending, as `contains` needs them: a broken tree may give another order.
        if leases.ids.len() < MAX_LEASES && leases.ids.last().is_none_or(|last| *last < id) {
            leases.ids.push(id);
        }
        let (mut own, mut ttl) = (0, 0);
        message(entry.value, &[], &mut |field| {
            match field.number {
                1 => own = field.u64()?,
                2 => ttl = field.i64()?,
                3 => drop(field.i64()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if own != id || ttl <= 0 {
            return Err(Fault::broken(
                format!("lease {id:016x} with a time to live above 0"),
                format!("lease {own:016x}, {ttl} s"),
            ));
        }
        Ok(())
    }

    fn alarm(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        let (mut member, mut kind) = (0, 0);
        message(entry.key, &[], &mut |field| {
            match field.number {
                1 => member = field.u64()?,
                2 => kind = field.u64()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let alarm = match kind {
            1 => "NOSPACE".into(),
            2 => "CORRUPT".into(),
            other => other.to_string(),
        };
        let known = matches!(kind, 1 | 2);
        if self.into.alarms.len() < MOST {
            self.into.alarms.push(Alarm {
                member,
                alarm: alarm.clone(),
            });
        }
        if !entry.value.is_empty() {
            return Err(Fault::broken("an alarm without a value", show(entry.value)));
        }
        // Last, since what is only unknown says less than what is broken.
        if known {
            Ok(())
        } else {
            Err(Fault::Unknown(format!("alarm {alarm}")))
        }
    }

    fn auth(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        match (entry.key, entry.value) {
            (b"authEnabled", [enabled @ (0 | 1)]) => self.into.auth.enabled = *enabled == 1,
            (b"authEnabled", other) => {
                return Err(Fault::broken("one byte, 0 or 1", show(other)));
            }
            (b"authRevision", _) => self.into.auth.revision = Some(number(entry)?),
            _ => return Err(unknown_key(entry)),
        }
        Ok(())
    }
}

impl Visitor for SmallBucket<'_> {
    fn leaf(&mut self, leaf: &Leaf<'_>, findings: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            self.content.entries += 1;
            self.content.take(entry.key);
            if entry.bucket {
                // What `snapshot status` hashes of a bucket in a bucket is its name.
                report_nested(self.name, entry.place(), findings);
                continue;
            }
            self.content.take(entry.value);
            self.entry(&entry, findings);
        }
        Ok(())
    }

    fn large(&mut self, element: &Large<'_>, findings: &mut Findings) -> io::Result<()> {
        self.content.entries += 1;
        self.content.take(element.key);
        let mut at = 0;
        let mut piece = vec![0; PIECE];
        while at < element.value_len {
            let len = (element.value_len - at).min(PIECE as u64);
            let part = piece.get_mut(..len as usize).unwrap_or_default();
            element.read_at(part, at)?;
            self.content.take(part);
            at += len;
        }
        findings.warning(Layer::Keys, element.place(), || {
            (
                format!(
                    "a small value in bucket {}",
                    String::from_utf8_lossy(self.name)
                ),
                format!("{} bytes, which are not examined", element.value_len),
            )
        });
        Ok(())
    }
}

/// What must hold between the small buckets.
pub(super) fn check_relations(gathered: &Gathered, findings: &mut Findings) {
    if let Some(finished) = gathered.finished
        && gathered.scheduled.is_none_or(|s| s < finished)
    {
        findings.error(Layer::Keys, None, || {
            (
                format!("a scheduled compaction at or above the finished one, {finished}"),
                gathered
                    .scheduled
                    .map_or_else(|| "none".into(), |s| s.to_string()),
            )
        });
    }
    for member in &gathered.members {
        let id = format!("{:x}", member.id);
        if gathered.members_removed.contains(&id) {
            findings.warning(Layer::Keys, None, || {
                (
                    format!("member {id} either present or removed"),
                    "both: etcd 3.6 and later take it for a member".into(),
                )
            });
        }
    }
}

pub(super) fn report_nested(name: &[u8], place: Place, findings: &mut Findings) {
    findings.warning(Layer::Keys, place, || {
        (
            format!("no bucket in bucket {}", String::from_utf8_lossy(name)),
            "one, which etcd does not know".into(),
        )
    });
}

/// Why an entry is not what etcd writes.
enum Fault {
    Broken { expected: String, found: String },
    Unknown(String),
}

impl Fault {
    fn broken(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Broken {
            expected: expected.into(),
            found: found.into(),
        }
    }
}

impl From<WireFault> for Fault {
    fn from(fault: WireFault) -> Self {
        Self::broken(
            fault.expected,
            format!("something else at byte {}", fault.at),
        )
    }
}

fn unknown_key(entry: &Entry<'_>) -> Fault {
    Fault::Unknown(format!("key {}", show(entry.key)))
}

fn unknown_field<V>(
    rest: &std::collections::BTreeMap<String, V>,
    known: impl Fn(&str) -> bool,
) -> Result<(), Fault> {
    match rest.keys().find(|name| !known(name)) {
        Some(name) => Err(Fault::Unknown(format!("field {}", show(name.as_bytes())))),
        None => Ok(()),
    }
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn number(entry: &Entry<'_>) -> Result<u64, Fault> {
    number_of(entry.value)
        .ok_or_else(|| Fault::broken(format!("{} of 8 bytes", show(entry.key)), show(entry.value)))
}

fn revision(entry: &Entry<'_>) -> Result<i64, Fault> {
    match RevisionKey::parse(entry.value) {
        Some(RevisionKey {
            revision: KvRevision { main, sub: 0 },
            tombstone: false,
        }) => Ok(main),
        _ => Err(Fault::broken(
            format!("{} as a revision with sub revision 0", show(entry.key)),
            show(entry.value),
        )),
    }
}

fn version(entry: &Entry<'_>) -> Result<String, Fault> {
    let text = std::str::from_utf8(entry.value).ok();
    let parts = |text: &str| {
        let (numbers, _) = text.split_once('-').unwrap_or((text, ""));
        numbers
            .split('.')
            .filter(|n| n.parse::<u64>().is_ok())
            .count()
            == 3
            && numbers.split('.').count() == 3
    };
    text.filter(|text| text.len() <= 64 && parts(text))
        .map(Into::into)
        .ok_or_else(|| {
            Fault::broken(
                format!("{} as a version like 3.6.0", show(entry.key)),
                show(entry.value),
            )
        })
}

fn json<'de, T: serde::Deserialize<'de>>(entry: &Entry<'de>) -> Result<T, Fault> {
    serde_json::from_slice(entry.value)
        .map_err(|e| Fault::broken(format!("{} as JSON", show(entry.key)), e.to_string()))
}

fn member_id(entry: &Entry<'_>) -> Result<u64, Fault> {
    std::str::from_utf8(entry.key)
        .ok()
        .and_then(|text| {
            let id = u64::from_str_radix(text, 16).ok()?;
            (format!("{id:x}") == text).then_some(id)
        })
        .ok_or_else(|| {
            Fault::broken(
                "a member id in hexadecimal without padding",
                show(entry.key),
            )
        })
}

/// Reads a message with fields ascending, each once but for `repeated`.
fn message(
    bytes: &[u8],
    repeated: &[u32],
    take: &mut dyn FnMut(&Field<'_>) -> Result<bool, WireFault>,
) -> Result<(), Fault> {
    let mut before = 0;
    for field in Fields::strict(bytes) {
        let field = field.map_err(WireFault::from)?;
        let again = field.number == before && repeated.contains(&before);
        if field.number <= before && !again {
            return Err(
                WireFault::new(field.offset, "fields in ascending order, each once").into(),
            );
        }
        before = field.number;
        if !take(&field)? {
            return Err(Fault::Unknown(format!("field {}", field.number)));
        }
    }
    Ok(())
}

fn named(entry: &Entry<'_>, name: &[u8]) -> Result<(), Fault> {
    if name == entry.key {
        Ok(())
    } else {
        Err(Fault::broken(
            format!("{} under its own name", show(entry.key)),
            show(name),
        ))
    }
}

fn user(entry: &Entry<'_>) -> Result<(), Fault> {
    let mut name = Vec::new();
    message(entry.value, &[3], &mut |field| {
        match field.number {
            1 => name = field.bytes()?.to_vec(),
            2..=4 => drop(field.bytes()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    named(entry, &name)
}

fn role(entry: &Entry<'_>) -> Result<(), Fault> {
    let mut name = Vec::new();
    let mut permissions = Ok(());
    message(entry.value, &[2], &mut |field| {
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => name = bytes.to_vec(),
            (2, Value::Bytes(bytes)) if permissions.is_ok() => {
                permissions = permission(bytes);
            }
            (2, _) => {}
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    permissions?;
    named(entry, &name)
}

fn permission(bytes: &[u8]) -> Result<(), Fault> {
    message(bytes, &[], &mut |field| {
        match field.number {
            1 => {
                if field.u64()? > 2 {
                    return Err(WireFault::new(field.offset, "a permission of 0 to 2"));
                }
            }
            2 | 3 => drop(field.bytes()?),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// Bytes for a finding: printable text as it is, everything else escaped, cut short.
pub(super) fn show(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    let shown = bytes.get(..bytes.len().min(MOST)).unwrap_or(bytes);
    let more = if bytes.len() > MOST { "..." } else { "" };
    format!("\"{}{more}\"", shown.escape_ascii())
}
