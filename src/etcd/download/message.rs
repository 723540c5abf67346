//! Takes `etcdserverpb.SnapshotResponse` messages apart as they arrive, in pieces cut anywhere,
//! and hands out what belongs to the file without copying it.
//!
//! ```text
//! gRPC   1 byte compressed?  u32 length, big-endian  message       doc/PROTOCOL-HTTP2.md
//! message  header=1 (message), remaining_bytes=2 (uint64), blob=3 (bytes), version=4 (string)
//! ```
//!
//! Fields come in any order, and unknown ones are skipped (protobuf's encoding guide; the fields
//! are in etcd's `api/etcdserverpb/rpc.proto`). A hostile stream costs no memory: of a blob nothing
//! is kept, of a version at most 64 bytes.

use bytes::{Buf, Bytes};

use crate::error::{Failure, Kind, Result};
use crate::etcd::client::PREFIX;
use crate::etcd::proto::varint::Varint;

/// The longest version that is kept.
const VERSION_LIMIT: u64 = 64;

/// What the messages said beside their blobs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// The database's size: what the first message carried of it, and what it said still remains.
    pub(super) database: Option<u64>,
    /// The storage version (3.6 and newer).
    pub(super) version: Option<String>,
}

/// The state between two pieces.
#[derive(Debug)]
pub(super) struct Messages {
    state: State,
    /// Bytes of the current message still to come.
    left: u64,
    remaining: u64,
    blob: u64,
    version: Vec<u8>,
    announced: Announced,
    number: u64,
}

#[derive(Debug)]
enum State {
    Prefix { bytes: [u8; PREFIX], have: usize },
    Key(Varint),
    Value { field: u64, varint: Varint },
    Length { field: u64, varint: Varint },
    Blob(u64),
    Version(u64),
    Skip(u64),
}

/// Key numbers and wire types of protobuf's encoding.
mod field {
    pub(super) const REMAINING: u64 = 2;
    pub(super) const BLOB: u64 = 3;
    pub(super) const VERSION: u64 = 4;
    pub(super) const VARINT: u64 = 0;
    pub(super) const FIXED64: u64 = 1;
    pub(super) const LENGTH: u64 = 2;
    pub(super) const FIXED32: u64 = 5;
}

impl Default for Messages {
    fn default() -> Self {
        Self {
            state: State::START,
            left: 0,
            remaining: 0,
            blob: 0,
            version: Vec::new(),
            announced: Announced::default(),
            number: 0,
        }
    }
}

impl State {
    const START: Self = Self::Prefix {
        bytes: [0; PREFIX],
        have: 0,
    };
}

impl Messages {
    /// What was announced so far.
    pub(super) fn announced(&self) -> &Announced {
        &self.announced
    }

