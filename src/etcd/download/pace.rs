//! Holds a flow of bytes to a rate.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// How much may be caught up after the flow was slower than the rate.
const CREDIT: Duration = Duration::from_millis(250);

/// Tells how long to wait before the next bytes.
#[derive(Debug)]
pub(super) struct Pace {
    rate: NonZeroU64,
    /// When the bytes so far are due at the rate.
    due: Instant,
}

impl Pace {
    pub(super) fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self { rate, due: now }
    }

    /// Counts bytes, and says until when to wait.
    pub(super) fn until(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let micros = bytes.saturating_mul(1_000_000) / self.rate;
        self.due = self.due.max(earliest) + Duration::from_micros(micros);
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
}
