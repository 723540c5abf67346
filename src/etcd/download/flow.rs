//! Whether a stream still flows: how much of it came while it was waited for.

use std::fmt;
use std::time::Duration;

use crate::etcd::client::seconds;

/// The least that must come, in bytes of the database per second of waiting. No network that a
/// snapshot is taken over is so slow; a server that trickles would otherwise hold a run for ever.
const LEAST_PER_SECOND: u64 = 512;

/// Counts what came against the time that was spent waiting for it.
#[derive(Debug)]
pub(super) struct Flow {
    limit: Duration,
    waited: Duration,
    bytes: u64,
}

impl Flow {
    /// One that stalls if next to nothing comes within the limit.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// How long it may still be waited.
    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.waited)
    }

    /// Counts a wait.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// Counts bytes of the database; once they are enough, waiting begins from nothing.
    pub(super) fn came(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= self.least() {
            self.waited = Duration::ZERO;
            self.bytes = 0;
        }
    }

    /// Whether the time is over.
    pub(super) fn is_stalled(&self) -> bool {
        self.waited >= self.limit
    }

    /// What must come within the limit.
    fn least(&self) -> u64 {
        let millis = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        (millis.saturating_mul(LEAST_PER_SECOND) / 1000).max(1)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = seconds(self.limit);
        match self.bytes {
            0 => write!(f, "stalled: no byte received for {limit}"),
            bytes => write!(
                f,
                "stalled: only {bytes} bytes received in {limit}, expected at least {}",
                self.least()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_a_stall_and_a_slow_stream_is_not() {
        let second = Duration::from_secs(1);
        let goes_on = |bytes: u64, each: Duration| {
            let mut flow = Flow::new(second * 30);
            let turns = 1000;
            (0..turns).all(|_| {
                flow.waited(each);
                let stalled = flow.is_stalled();
                flow.came(bytes);
                !stalled
            })
        };
        assert!(!goes_on(1, second * 5), "a byte each five seconds");
        assert!(!goes_on(0, second), "messages with nothing in them");
        assert!(!goes_on(100, second), "far less than any network brings");
        assert!(goes_on(1024, second));
        assert!(goes_on(16 << 10, second * 29));
        let mut flow = Flow::new(second * 30);
        flow.waited(second * 30);
        assert!(flow.to_string().contains("no byte received for 30 s"));
        flow.came(7);
        assert!(flow.to_string().contains("only 7 bytes"), "{flow}");
    }
}
