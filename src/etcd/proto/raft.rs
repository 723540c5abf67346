//! `raftpb`: what a raft log consists of (`raft.proto` of go.etcd.io/raft).

use super::{Fields, WireError, put_bytes, put_u64};

/// What an [`Entry`] carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A request to the server, or nothing (a new leader's first entry).
    Normal,
    /// A [`ConfChange`].
    ConfChange,
    /// A [`ConfChangeV2`].
    ConfChangeV2,
    /// A kind that no release of etcd writes.
    Other(i32),
}

impl From<i32> for EntryKind {
    fn from(value: i32) -> Self {
        match value {
            0 => Self::Normal,
            1 => Self::ConfChange,
            2 => Self::ConfChangeV2,
            other => Self::Other(other),
        }
    }
}

impl From<EntryKind> for i32 {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::Normal => 0,
            EntryKind::ConfChange => 1,
            EntryKind::ConfChangeV2 => 2,
            EntryKind::Other(other) => other,
        }
    }
}

/// An entry of the raft log: kind=1, term=2, index=3, data=4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the data is.
    pub kind: EntryKind,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// Its place in the log; the first is 1.
    pub index: u64,
    /// The payload; left out of the encoding when empty.
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads an entry.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut entry = Entry {
            kind: EntryKind::Normal,
            term: 0,
            index: 0,
            data: &[],
        };
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => entry.kind = field.i32()?.into(),
                2 => entry.term = field.u64()?,
                3 => entry.index = field.u64()?,
                4 => entry.data = field.bytes()?,
                _ => {}
            }
        }
        Ok(entry)
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len().saturating_add(40));
        put_enum(&mut out, 1, self.kind.into());
        put_u64(&mut out, 2, self.term);
        put_u64(&mut out, 3, self.index);
        // gogo writes no bytes for what is nil.
        if !self.data.is_empty() {
            put_bytes(&mut out, 4, self.data);
        }
        out
    }
}

/// A negative enum value takes ten bytes, being extended to 64 bits.
fn put_enum(out: &mut Vec<u8>, field: u32, value: i32) {
    put_u64(out, field, i64::from(value) as u64);
}

/// What a membership change does to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfChangeKind {
    /// Adds a voter, or promotes a learner.
    AddNode,
    /// Removes a voter or a learner.
    RemoveNode,
    /// Changes a member's URLs; raft's configuration stays.
    UpdateNode,
    /// Adds a learner.
    AddLearnerNode,
    /// A change that no release of etcd writes.
    Other(i32),
}

impl From<i32> for ConfChangeKind {
    fn from(value: i32) -> Self {
        match value {
            0 => Self::AddNode,
            1 => Self::RemoveNode,
            2 => Self::UpdateNode,
            3 => Self::AddLearnerNode,
            other => Self::Other(other),
        }
    }
}

impl From<ConfChangeKind> for i32 {
    fn from(kind: ConfChangeKind) -> Self {
        match kind {
            ConfChangeKind::AddNode => 0,
            ConfChangeKind::RemoveNode => 1,
            ConfChangeKind::UpdateNode => 2,
            ConfChangeKind::AddLearnerNode => 3,
            ConfChangeKind::Other(other) => other,
        }
    }
}

/// A change of one member: id=1, kind=2, node=3, context=4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfChange {
    /// The request's id; zero in a log made by a restore.
    pub id: u64,
    /// What happens to the member.
    pub kind: ConfChangeKind,
    /// The member's id.
    pub node: u64,
    /// The member as JSON, where etcd proposed the change; may be empty.
    pub context: Vec<u8>,
}

impl ConfChange {
    /// Reads a change.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut change = ConfChange {
            id: 0,
            kind: ConfChangeKind::AddNode,
            node: 0,
            context: Vec::new(),
        };
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => change.id = field.u64()?,
                2 => change.kind = field.i32()?.into(),
                3 => change.node = field.u64()?,
                4 => change.context = field.bytes()?.to_vec(),
                _ => {}
            }
        }
        Ok(change)
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, 1, self.id);
        put_enum(&mut out, 2, self.kind.into());
        put_u64(&mut out, 3, self.node);
        if !self.context.is_empty() {
            put_bytes(&mut out, 4, &self.context);
        }
        out
    }
}

/// Several changes at once: transition=1, changes=2 {kind=1, node=2}, context=3.
///
/// etcd proposes none, but its raft library understands them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfChangeV2 {
    /// How joint consensus is entered and left.
    pub transition: i32,
    /// What happens to which node.
    pub changes: Vec<(ConfChangeKind, u64)>,
    /// Opaque to raft.
    pub context: Vec<u8>,
}

impl ConfChangeV2 {
    /// Reads a change.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut change = Self::default();
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => change.transition = field.i32()?,
                2 => {
                    let mut kind = ConfChangeKind::AddNode;
                    let mut node = 0;
                    for inner in field.message()? {
                        let inner = inner?;
                        match inner.number {
                            1 => kind = inner.i32()?.into(),
                            2 => node = inner.u64()?,
                            _ => {}
                        }
                    }
                    field.push(&mut change.changes, (kind, node))?;
                }
                3 => change.context = field.bytes()?.to_vec(),
                _ => {}
            }
        }
        Ok(change)
    }
}

