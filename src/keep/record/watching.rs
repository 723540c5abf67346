//! One connection to a member, from the watch to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::away::Sealed;
use super::checking::Checking;
use super::leases;
use super::request::{Gap, RecordRequest, Recorded, Standing};
use super::tape::Tape;
use crate::cluster::connect;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::{Connection, Consistency, Header as Answer, Status, Watch, Watched};
use crate::etcd::segment::{Assembler, Broken, Cause, Header};
use crate::event::Event;
use crate::keep::catalog;

/// How often the member is asked where the watch stands.
const PROGRESS: Duration = Duration::from_secs(2);
/// A member that has sent nothing for this time is lost.
const SILENCE: Duration = Duration::from_secs(20);
/// So often in a row the watch may leave out events before a new chain begins.
const MAX_HOLES: u32 = 3;

/// Why a watch ended without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to stop, and has sealed what it had.
    Asked,
    /// It begins again at once.
    Again,
}

/// The recorder between its connections.
pub(super) struct Watching<'a> {
    context: &'a Context,
    request: &'a RecordRequest,
    tape: Tape,
    pub(super) recorded: Recorded,
    standing: Standing,
    leases: BTreeMap<i64, i64>,
    holes: u32,
    /// Whether the newest backup is too old to begin after.
    without_base: bool,
    /// Told of each segment that is there.
    sealed: Sealed,
    checking: Checking,
}

/// A connection and what is written about it into segments.
struct Link {
    connection: Connection,
    about: Header,
}

impl<'a> Watching<'a> {
    pub(super) fn open(
        context: &'a Context,
        request: &'a RecordRequest,
        sealed: Sealed,
    ) -> Result<Self> {
        let tape = Tape::open(&request.store.changes())?;
        let standing = Standing {
            revision: tape.revision(),
            ..Standing::default()
        };
        Ok(Self {
            context,
            request,
            tape,
            recorded: Recorded::default(),
            standing,
            leases: BTreeMap::new(),
            holes: 0,
            without_base: false,
            sealed,
            checking: Checking::new(request.prove_every),
        })
    }

    /// Says that there is no connection now.
    pub(super) fn disconnected(&mut self) {
        self.standing.connected = false;
        self.tell();
    }

    fn tell(&self) {
        if let Some(told) = &self.request.on_standing {
            told(&self.standing);
        }
    }

    /// Connects, and records until that ends. What has arrived by then is sealed, also where the member
    /// is lost: it may be all that is left of the node.
    pub(super) async fn follow(&mut self) -> Result<Ended> {
        let cancel = self.context.cancel.clone();
        let opening = cancel.guard(self.connect()).await;
        let (mut link, mut assembler, now_at) = match opening {
            Err(failure) if failure.kind() == Kind::Interrupted => return Ok(Ended::Asked),
            other => other?,
        };
        let start = assembler.start();
        let watch = cancel.guard(link.connection.watch(start)).await;
        let mut watch = match watch {
            Err(failure) if failure.kind() == Kind::Interrupted => return Ok(Ended::Asked),
            other => other?,
        };
        self.standing.connected = true;
        self.tell();
        let came = self
            .record(&mut link, &mut watch, &mut assembler, now_at)
            .await;
        match &came {
            // The disk has failed, and would fail again.
            Err(failure) if failure.kind() == Kind::Store => {}
            _ => self.seal(&mut link, &mut assembler, false).await?,
        }
        came
    }

    /// Finds the member, and what to begin with.
    async fn connect(&mut self) -> Result<(Link, Assembler, i64)> {
        let detection = self.request.target.detect(self.context)?;
        let access = self.request.target.access(self.context, &detection)?;
        let options = connect::options(&access)?;
        let connection = connect::connect(&access, &options).await?;
        let status = connection.status().await?;
        if status.is_learner {
            let what = "the member is a learner, which no client may watch";
            return Err(Failure::new(Kind::Unreachable, what));
        }
        // Of all members: one alone may be behind.
        let now = connection.get_prefix(b"etcd-dr", 1, Consistency::Linearizable);
        let now = now.await?.header.revision;
        let cluster = status.header.cluster_id.to_string();
        if let Some(last) = self.tape.revision() {
            if self.tape.cluster() != Some(cluster.as_str()) {
                let what =
                    format!("cluster {cluster} answers: the node was restored, or is another one");
                self.end(Cause::OtherCluster, &what, last);
            } else if last > now {
                let what = "its revision is below the last one that was recorded";
                self.end(Cause::OtherHistory, what, last);
            }
        }
        let assembler = match self.tape.resume() {
            Some(again) => Assembler::resume(again),
            None => Assembler::after(
                self.base(&cluster)
                    .filter(|base| *base <= now)
                    .unwrap_or(now),
            ),
        };
        let about = about(&status);
        Ok((Link { connection, about }, assembler, now))
    }

