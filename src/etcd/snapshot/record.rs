//! One entry of the bucket `key`, read and judged by itself.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::io;

use sha2::{Digest, Sha256};

use super::buckets::{PIECE, show};
use super::table::Fingerprint;
use crate::etcd::bbolt::{Entry, Large};
use crate::etcd::mvcc::{KeyValue, KvRevision, RevisionKey, UnknownField};
use crate::etcd::proto::strict::WireFault;
use crate::etcd::proto::varint::read_shortest;
use crate::finding::{Findings, Layer, Place};

/// No transaction has so many changes: etcd holds them all in memory.
const MAX_CHANGES: i64 = 1 << 31;
/// A longer key is known by its SHA-256.
const LONG_KEY: usize = 64 << 10;

#[cfg(test)]
thread_local! {
    /// Lets tests make keys collide.
    pub(super) static MASK: std::cell::Cell<u64> = const { std::cell::Cell::new(u64::MAX) };
}

/// A hash of users' keys that nobody outside can foresee: SipHash behind a secret beginning.
#[derive(Clone)]
pub(super) struct KeyHasher(DefaultHasher);

impl KeyHasher {
    pub(super) fn new(seed: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(seed);
        // 2⁶⁴ divided by the golden ratio; any constant would do that makes the two words differ.
        hasher.write_u64(seed.rotate_left(32) ^ 0x9E37_79B9_7F4A_7C15);
        Self(hasher)
    }

    pub(super) fn fingerprint(&self, key: &UserKey<'_>) -> Fingerprint {
        let mut hasher = self.0.clone();
        match key {
            UserKey::Whole(key) => hasher.write(key),
            UserKey::Long { digest, .. } => {
                hasher.write(digest);
                hasher.write(b"long");
            }
        }
        let hash = hasher.finish();
        #[cfg(test)]
        let hash = hash & MASK.get();
        Fingerprint::of(hash)
    }
}

/// A user's key, or what stands for one too long to be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UserKey<'a> {
    Whole(Cow<'a, [u8]>),
    Long { start: Vec<u8>, digest: [u8; 32] },
}

impl<'a> UserKey<'a> {
    fn of(key: &'a [u8]) -> Self {
        match key.get(..LONG_KEY) {
            Some(start) if key.len() > LONG_KEY => Self::Long {
                start: start.to_vec(),
                digest: Sha256::digest(key).into(),
            },
            _ => Self::Whole(Cow::Borrowed(key)),
        }
    }

    /// The key, or its beginning.
    pub(super) fn start(&self) -> &[u8] {
        match self {
            Self::Whole(key) => key,
            Self::Long { start, .. } => start,
        }
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        match self {
            Self::Whole(key) => Sha256::digest(key).into(),
            Self::Long { digest, .. } => *digest,
        }
    }
}

/// What an entry says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Put {
        create: i64,
        version: i64,
        lease: i64,
    },
    Delete,
    /// The empty entry that raises the revision after a restore.
    Bump,
}

/// An entry that could be read.
#[derive(Debug, Clone)]
pub(super) struct Record<'a> {
    pub(super) revision: KvRevision,
    pub(super) act: Act,
    pub(super) key: UserKey<'a>,
    pub(super) fingerprint: Fingerprint,
    /// The value, if it is held.
    pub(super) value: Option<&'a [u8]>,
    pub(super) value_len: u64,
    /// Bytes of the entry's key and value as stored.
    pub(super) stored: u64,
    pub(super) place: Place,
}

/// The head of a KeyValue: all but the value.
struct Head<'a> {
    key: UserKey<'a>,
    create: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
    value_len: u64,
}

impl Head<'_> {
    /// Whether the numbers fit each other and the revision of a version.
    fn fits(&self, main: i64) -> bool {
        // etcd refuses a transaction that changes a key twice (`checkIntervals`, v3rpc/key.go), so
        // that a key gains at most one version a revision.
        let created = self.version == 1;
        self.mod_revision == main
            && self.create >= 1
            && self.create <= main
            && self.version >= 1
            && created == (self.create == main)
            && self.version - 1 <= main - self.create
    }
}