/// What a raft node must not forget: term=1, vote=2, commit=3; all three are always written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The latest term it has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0: nobody.
    pub vote: u64,
    /// The highest index it knows to be committed, as far as it was written down: an increase of
    /// this field alone is not always made durable.
    pub commit: u64,
}

impl HardState {
    /// Reads a state.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut state = Self::default();
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => state.term = field.u64()?,
                2 => state.vote = field.u64()?,
                3 => state.commit = field.u64()?,
                _ => {}
            }
        }
        Ok(state)
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, 1, self.term);
        put_u64(&mut out, 2, self.vote);
        put_u64(&mut out, 3, self.commit);
        out
    }
}

/// Raft's membership: voters=1, learners=2, outgoing voters=3, next learners=4 (all repeated and
/// not packed), auto_leave=5, which is always written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfState {
    /// Members that vote.
    pub voters: Vec<u64>,
    /// Members that only follow.
    pub learners: Vec<u64>,
    /// Voters of the configuration that is being left; empty but during joint consensus.
    pub voters_outgoing: Vec<u64>,
    /// Voters that become learners when joint consensus ends.
    pub learners_next: Vec<u64>,
    /// Whether joint consensus ends by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// Reads the fields of a configuration.
    pub fn decode(fields: Fields<'_>) -> Result<Self, WireError> {
        let mut state = Self::default();
        for field in fields {
            let field = field?;
            match field.number {
                1 => field.push_u64s(&mut state.voters)?,
                2 => field.push_u64s(&mut state.learners)?,
                3 => field.push_u64s(&mut state.voters_outgoing)?,
                4 => field.push_u64s(&mut state.learners_next)?,
                5 => state.auto_leave = field.bool()?,
                _ => {}
            }
        }
        Ok(state)
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let lists = [
            (1, &self.voters),
            (2, &self.learners),
            (3, &self.voters_outgoing),
            (4, &self.learners_next),
        ];
        for (field, list) in lists {
            for id in list {
                // proto2's lists are not packed.
                put_u64(&mut out, field, *id);
            }
        }
        put_u64(&mut out, 5, self.auto_leave.into());
        out
    }
}

/// What a [`Snapshot`] stands for: conf_state=1, index=2, term=3; all three are always written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMetadata {
    /// The membership at that index.
    pub conf_state: ConfState,
    /// The last entry that the snapshot holds.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
}

/// A raft snapshot: data=1, metadata=2, which is always written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot<'a> {
    /// The application's state: etcd's v2 store as JSON.
    pub data: &'a [u8],
    /// What it stands for.
    pub metadata: SnapshotMetadata,
}

impl<'a> Snapshot<'a> {
    /// Reads a snapshot.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut snapshot = Snapshot::default();
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => snapshot.data = field.bytes()?,
                2 => {
                    for inner in field.message()? {
                        let inner = inner?;
                        match inner.number {
                            1 => {
                                snapshot.metadata.conf_state = ConfState::decode(inner.message()?)?;
                            }
                            2 => snapshot.metadata.index = inner.u64()?,
                            3 => snapshot.metadata.term = inner.u64()?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(snapshot)
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut metadata = Vec::new();
        put_bytes(&mut metadata, 1, &self.metadata.conf_state.encode());
        put_u64(&mut metadata, 2, self.metadata.index);
        put_u64(&mut metadata, 3, self.metadata.term);
        let mut out = Vec::with_capacity(self.data.len().saturating_add(metadata.len() + 16));
        if !self.data.is_empty() {
            put_bytes(&mut out, 1, self.data);
        }
        put_bytes(&mut out, 2, &metadata);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_scalars_are_written_as_etcd_writes_them() {
        assert_eq!(hex::encode(HardState::default().encode()), "080010001800");
        assert_eq!(hex::encode(ConfState::default().encode()), "2800");
        let empty = Entry {
            kind: EntryKind::Normal,
            term: 2,
            index: 5,
            data: &[],
        };
        assert_eq!(hex::encode(empty.encode()), "080010021805");
    }

    #[test]
    fn a_snapshot_ends_as_a_restored_member_s_does() {
        let snapshot = Snapshot {
            data: b"{}",
            metadata: SnapshotMetadata {
                conf_state: ConfState {
                    voters: vec![0x8e9e_05c5_2164_694d],
                    ..ConfState::default()
                },
                index: 1,
                term: 1,
            },
        };
        let bytes = snapshot.encode();
        assert_eq!(
            hex::encode(&bytes),
            "0a027b7d12130a0d08cdd2918bd2b881cf8e01280010011801"
        );
        assert_eq!(Snapshot::decode(&bytes), Ok(snapshot));
    }

    #[test]
    fn changes_round_trip() {
        let change = ConfChange {
            id: 7,
            kind: ConfChangeKind::AddLearnerNode,
            node: u64::MAX,
            context: b"{\"id\":1}".to_vec(),
        };
        assert_eq!(ConfChange::decode(&change.encode()), Ok(change));
        let several = [0x08, 0x01, 0x12, 0x04, 0x08, 0x01, 0x10, 0x09, 0x12, 0x00];
        assert_eq!(
            ConfChangeV2::decode(&several).unwrap().changes,
            [
                (ConfChangeKind::RemoveNode, 9),
                (ConfChangeKind::AddNode, 0)
            ]
        );
    }
}