    /// The revision of the newest good backup of a cluster: recording that begins after it makes what
    /// follows reachable at once.
    fn base(&self, cluster: &str) -> Option<i64> {
        if self.without_base {
            return None;
        }
        let mut sets = catalog::list(&self.request.store).ok()?;
        sets.retain(|set| {
            let manifest = set.manifest.as_ref();
            manifest.is_some_and(|manifest| manifest.cluster.etcd_id == cluster)
        });
        let newest = catalog::newest_good(&sets, Timestamp::now())?;
        newest.manifest.as_ref()?.database.kv_revision
    }

    async fn record(
        &mut self,
        link: &mut Link,
        watch: &mut Watch,
        assembler: &mut Assembler,
        now_at: i64,
    ) -> Result<Ended> {
        let mut ticks = ticks();
        let mut heard = Instant::now();
        let mut pending: Option<Instant> = None;
        loop {
            let due = pending.map(|since| since + self.request.seal_every);
            let sealing = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A stream that always has events must delay neither the request to stop nor the
                // sealing.
                biased;
                () = self.context.cancel.cancelled() => {
                    self.seal(link, assembler, true).await?;
                    return Ok(Ended::Asked);
                }
                () = sealing => {
                    self.seal(link, assembler, true).await?;
                    pending = None;
                }
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE {
                        let what = format!("etcd at {} has said nothing for {} s", link.connection.endpoint(), SILENCE.as_secs());
                        return Err(Failure::new(Kind::Unreachable, what));
                    }
                    // An etcd that has nothing to tell is silent; one that is asked must answer.
                    watch.ask_for_progress();
                }
                told = watch.next() => {
                    heard = Instant::now();
                    if let Some((cause, why)) = self.told(told?, assembler, now_at)? {
                        // What arrived before belongs to the chain that ends.
                        self.seal(link, assembler, true).await?;
                        self.end(cause, &why, assembler.last());
                        return Ok(Ended::Again);
                    }
                    if assembler.len() as u64 >= self.request.seal_bytes {
                        self.seal(link, assembler, true).await?;
                    }
                    pending = (!assembler.is_empty()).then(|| pending.unwrap_or(heard));
                }
            }
        }
    }

    /// Takes a response; why the chain ends with it, if it does.
    fn told(
        &mut self,
        told: Watched,
        assembler: &mut Assembler,
        now_at: i64,
    ) -> Result<Option<(Cause, String)>> {
        match told {
            Watched::Events { events, .. } => {
                // What was written before the watch began came later than it was written.
                let live = events.iter().all(|event| event.mod_revision > now_at);
                match assembler.take(&events, Timestamp::now(), live) {
                    Ok(()) => {
                        self.holes = 0;
                        Ok(None)
                    }
                    Err(broken) => self.broken(&broken).map(Some),
                }
            }
            Watched::Progress(header) => {
                self.caught_up(&header, assembler);
                Ok(None)
            }
            Watched::Compacted(compacted) => {
                let what = format!("etcd has compacted the revisions up to {compacted}");
                self.without_base = true;
                Ok(Some((Cause::Compacted, what)))
            }
            Watched::Cancelled(why) => {
                let what = format!("etcd has cancelled the watch: {why}");
                Err(Failure::new(Kind::Unreachable, what))
            }
        }
    }

    /// Notes up to when everything is sealed.
    fn caught_up(&mut self, header: &Answer, assembler: &Assembler) {
        if assembler.is_empty() && header.revision <= assembler.last() {
            self.standing.recorded_until = Some(Timestamp::now());
            self.tell();
        }
    }

    /// Events that do not continue what is there: the watch is opened again, and in the end the chain
    /// ends.
    fn broken(&mut self, broken: &Broken) -> Result<(Cause, String)> {
        if matches!(broken, Broken::OtherHistory { .. }) {
            return Ok((Cause::OtherHistory, broken.to_string()));
        }
        self.holes += 1;
        if self.holes >= MAX_HOLES {
            self.holes = 0;
            self.without_base = true;
            return Ok((Cause::EventsLost, broken.to_string()));
        }
        let what = format!("etcd's watch is not whole: {broken}");
        Err(Failure::new(Kind::Unreachable, what))
    }

    /// Ends the chain, and says so. One that has no segment yet ends, too: what follows the backup that it
    /// was to continue cannot be recorded.
    fn end(&mut self, cause: Cause, why: &str, last: i64) {
        self.tape.end(cause, last);
        self.checking.forget();
        let what = format!(
            "what comes after revision {last} cannot be recorded: {why}; recording begins again, and the next backup makes it reachable"
        );
        self.context.warn("recording-gap", what);
    }

    /// Seals what has arrived. `fresh` says whether the member is still there to be asked for its leases.
    async fn seal(
        &mut self,
        link: &mut Link,
        assembler: &mut Assembler,
        fresh: bool,
    ) -> Result<()> {
        if assembler.is_empty() {
            return Ok(());
        }
        link.about.leases_fresh = false;
        if fresh {
            match leases::refresh(&link.connection, &mut self.leases).await {
                Ok(()) => link.about.leases_fresh = true,
                Err(failure) => self.context.tell(Event::Note(failure.to_string())),
            }
        }
        link.about.checkpoint = match self.checking.answer().await {
            Some(Ok(checkpoint)) => Some(checkpoint),
            Some(Err(failure)) => {
                self.context.tell(Event::Note(failure.to_string()));
                None
            }
            None => None,
        };
        let mut about = link.about.clone();
        self.tape.link(&mut about);
        let Some((header, file, hash)) = assembler.seal(&about, &self.leases)? else {
            return Ok(());
        };
        let begun = self.tape.begun();
        let is_first = self.tape.revision().is_none();
        let path = match self
            .tape
            .append(&header, &file, hash, || assembler.sealed())
        {
            Ok(path) => path,
            Err(failure) => {
                // It may be there, and not be known to be durable: the disk tells.
                self.tape.look()?;
                return Err(failure);
            }
        };
        if let (true, Some(after)) = (is_first, begun.after) {
            self.recorded.gaps.push(Gap {
                after,
                until: header.first_revision,
                cause: begun.cause,
            });
        }
        self.note(&header, file.len() as u64);
        self.sealed.tell(path);
        if fresh {
            self.checking.ask(&link.connection, header.last_revision);
        }
        Ok(())
    }

    /// Counts a segment that is durable.
    fn note(&mut self, header: &Header, bytes: u64) {
        self.without_base = false;
        let (first, last) = (header.first_revision, header.last_revision);
        let recorded = &mut self.recorded;
        recorded.chain = self.tape.dir().map(ToOwned::to_owned);
        recorded.first_revision.get_or_insert(first);
        recorded.last_revision = Some(last);
        recorded.segments += 1;
        recorded.records += header.records;
        recorded.bytes += bytes;
        self.standing.revision = Some(last);
        self.standing.recorded_until = Some(header.last_received);
        self.standing.gaps = recorded.gaps.len() as u64;
        self.standing.segments = recorded.segments;
        self.standing.bytes = recorded.bytes;
        self.tell();
        let note = format!("sealed revisions {first} to {last}, {bytes} bytes");
        self.context.tell(Event::Note(note));
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What a segment says of the member that was watched.
fn about(status: &Status) -> Header {
    Header {
        schema_version: 0,
        cluster_id: status.header.cluster_id.to_string(),
        member_id: status.header.member_id.to_string(),
        etcd_version: status.version.clone(),
        first_revision: 0,
        last_revision: 0,
        records: 0,
        leases: 0,
        leases_fresh: false,
        first_received: Timestamp::UNIX_EPOCH,
        last_received: Timestamp::UNIX_EPOCH,
        previous: None,
        begun: None,
        checkpoint: None,
    }
}
