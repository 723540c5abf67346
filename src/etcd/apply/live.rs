//! A key that is alive, as far as a tail needs to know it.

/// A key that is alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) create: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
    /// The lease as the value tells it, whether it is there or not.
    pub(super) lease: i64,
    pub(super) value: Place,
}

/// Where a key's value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: no entry of the tail looks at values.
    #[default]
    Unknown,
    /// In the database.
    Database(u64, u32),
    /// Among those that the tail has written.
    Kept(u64, u32),
}

/// Bytes of a state.
pub(super) const STATE: usize = 45;

impl Live {
    /// What is stored of a key, alive or not.
    pub(super) fn encode(live: Option<&Self>) -> [u8; STATE] {
        let mut state = [0; STATE];
        let Some(live) = live else { return state };
        let (kind, offset, len) = match live.value {
            Place::Unknown => (1, 0, 0),
            Place::Database(offset, len) => (2, offset, len),
            Place::Kept(offset, len) => (3, offset, len),
        };
        let numbers = [live.create, live.modified, live.version, live.lease];
        let words = numbers.iter().flat_map(|number| number.to_le_bytes());
        let place = offset.to_le_bytes().into_iter().chain(len.to_le_bytes());
        let bytes = std::iter::once(kind).chain(words).chain(place);
        for (to, byte) in state.iter_mut().zip(bytes) {
            *to = byte;
        }
        state
    }

    /// What [`Live::encode`] stored.
    pub(super) fn decode(state: &[u8; STATE]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = state
                .get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        let len = state.last_chunk().map_or(0, |len| u32::from_le_bytes(*len));
        let offset = word(33);
        Some(Self {
            create: word(1).cast_signed(),
            modified: word(9).cast_signed(),
            version: word(17).cast_signed(),
            lease: word(25).cast_signed(),
            value: match state.first() {
                Some(1) => Place::Unknown,
                Some(2) => Place::Database(offset, len),
                Some(3) => Place::Kept(offset, len),
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_was_stored() {
        let live = Live {
            create: 1,
            modified: i64::MAX,
            version: 3,
            lease: -4,
            value: Place::Unknown,
        };
        let places = [
            Place::Unknown,
            Place::Database(u64::MAX - 1, 7),
            Place::Kept(5, u32::MAX),
        ];
        for value in places {
            let live = Live { value, ..live };
            assert_eq!(Live::decode(&Live::encode(Some(&live))), Some(live));
        }
        assert_eq!(Live::decode(&Live::encode(None)), None);
    }
}