    /// Whether the stream may end here: between two messages.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Prefix { have: 0, .. })
    }

    /// Takes the next piece, and hands the bytes of blobs in it to `file`.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] with the number of the message that is not valid.
    pub(super) fn take(&mut self, mut piece: Bytes, mut file: impl FnMut(Bytes)) -> Result<()> {
        while !piece.is_empty() {
            match &mut self.state {
                State::Prefix { bytes, have } => {
                    let Some(slot) = bytes.get_mut(*have) else {
                        return Err(self.fault("a prefix of 5 bytes", "more"));
                    };
                    *slot = piece.get_u8();
                    *have += 1;
                    if *have == PREFIX {
                        let whole = *bytes;
                        self.begin(whole)?;
                    }
                }
                State::Blob(length) => {
                    let taken = split(&mut piece, length);
                    self.use_up(taken.len() as u64)?;
                    file(taken);
                }
                State::Version(length) => {
                    let taken = split(&mut piece, length);
                    self.version.extend_from_slice(&taken);
                    self.use_up(taken.len() as u64)?;
                }
                State::Skip(length) => {
                    let taken = split(&mut piece, length);
                    self.use_up(taken.len() as u64)?;
                }
                State::Key(_) | State::Value { .. } | State::Length { .. } => {
                    let byte = piece.get_u8();
                    self.number_byte(byte)?;
                }
            }
            self.advance()?;
        }
        Ok(())
    }

    fn begin(&mut self, prefix: [u8; PREFIX]) -> Result<()> {
        let [compressed, a, b, c, d] = prefix;
        if compressed != 0 {
            return Err(self.fault("no compression", &format!("the flag {compressed}")));
        }
        self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
        self.remaining = 0;
        self.blob = 0;
        self.version.clear();
        self.state = State::Key(Varint::default());
        Ok(())
    }

    /// Feeds one byte to the number that is being read.
    fn number_byte(&mut self, byte: u8) -> Result<()> {
        self.use_up(1)?;
        let (State::Key(varint) | State::Value { varint, .. } | State::Length { varint, .. }) =
            &mut self.state
        else {
            return Ok(());
        };
        let value = match varint.push(byte) {
            Ok(Some(value)) => value,
            Ok(None) => return Ok(()),
            Err(_) => return Err(self.fault("a number of at most 64 bits", "a longer one")),
        };
        match self.state {
            State::Key(_) => self.key(value),
            State::Value { field, .. } => {
                if field == field::REMAINING {
                    self.remaining = value;
                }
                self.state = State::Key(Varint::default());
                Ok(())
            }
            State::Length { field, .. } => self.length(field, value),
            _ => Ok(()),
        }
    }

    fn key(&mut self, key: u64) -> Result<()> {
        let (field, wire) = (key >> 3, key & 7);
        let varint = Varint::default();
        self.state = match wire {
            _ if field == 0 => return Err(self.fault("a field's number", "0")),
            field::VARINT if field == field::BLOB || field == field::VERSION => {
                return Err(self.fault("bytes", &format!("field {field} as a number")));
            }
            field::VARINT => State::Value { field, varint },
            field::LENGTH if field == field::REMAINING => {
                return Err(self.fault("a number", "field 2 as bytes"));
            }
            field::LENGTH => State::Length { field, varint },
            field::FIXED64 => self.skip(8)?,
            field::FIXED32 => self.skip(4)?,
            other => return Err(self.fault("a known wire type", &other.to_string())),
        };
        Ok(())
    }

    fn skip(&self, length: u64) -> Result<State> {
        if length > self.left {
            return Err(self.fault(
                &format!("at most {} bytes more in the message", self.left),
                &length.to_string(),
            ));
        }
        Ok(State::Skip(length))
    }

    fn length(&mut self, field: u64, length: u64) -> Result<()> {
        let skipped = self.skip(length)?;
        self.state = match field {
            field::BLOB => {
                // Bounded by the message's length, a u32, so the sum cannot overflow.
                self.blob = self.blob.saturating_add(length);
                State::Blob(length)
            }
            field::VERSION if length <= VERSION_LIMIT => {
                self.version.clear();
                State::Version(length)
            }
            field::VERSION => {
                return Err(self.fault(
                    &format!("a version of at most {VERSION_LIMIT} bytes"),
                    &length.to_string(),
                ));
            }
            _ => skipped,
        };
        Ok(())
    }

    fn use_up(&mut self, bytes: u64) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => return Err(self.fault("the message's end", "an unfinished field")),
        }
        Ok(())
    }

    /// Moves to the next field, or the next message, once the current one is complete.
    fn advance(&mut self) -> Result<()> {
        if matches!(
            self.state,
            State::Blob(0) | State::Version(0) | State::Skip(0)
        ) {
            self.state = State::Key(Varint::default());
        }
        if self.left > 0 || matches!(self.state, State::Prefix { .. }) {
            return Ok(());
        }
        if !matches!(&self.state, State::Key(varint) if varint.is_new()) {
            return Err(self.fault("a whole field", "the message's end"));
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        // Nothing was sent before the first message: what it brings and what remains are the whole.
        if self.number == 0 {
            let database = self
                .remaining
                .checked_add(self.blob)
                .ok_or_else(|| self.fault("a size of the database", "one beyond 64 bits"))?;
            self.announced.database = Some(database);
        }
        if self.announced.version.is_none() && !self.version.is_empty() {
            let version = std::str::from_utf8(&self.version)
                .ok()
                .filter(|version| version.bytes().all(|byte| byte.is_ascii_graphic()))
                .ok_or_else(|| self.fault("a version in ASCII", "other bytes"))?;
            self.announced.version = Some(version.to_owned());
        }
        self.number = self.number.saturating_add(1);
        self.state = State::START;
        Ok(())
    }

    fn fault(&self, expected: &str, found: &str) -> Failure {
        Failure::new(
            Kind::Unreachable,
            format!(
                "message {} is not etcd's: expected {expected}, found {found}",
                self.number.saturating_add(1)
            ),
        )
    }
}

