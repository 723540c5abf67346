//! Rehearsals beside the schedule: whether one is due, and its result.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::rotation::next_to_rehearse;
use crate::context::Context;
use crate::error::Result;
use crate::keep::catalog::{self, BackupSet};
use crate::store::LocalStore;

/// A rehearsal that could not be made is tried again after this, or after the time between two rehearsals.
const AGAIN: Duration = Duration::from_secs(24 * 3600);

/// What rehearses a set, and says whether etcd served it.
pub type Rehearse =
    Arc<dyn Fn(Context, BackupSet) -> Pin<Box<dyn Future<Output = Result<bool>>>> + Send + Sync>;

/// Which set is rehearsed, when, and how.
#[derive(Clone)]
pub struct Rehearsals {
    /// How long after the last one the next is due.
    every: Duration,
    rehearse: Rehearse,
    /// When one was last tried here: the store knows only of those that came to an end.
    tried: Arc<Mutex<Option<Timestamp>>>,
}

impl Rehearsals {
    /// One each so often.
    pub fn new(every: Duration, rehearse: Rehearse) -> Self {
        Self {
            every,
            rehearse,
            tried: Arc::default(),
        }
    }

    /// The set to rehearse now, if that is due.
    fn due<'a>(&self, sets: &'a [BackupSet], now: Timestamp) -> Option<&'a BackupSet> {
        let tried = *self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = self.every.min(AGAIN);
        let since = tried.map(|tried| Duration::try_from(now.duration_since(tried)));
        // A clock that was set back makes none wait.
        if since.is_some_and(|since| since.is_ok_and(|since| since < pause)) {
            return None;
        }
        next_to_rehearse(sets, self.every, now)
    }

    /// Rehearses if that is due: the set, and whether etcd served it.
    pub async fn run(
        &self,
        context: &Context,
        store: &LocalStore,
    ) -> Option<(String, Result<bool>)> {
        let sets = match catalog::list(store) {
            Ok(sets) => sets,
            Err(failure) => return Some(("the store".to_owned(), Err(failure))),
        };
        let now = Timestamp::now();
        let set = self.due(&sets, now)?.clone();
        // Before it begins: one that hangs must not be tried again at once.
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        let own = Context {
            now,
            ..context.clone()
        };
        let name = set.name.clone();
        Some((name, (self.rehearse)(own, set).await))
    }
}
