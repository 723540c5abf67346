//! `walpb`: the envelope of a WAL record and what the WAL's own records say (`record.proto` of
//! etcd's `walpb`, `Metadata` of `etcdserverpb`).

use super::raft::ConfState;
use super::{Fields, WireError, put_bytes, put_bytes_head, put_u64};

/// What a [`Record`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// [`Metadata`].
    Metadata,
    /// A raft entry.
    Entry,
    /// A raft hard state.
    State,
    /// Nothing: the checksum's value so far.
    Crc,
    /// A [`SnapshotMark`].
    Snapshot,
    /// A kind that no release of etcd writes.
    Other(i64),
}

impl From<i64> for RecordKind {
    fn from(value: i64) -> Self {
        match value {
            1 => Self::Metadata,
            2 => Self::Entry,
            3 => Self::State,
            4 => Self::Crc,
            5 => Self::Snapshot,
            other => Self::Other(other),
        }
    }
}

impl From<RecordKind> for i64 {
    fn from(kind: RecordKind) -> Self {
        match kind {
            RecordKind::Metadata => 1,
            RecordKind::Entry => 2,
            RecordKind::State => 3,
            RecordKind::Crc => 4,
            RecordKind::Snapshot => 5,
            RecordKind::Other(other) => other,
        }
    }
}

/// A WAL record: kind=1, crc=2, data=3; the first two are always written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the data is.
    pub kind: RecordKind,
    /// CRC-32C over the data of all records so far, this one's included.
    pub crc: u32,
    /// The payload; absent in a crc record.
    pub data: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Reads a record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut record = Record {
            kind: RecordKind::Other(0),
            crc: 0,
            data: None,
        };
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => record.kind = field.i64()?.into(),
                2 => record.crc = field.u32()?,
                3 => record.data = Some(field.bytes()?),
                _ => {}
            }
        }
        Ok(record)
    }

    /// Appends the message's bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        self.encode_head_into(out);
        out.extend_from_slice(self.data.unwrap_or_default());
    }

    /// Appends the message's bytes up to where the data's own begin.
    pub fn encode_head_into(&self, out: &mut Vec<u8>) {
        put_u64(out, 1, i64::from(self.kind) as u64);
        put_u64(out, 2, self.crc.into());
        if let Some(data) = self.data {
            put_bytes_head(out, 3, data.len());
        }
    }
}

/// Whose log it is: node=1, cluster=2; both are always written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The member's id.
    pub node: u64,
    /// The cluster's id.
    pub cluster: u64,
}

impl Metadata {
    /// Reads the message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut metadata = Self::default();
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => metadata.node = field.u64()?,
                2 => metadata.cluster = field.u64()?,
                _ => {}
            }
        }
        Ok(metadata)
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, 1, self.node);
        put_u64(&mut out, 2, self.cluster);
        out
    }
}

/// "The log up to here is in a snapshot" (`walpb.Snapshot`): index=1, term=2, conf_state=3
/// (since 3.5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMark {
    /// The last entry that the snapshot holds.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The membership at that index.
    pub conf_state: Option<ConfState>,
}

impl SnapshotMark {
    /// Reads the message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut mark = Self::default();
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => mark.index = field.u64()?,
                2 => mark.term = field.u64()?,
                3 => mark.conf_state = Some(ConfState::decode(field.message()?)?),
                _ => {}
            }
        }
        Ok(mark)
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, 1, self.index);
        put_u64(&mut out, 2, self.term);
        if let Some(conf_state) = &self.conf_state {
            put_bytes(&mut out, 3, &conf_state.encode());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_written_as_etcd_writes_them() {
        let mut out = Vec::new();
        Record {
            kind: RecordKind::Crc,
            crc: 0,
            data: None,
        }
        .encode_into(&mut out);
        assert_eq!(hex::encode(out), "08041000");
        assert_eq!(hex::encode(SnapshotMark::default().encode()), "08001000");
        let metadata = Metadata {
            node: 0x8e9e_05c5_2164_694d,
            cluster: 0xcdf8_1819_4e3a_8c32,
        };
        assert_eq!(
            hex::encode(metadata.encode()),
            "08cdd2918bd2b881cf8e0110b298eaf1948386fccd01"
        );
        assert_eq!(Metadata::decode(&metadata.encode()), Ok(metadata));
    }
}