/// Reads entries; `compact` is the revision the store is compacted at, −1 if it is not.
pub(super) struct Reader {
    pub(super) hasher: KeyHasher,
    pub(super) compact: i64,
}

impl Reader {
    pub(super) fn new(seed: u64, compact: Option<i64>) -> Self {
        Self {
            hasher: KeyHasher::new(seed),
            compact: compact.unwrap_or(-1),
        }
    }

    /// The revision of an entry's key, whatever its value.
    pub(super) fn revision(
        &self,
        key: &[u8],
        place: Place,
        findings: &mut Findings,
    ) -> Option<RevisionKey> {
        let possible = |k: &RevisionKey| k.revision.main >= 1 && k.revision.sub < MAX_CHANGES;
        let parsed = RevisionKey::parse(key).filter(possible);
        if parsed.is_none() {
            findings.error(Layer::Keys, place, || {
                (
                    "a revision of at least 1 as key: 8 bytes, _, 8 bytes, perhaps t".into(),
                    hex::encode(key.get(..key.len().min(24)).unwrap_or_default()),
                )
            });
        }
        parsed
    }

    /// Reads the value under a revision.
    pub(super) fn record<'a>(
        &self,
        at: RevisionKey,
        entry: &Entry<'a>,
        findings: &mut Findings,
    ) -> Option<Record<'a>> {
        let decoded = KeyValue::decode(entry.value);
        let (kv, unknown) = match decoded {
            Ok(decoded) => decoded,
            Err(fault) => {
                report_wire(at, fault, entry.value_place(fault.at), findings);
                return None;
            }
        };
        report_unknown(at, unknown, entry.place(), findings);
        let head = Head {
            key: UserKey::of(kv.key),
            create: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
            value_len: kv.value.len() as u64,
        };
        let stored = (entry.key.len() + entry.value.len()) as u64;
        let mut record = self.judge(at, head, stored, entry.place(), findings)?;
        record.value = Some(kv.value);
        Some(record)
    }

    /// Reads a value that is too big to be held.
    pub(super) fn large(
        &self,
        at: RevisionKey,
        element: &Large<'_>,
        findings: &mut Findings,
    ) -> io::Result<Option<Record<'static>>> {
        match large_head(element)? {
            Ok((head, unknown)) => {
                report_unknown(at, unknown, element.place(), findings);
                let stored = element.key.len() as u64 + element.value_len;
                Ok(self.judge(at, head, stored, element.place(), findings))
            }
            Err(fault) => {
                report_wire(at, fault, element.place(), findings);
                Ok(None)
            }
        }
    }

    fn judge<'a>(
        &self,
        at: RevisionKey,
        head: Head<'a>,
        stored: u64,
        place: Place,
        findings: &mut Findings,
    ) -> Option<Record<'a>> {
        let empty = head.key.start().is_empty();
        let bare = (head.create, head.mod_revision, head.version, head.lease) == (0, 0, 0, 0)
            && head.value_len == 0;
        let main = at.revision.main;
        let act = if at.tombstone {
            if empty || !bare {
                report(
                    at,
                    place,
                    "a tombstone with a key and nothing else",
                    &head,
                    findings,
                );
            }
            Act::Delete
        } else if empty && bare {
            // A restore writes it at the revision that it marks as compacted.
            if main > self.compact || at.revision.sub != 0 {
                report(at, place, "a version of a key", &head, findings);
            }
            Act::Bump
        } else {
            if empty || !head.fits(main) {
                report(
                    at,
                    place,
                    "a key, its mod revision as the entry's, created before or then, \
                     and a version that fits",
                    &head,
                    findings,
                );
            }
            Act::Put {
                create: head.create,
                version: head.version,
                lease: head.lease,
            }
        };
        Some(Record {
            revision: at.revision,
            act,
            fingerprint: self.hasher.fingerprint(&head.key),
            key: head.key,
            value: None,
            value_len: head.value_len,
            stored,
            place,
        })
    }
}

