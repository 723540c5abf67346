//! The bound on the packets that a host sends.
//!
//! An SFTP packet is its length (u32, big-endian) and so many bytes (draft-ietf-secsh-filexfer-02,
//! section 3). russh-sftp stops reading at a packet that is too long, and then says only that the
//! requests under way got no answer. So the lengths are read here as they pass, and the one that
//! was too long is remembered for the message.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest packet that is accepted, in bytes: russh-sftp's own bound, and OpenSSH's.
pub(super) const MAX_PACKET: u32 = 256 << 10;

/// The length of a packet that was too long, once there was one.
#[derive(Debug, Clone, Default)]
pub(super) struct TooLong(Arc<OnceLock<u32>>);

impl TooLong {
    /// What is wrong, if a packet was too long.
    pub(super) fn problem(&self) -> Option<String> {
        let length = self.0.get()?;
        Some(format!(
            "the server sent a packet of {length} bytes, but at most {MAX_PACKET} are accepted"
        ))
    }
}

/// Where the reader is in the stream of packets.
#[derive(Debug, Default)]
struct Lengths {
    /// The bytes of the next length that have come.
    head: Vec<u8>,
    /// Bytes of the packet that have yet to come.
    left: usize,
}

impl Lengths {
    /// Takes what has come; returns the first length that is too long.
    fn take(&mut self, mut bytes: &[u8]) -> Option<u32> {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else {
                break;
            };
            self.head.push(*first);
            bytes = rest;
            if let Ok(head) = <[u8; 4]>::try_from(self.head.as_slice()) {
                let length = u32::from_be_bytes(head);
                if length > MAX_PACKET {
                    return Some(length);
                }
                self.head.clear();
                self.left = length as usize;
            }
        }
        None
    }
}

/// A stream of packets whose lengths are watched.
pub(super) struct Packets<S> {
    inner: S,
    lengths: Lengths,
    too_long: TooLong,
}

impl<S> Packets<S> {
    /// Watches a stream from its first packet on.
    pub(super) fn new(inner: S) -> (Self, TooLong) {
        let too_long = TooLong::default();
        let packets = Self {
            inner,
            lengths: Lengths::default(),
            too_long: too_long.clone(),
        };
        (packets, too_long)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Packets<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if let Some(length) = this.lengths.take(read) {
            // Only the first counts; nothing is read after it.
            let _ = this.too_long.0.set(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Packets<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.resize(bytes.len() + length.min(MAX_PACKET) as usize, 0xff);
        bytes
    }

    #[test]
    fn lengths_are_found_however_the_bytes_come() {
        let stream = [packet(5), packet(0), packet(MAX_PACKET), packet(1)].concat();
        let bad = [stream.clone(), packet(MAX_PACKET + 1)].concat();
        for size in [1, 2, 3, 7, 4096, stream.len()] {
            let taken = |bytes: &[u8]| {
                let mut lengths = Lengths::default();
                bytes.chunks(size).find_map(|chunk| lengths.take(chunk))
            };
            assert_eq!(taken(&stream), None, "pieces of {size}");
            assert_eq!(taken(&bad), Some(MAX_PACKET + 1), "pieces of {size}");
        }
    }
}
