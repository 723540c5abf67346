//! Whether the schedule is alive: what it does now, and how long that may take.

use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What the loop does between two looks at the clock takes no longer.
const STEP: Duration = Duration::from_secs(300);

/// Told by the loop, asked by who probes and by the watchdog.
#[derive(Debug)]
pub struct Pulse(Mutex<State>);

#[derive(Debug)]
struct State {
    doing: &'static str,
    since: Instant,
    limit: Duration,
    /// Runs that were given up and have not ended: they may hold the store.
    stuck: Vec<Weak<()>>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new(State {
            doing: "beginning",
            since: Instant::now(),
            limit: STEP,
            stuck: Vec::new(),
        }))
    }
}

impl Pulse {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this is done; in the time it takes, and some more, it must be over.
    pub fn does(&self, doing: &'static str, time: Duration) {
        self.with(|state| {
            state.doing = doing;
            state.since = Instant::now();
            state.limit = time.saturating_add(STEP);
        });
    }

    /// A run was given up; who holds the token has not ended.
    pub fn gave_up(&self, token: Weak<()>) {
        self.with(|state| state.stuck.push(token));
    }

    /// What is wrong, if anything is.
    pub fn trouble(&self) -> Option<String> {
        self.trouble_at(Instant::now())
    }

    fn trouble_at(&self, now: Instant) -> Option<String> {
        self.with(|state| {
            state.stuck.retain(|token| token.strong_count() > 0);
            if !state.stuck.is_empty() {
                return Some("an abandoned run has not ended".to_owned());
            }
            let took = now.saturating_duration_since(state.since);
            (took > state.limit).then(|| format!("{} for {} s", state.doing, took.as_secs()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_takes_too_long_and_what_does_not_end_is_told() {
        let pulse = Pulse::default();
        let hour = Duration::from_secs(3600);
        pulse.does("taking a backup", hour);
        assert_eq!(pulse.trouble(), None);
        let later = Instant::now() + hour + STEP + Duration::from_secs(1);
        let told = pulse.trouble_at(later).unwrap();
        assert!(told.starts_with("taking a backup for 390"), "{told}");
        pulse.does("waiting", Duration::ZERO);
        let token = Arc::new(());
        pulse.gave_up(Arc::downgrade(&token));
        assert!(pulse.trouble().unwrap().contains("has not ended"));
        drop(token);
        assert_eq!(pulse.trouble(), None);
    }
}