fn report(at: RevisionKey, place: Place, expected: &str, head: &Head<'_>, findings: &mut Findings) {
    findings.error(Layer::Keys, place, || {
        (
            format!("at revision {}: {expected}", at.revision),
            format!(
                "key {}, created at {}, modified at {}, version {}, lease {:x}, {} bytes",
                show(head.key.start()),
                head.create,
                head.mod_revision,
                head.version,
                head.lease,
                head.value_len
            ),
        )
    });
}

fn report_wire(at: RevisionKey, fault: WireFault, place: Place, findings: &mut Findings) {
    findings.error(Layer::Keys, place, || {
        (
            format!("at revision {}: {}", at.revision, fault.expected),
            format!("something else, at byte {} of the value", fault.at),
        )
    });
}

fn report_unknown(
    at: RevisionKey,
    unknown: Option<UnknownField>,
    place: Place,
    findings: &mut Findings,
) {
    if let Some(UnknownField(number)) = unknown {
        findings.warning(Layer::Keys, place, || {
            (
                format!("at revision {}: fields 1 to 6", at.revision),
                format!("field {number}"),
            )
        });
    }
}

type LargeHead = Result<(Head<'static>, Option<UnknownField>), WireFault>;

/// As [`KeyValue::decode`], over a value that is read piece by piece.
fn large_head(element: &Large<'_>) -> io::Result<LargeHead> {
    let mut head = Head {
        key: UserKey::Whole(Cow::Borrowed(&[])),
        create: 0,
        mod_revision: 0,
        version: 0,
        lease: 0,
        value_len: 0,
    };
    let (mut at, mut before) = (0, 0);
    let fault = |at: u64, expected| Ok(Err(WireFault::new(at as usize, expected)));
    while at < element.value_len {
        let field_at = at;
        let Some((tag, number)) = two_varints(element, at)? else {
            return fault(at, "a field");
        };
        let (number_at, field) = (at + tag.1 as u64, tag.0 >> 3);
        if field <= before {
            return fault(at, "fields in ascending order, each once");
        }
        before = field;
        let wire_type = if matches!(field, 1 | 5) { 2 } else { 0 };
        at = number_at + number.1 as u64;
        if field > 6 {
            let field = u32::try_from(field).unwrap_or(u32::MAX);
            return Ok(Ok((head, Some(UnknownField(field)))));
        }
        if tag.0 & 7 != wire_type {
            return fault(field_at, "the field's own wire type");
        }
        let value = number.0.cast_signed();
        if matches!(field, 2..=4) && value <= 0 {
            return fault(field_at, "a number above 0");
        }
        if wire_type == 2 && number.0 > element.value_len - at {
            return fault(number_at, "a length within the message");
        }
        match field {
            1 => head.key = large_key(element, at, number.0)?,
            2 => head.create = value,
            3 => head.mod_revision = value,
            4 => head.version = value,
            5 => head.value_len = number.0,
            _ => head.lease = value,
        }
        if wire_type == 2 {
            at += number.0;
        }
    }
    Ok(Ok((head, None)))
}

type Varint = (u64, usize);

fn two_varints(element: &Large<'_>, at: u64) -> io::Result<Option<(Varint, Varint)>> {
    let mut head = [0; 20];
    let len = (element.value_len - at).min(20) as usize;
    let head = head.get_mut(..len).unwrap_or_default();
    element.read_at(head, at)?;
    let Some(tag) = read_shortest(head) else {
        return Ok(None);
    };
    let rest = head.get(tag.1..).unwrap_or_default();
    Ok(read_shortest(rest).map(|number| (tag, number)))
}

fn large_key(element: &Large<'_>, at: u64, len: u64) -> io::Result<UserKey<'static>> {
    let mut start = vec![0; len.min(LONG_KEY as u64) as usize];
    element.read_at(&mut start, at)?;
    if len <= LONG_KEY as u64 {
        return Ok(UserKey::Whole(Cow::Owned(start)));
    }
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < len {
        let take = (len - done).min(PIECE as u64);
        let part = piece.get_mut(..take as usize).unwrap_or_default();
        element.read_at(part, at + done)?;
        digest.update(&*part);
        done += take;
    }
    Ok(UserKey::Long {
        start,
        digest: digest.finalize().into(),
    })
}