/// Splits off what is there of `length` bytes, and lowers it by that.
fn split(piece: &mut Bytes, length: &mut u64) -> Bytes {
    let here = usize::try_from(*length)
        .unwrap_or(usize::MAX)
        .min(piece.len());
    *length -= here as u64;
    piece.split_to(here)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Response {
        #[prost(bytes = "vec", optional, tag = "1")]
        header: Option<Vec<u8>>,
        #[prost(uint64, tag = "2")]
        remaining_bytes: u64,
        #[prost(bytes = "vec", tag = "3")]
        blob: Vec<u8>,
        #[prost(string, tag = "4")]
        version: String,
        #[prost(fixed64, tag = "9")]
        newer: u64,
        #[prost(fixed32, tag = "10")]
        newest: u32,
    }

    fn framed(messages: &[Response]) -> Vec<u8> {
        let mut stream = Vec::new();
        for message in messages {
            let bytes = prost::Message::encode_to_vec(message);
            stream.push(0);
            stream.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
            stream.extend(bytes);
        }
        stream
    }

    fn read(stream: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Announced, bool)> {
        let mut messages = Messages::default();
        let mut file = Vec::new();
        let mut rest = Bytes::copy_from_slice(stream);
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let cut = cuts.next().map_or(rest.len(), |cut| (*cut).min(rest.len()));
            messages.take(rest.split_to(cut.max(1).min(rest.len())), |blob| {
                file.extend_from_slice(&blob);
            })?;
        }
        Ok((file, messages.announced().clone(), messages.is_between()))
    }

    fn response() -> impl Strategy<Value = Response> {
        (
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            any::<u32>(),
            proptest::collection::vec(any::<u8>(), 0..300),
            "[0-9.]{0,8}",
            any::<u64>(),
            any::<u32>(),
        )
            .prop_map(
                |(header, remaining, blob, version, newer, newest)| Response {
                    header,
                    remaining_bytes: remaining.into(),
                    blob,
                    version,
                    newer,
                    newest,
                },
            )
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_file(
            messages in proptest::collection::vec(response(), 0..6),
            cuts in proptest::collection::vec(1_usize..100, 0..5),
        ) {
            let (file, announced, between) = read(&framed(&messages), &cuts).unwrap();
            let blobs: Vec<u8> = messages.iter().flat_map(|m| m.blob.clone()).collect();
            prop_assert_eq!(file, blobs);
            prop_assert_eq!(
                announced.database,
                messages.first().map(|m| m.remaining_bytes + m.blob.len() as u64)
            );
            let version = messages.iter().map(|m| m.version.clone()).find(|v| !v.is_empty());
            prop_assert_eq!(announced.version, version);
            prop_assert!(between);
        }

        #[test]
        fn any_bytes_give_a_result(stream in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&stream, &[7]);
        }

        #[test]
        fn a_damaged_stream_gives_a_result(
            messages in proptest::collection::vec(response(), 1..4),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut stream = framed(&messages);
            let at = at.index(stream.len());
            stream[at] = byte;
            let _ = read(&stream, &[13]);
        }
    }

    #[test]
    fn a_stream_cut_within_a_message_is_not_between() {
        let stream = framed(&[Response {
            blob: vec![1; 10],
            ..Default::default()
        }]);
        for end in 1..stream.len() {
            let (_, _, between) = read(&stream[..end], &[]).unwrap();
            assert!(!between, "{end}");
        }
    }

    #[test]
    fn other_messages_are_reported() {
        for (stream, word) in [
            (&[1, 0, 0, 0, 0][..], "no compression"),
            (&[0, 0, 0, 0, 1, 0x10], "a whole field"),
            (&[0, 0, 0, 0, 2, 0x1a, 5], "at most 0 bytes more"),
            (&[0, 0, 0, 0, 2, 0x18, 5], "field 3 as a number"),
            (&[0, 0, 0, 0, 2, 0x12, 0], "field 2 as bytes"),
            (&[0, 0, 0, 0, 1, 0x1b], "wire type"),
            (&[0, 0, 0, 0, 1, 0x02], "a field's number"),
            (
                &[
                    0, 0, 0, 0, 11, 0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2,
                ],
                "64 bits",
            ),
        ] {
            let failure = read(stream, &[]).unwrap_err();
            assert_eq!(failure.kind(), Kind::Unreachable);
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }

    #[test]
    fn a_size_beyond_64_bits_is_reported() {
        let stream = framed(&[Response {
            remaining_bytes: u64::MAX,
            blob: vec![1],
            ..Default::default()
        }]);
        assert!(read(&stream, &[]).is_err());
    }
}
