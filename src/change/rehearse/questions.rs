//! What the etcd of a rehearsal is asked, and what it must answer.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::{ConnectOptions, Connection, Consistency, Status};
use crate::event::Event;
use crate::inspect::live::{self, Live};

use super::expected::Expected;
use super::server::Server;

/// The key that is written.
const KEY: &[u8] = b"etcd-dr/rehearsal";
/// How long one look takes whether etcd serves already.
const LOOK: Duration = Duration::from_secs(5);
/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said that an answer is still waited for.
const TELL: Duration = Duration::from_secs(1);

/// How a question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// As it must be.
    Ok,
    /// Otherwise, or not at all.
    Failed,
    /// It could not be asked.
    NotChecked,
}

/// A question, and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its stable name: `start`, `members`, `revision`, `keys`, `hash-kv`, `write`, `compact`.
    #[serde(rename = "step")]
    pub name: &'static str,
    /// How it was answered.
    pub state: StepState,
    /// In a sentence.
    pub detail: String,
}

/// What etcd answered.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) steps: Vec<Step>,
    /// How long after the beginning it served.
    pub(super) served_after: Option<Duration>,
}

impl Asked {
    fn put(&mut self, name: &'static str, state: StepState, detail: impl Into<String>) {
        self.steps.push(Step {
            name,
            state,
            detail: detail.into(),
        });
    }
}

/// Asks everything, within a limit. After an answer that is wrong nothing more is asked.
///
/// # Errors
/// [`Kind::Interrupted`]; [`Kind::NotChecked`] with `rehearsal-timeout`, or where etcd was killed.
pub(super) async fn ask(
    context: &Context,
    server: &Server,
    expected: &Expected,
    limit: Duration,
    begun: Instant,
) -> Result<Asked> {
    let mut asked = Asked::default();
    let questions = Questions {
        context,
        server,
        expected,
        limit,
        begun,
    };
    let work = tokio::time::timeout(limit, Box::pin(questions.all(&mut asked)));
    let told = questions.tell();
    let came = context.cancel.guard(async {
        tokio::select! {
            came = work => Ok(came),
            never = told => match never {},
        }
    });
    let came = came.await?;
    let Err(stopped) = came.unwrap_or(Err(Stopped::Late)) else {
        return Ok(asked);
    };
    // What etcd did first is the cause of what was answered.
    if let Some(why) = server.ended()? {
        let name = if asked.served_after.is_some() {
            "serve"
        } else {
            "start"
        };
        asked.put(name, StepState::Failed, why);
        return Ok(asked);
    }
    match stopped {
        Stopped::Wrong(name, detail) => {
            asked.put(name, StepState::Failed, detail);
            Ok(asked)
        }
        Stopped::Failed(failure) => Err(failure),
        Stopped::Late => Err(late(server, &asked, limit)),
    }
}

fn late(server: &Server, asked: &Asked, limit: Duration) -> Failure {
    let limit = limit.as_secs_f64();
    let said = server.last_words();
    let what = match (asked.served_after, asked.steps.last()) {
        (Some(_), Some(step)) => {
            format!(
                "etcd did not answer within {limit} s all that it was asked; the last answer was to {:?}; it says: {said}",
                step.name
            )
        }
        _ => format!("etcd did not serve within {limit} s; it says: {said}"),
    };
    Failure::refused_for_good("rehearsal-timeout", what).as_kind(Kind::NotChecked)
}

/// Why nothing more is asked.
enum Stopped {
    /// An answer was wrong: the step, and how.
    Wrong(&'static str, String),
    /// Something else failed.
    Failed(Failure),
    /// The time is over.
    Late,
}

impl Stopped {
    fn at(name: &'static str) -> impl Fn(Failure) -> Self {
        move |failure| Self::Wrong(name, failure.to_string())
    }
}

struct Questions<'a> {
    context: &'a Context,
    server: &'a Server,
    expected: &'a Expected,
    limit: Duration,
    begun: Instant,
}

