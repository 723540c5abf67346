//! Asking etcd for a checkpoint, beside the recording.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::{Doing, Kind, Result};
use crate::etcd::client::{Connection, Consistency, HashKvAnswer};
use crate::etcd::segment::{Checkpoint, CheckpointAuth, CheckpointHash};

/// How long etcd may take for a HashKV: it reads its whole store.
const LIMIT: Duration = Duration::from_secs(60);
/// It works for a checkpoint during at most this part of the time.
const PART: u32 = 50;

/// What is asked, and when next.
#[derive(Debug)]
pub(super) struct Checking {
    /// How often; zero: never.
    every: Duration,
    due: Instant,
    asked: Option<JoinHandle<(Result<Checkpoint>, Duration)>>,
}

impl Checking {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            due: Instant::now(),
            asked: None,
        }
    }

    /// The answer, once it is there.
    pub(super) async fn answer(&mut self) -> Option<Result<Checkpoint>> {
        let asked = self.asked.take_if(|asked| asked.is_finished())?;
        let (checkpoint, took) = match asked.await.doing(Kind::Unexpected, || "running a task") {
            Ok(came) => came,
            Err(failure) => return Some(Err(failure)),
        };
        let rest = took.saturating_mul(PART);
        self.due = self.due.max(Instant::now() + rest);
        Some(checkpoint)
    }

    /// Asks about a revision that is sealed, if it is time.
    pub(super) fn ask(&mut self, connection: &Connection, revision: i64) {
        let now = Instant::now();
        if self.every.is_zero() || self.asked.is_some() || now < self.due {
            return;
        }
        self.due = now + self.every;
        let connection = connection.with_call_timeout(LIMIT);
        self.asked = Some(tokio::spawn(async move {
            let checkpoint = asked(&connection, revision).await;
            (checkpoint, now.elapsed())
        }));
    }

    /// Another chain begins: what was asked is not of it.
    pub(super) fn forget(&mut self) {
        if let Some(asked) = self.asked.take() {
            asked.abort();
        }
        self.due = Instant::now();
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.forget();
    }
}

async fn asked(connection: &Connection, revision: i64) -> Result<Checkpoint> {
    let hash_kv = match connection.hash_kv(revision).await? {
        HashKvAnswer::Hash(answer) => Some(CheckpointHash {
            hash: answer.hash,
            compact_revision: answer.compact_revision,
        }),
        HashKvAnswer::Compacted | HashKvAnswer::Future => None,
    };
    let list = connection.member_list(Consistency::Local).await?;
    let mut members: Vec<String> = list
        .members
        .iter()
        .map(|member| member.id.to_string())
        .collect();
    members.sort_unstable();
    // etcd 3.4 does not know the question, and a failure says no more than that.
    let auth = connection.auth_status().await.ok();
    Ok(Checkpoint {
        revision,
        hash_kv,
        members,
        auth: auth.map(|auth| CheckpointAuth {
            enabled: auth.enabled,
            revision: auth.revision,
        }),
    })
}
