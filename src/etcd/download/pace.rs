//! Holds a flow of bytes to a rate.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// How much may be caught up after the flow was slower than the rate.
const CREDIT: Duration = Duration::from_millis(250);
/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

/// Tells how long to wait before the next bytes. To the nanosecond, and what is less than one is
/// kept for the next bytes: however small the pieces, none goes for nothing.
#[derive(Debug)]
pub(super) struct Pace {
    rate: NonZeroU64,
    /// When the bytes so far are due at the rate.
    due: Instant,
    /// The part of a nanosecond that is due besides, in parts of the rate.
    rest: u128,
}

impl Pace {
    pub(super) fn new(rate: NonZeroU64, now: Instant) -> Self {
        let (due, rest) = (now, 0);
        Self { rate, due, rest }
    }

    /// Counts bytes, and says until when to wait.
    pub(super) fn until(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let rate = u128::from(self.rate.get());
        // Without the remainder many small pieces would pass too fast.
        let parts = u128::from(bytes) * NANOS + self.rest;
        self.rest = parts % rate;
        let nanos = u64::try_from(parts / rate).unwrap_or(u64::MAX);
        self.due = self.due.max(earliest) + Duration::from_nanos(nanos);
        (self.due > now).then_some(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_little_is_caught_up() {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU64::new(1000).unwrap(), start);
        assert_eq!(
            pace.until(500, start),
            Some(start + Duration::from_millis(500))
        );
        assert_eq!(pace.until(500, start), Some(start + Duration::from_secs(1)));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.until(250, later), None);
        assert_eq!(
            pace.until(1000, later),
            Some(later + Duration::from_secs(1))
        );
    }

    /// What a sender that stops for nothing brings until a moment, in pieces of a size, where each
    /// takes its time too.
    fn brought(rate: u64, piece: u64, each: Duration, until: Duration) -> u64 {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU64::new(rate).unwrap(), start);
        let (mut now, mut bytes) = (start, 0);
        while now < start + until {
            bytes += piece;
            now = pace.until(piece, now).unwrap_or(now) + each;
        }
        bytes
    }

    #[test]
    fn the_rate_is_a_bound_whatever_the_pieces() {
        for rate in [999_999_937, 50 << 20, 1_000_003, 4096, 7] {
            for piece in [1, 16 << 10, 999_983] {
                let nanos =
                    (100_000 * u128::from(piece) * NANOS / u128::from(rate)).clamp(1, 600 * NANOS);
                let until = Duration::from_nanos(u64::try_from(nanos).unwrap());
                let bytes = u128::from(brought(rate, piece, Duration::ZERO, until)) * NANOS;
                let bound = u128::from(rate) * nanos;
                // One piece is always let through, and a moment is a whole nanosecond.
                let more = u128::from(piece) * NANOS + u128::from(rate);
                let least = bound.saturating_sub(u128::from(rate));
                assert!((least..=bound + more).contains(&bytes), "{rate} {piece}");
            }
        }
        // One that is slow by itself, but not so slow, keeps the rate still.
        let bytes = brought(
            1000,
            100,
            Duration::from_millis(40),
            Duration::from_secs(60),
        );
        assert!((59_700..=60_200).contains(&bytes), "{bytes}");
    }
}