impl Questions<'_> {
    async fn all(&self, asked: &mut Asked) -> Result<(), Stopped> {
        // Boxed, each: a schedule asks on a thread with a small stack.
        let (connection, status) = Box::pin(self.served()).await?;
        asked.served_after = Some(self.begun.elapsed());
        let without = match self.expected.auth {
            true => "; its authentication, which is on in the backup, is turned off here",
            false => "",
        };
        let detail = format!("etcd {} serves, and commits{without}", status.version);
        asked.put("start", StepState::Ok, detail);
        let detail = Box::pin(self.members(&connection, &status)).await?;
        asked.put("members", StepState::Ok, detail);
        let detail = self.revision(&status)?;
        asked.put("revision", StepState::Ok, detail);
        let (state, detail) = Box::pin(self.hash(&connection)).await?;
        asked.put("hash-kv", state, detail);
        let detail = Box::pin(self.keys(&connection)).await?;
        asked.put("keys", StepState::Ok, detail);
        let (revision, detail) = Box::pin(self.write(&connection)).await?;
        asked.put("write", StepState::Ok, detail);
        let detail = Box::pin(self.compact(&connection, revision)).await?;
        asked.put("compact", StepState::Ok, detail);
        Ok(())
    }

    /// Tells every moment that it still waits.
    async fn tell(&self) -> Infallible {
        loop {
            tokio::time::sleep(TELL).await;
            self.context.tell(Event::Waiting {
                what: "etcd to serve the rehearsal",
                missing: "it has not answered everything".to_owned(),
                seconds: self.begun.elapsed().as_secs(),
                limit: self.limit.as_secs(),
            });
        }
    }

    /// Waits until etcd has a leader and answers a read that it agreed on.
    async fn served(&self) -> Result<(Connection, Status), Stopped> {
        loop {
            // What it answered otherwise, its log says better.
            if let Ok(Ok(Some(served))) = tokio::time::timeout(LOOK, Box::pin(self.answer())).await
            {
                return Ok(served);
            }
            // That it has ended is the reason why it does not answer.
            match self.server.ended() {
                Ok(None) => {}
                Ok(Some(why)) => return Err(Stopped::Wrong("start", why)),
                Err(failure) => return Err(Stopped::Failed(failure)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn answer(&self) -> Result<Option<(Connection, Status)>> {
        let options = ConnectOptions {
            // The whole has a limit, which is told better.
            call_timeout: self.limit.saturating_mul(2),
            ..ConnectOptions::default()
        };
        let connection = Connection::open(&self.server.endpoint()?, &options).await?;
        let status = connection.status().await?;
        if status.leader.is_none() {
            return Ok(None);
        }
        connection.prove_readable().await?;
        Ok(Some((connection, status)))
    }

    /// It is the member that was made, and alone.
    async fn members(&self, connection: &Connection, status: &Status) -> Result<String, Stopped> {
        let wrong = |what: String| Err(Stopped::Wrong("members", what));
        let cluster = status.header.cluster_id.to_string();
        if cluster != self.expected.cluster_id {
            let expected = &self.expected.cluster_id;
            return wrong(format!("expected cluster {expected}, found {cluster}"));
        }
        let list = connection.member_list(Consistency::Local).await;
        let list = list.map_err(Stopped::at("members"))?;
        let ids: Vec<String> = list.members.iter().map(|one| one.id.to_string()).collect();
        if ids != [self.expected.member_id.as_str()] {
            let expected = &self.expected.member_id;
            return wrong(format!(
                "expected member {expected} alone, found {}",
                ids.join(", ")
            ));
        }
        Ok(format!(
            "member {} of cluster {cluster}, alone",
            ids.join(", ")
        ))
    }

    fn revision(&self, status: &Status) -> Result<String, Stopped> {
        let (expected, found) = (self.expected.revision, status.header.revision);
        if found < expected {
            let what = format!("expected revision {expected}, found {found}");
            return Err(Stopped::Wrong("revision", what));
        }
        Ok(match found == expected {
            true => format!("{found}, as in the backup"),
            // etcd itself deletes what hangs on them.
            false => format!("{expected}, as in the backup; {found} once leases had expired"),
        })
    }

    async fn keys(&self, connection: &Connection) -> Result<String, Stopped> {
        let (expected, revision) = (self.expected.keys, self.expected.revision);
        let found = connection.count_at(revision).await;
        let found = found.map_err(Stopped::at("keys"))?;
        if found != expected {
            let what = format!("expected {expected} keys at revision {revision}, found {found}");
            return Err(Stopped::Wrong("keys", what));
        }
        Ok(format!("{found} at revision {revision}"))
    }

    async fn hash(&self, connection: &Connection) -> Result<(StepState, String), Stopped> {
        let Expected { snapshot, hash, .. } = self.expected;
        let came = live::ask(connection, snapshot, *hash, None).await;
        match came.map_err(Stopped::at("hash-kv"))? {
            Live::Same { detail } => Ok((StepState::Ok, format!("the backup's own: {detail}"))),
            Live::Differs { detail } => Err(Stopped::Wrong("hash-kv", detail)),
            Live::NotChecked { detail } => Ok((StepState::NotChecked, detail)),
        }
    }

    /// Writes a key and reads it back; the revision that this made.
    async fn write(&self, connection: &Connection) -> Result<(i64, String), Stopped> {
        let value = format!("revision {}", self.expected.revision);
        let revision = connection.put(KEY, value.as_bytes()).await;
        let revision = revision.map_err(Stopped::at("write"))?;
        self.read_back(connection, "write", &value).await?;
        Ok((
            revision,
            format!("a key at revision {revision}, and read it back"),
        ))
    }

    async fn compact(&self, connection: &Connection, revision: i64) -> Result<String, Stopped> {
        let compacted = connection.compact(revision).await;
        compacted.map_err(Stopped::at("compact"))?;
        let value = format!("revision {}", self.expected.revision);
        self.read_back(connection, "compact", &value).await?;
        Ok(format!("everything before revision {revision}"))
    }

    async fn read_back(
        &self,
        connection: &Connection,
        step: &'static str,
        value: &str,
    ) -> Result<(), Stopped> {
        let found = connection.get(KEY, Consistency::Linearizable).await;
        let found = found.map_err(Stopped::at(step))?;
        match found {
            Some(found) if found.value == value.as_bytes() => Ok(()),
            Some(_) => Err(Stopped::Wrong(step, "the key has another value".to_owned())),
            None => Err(Stopped::Wrong(step, "the key is not there".to_owned())),
        }
    }
}
