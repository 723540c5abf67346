//! `verify SET --rehearse`: a real etcd serves what a restore of the backup makes.
//!
//! ```text
//! .etcd-dr-rehearse-<16 hex digits>/     locked, removed at the end, by the next run at the latest
//!   data/                                what restore --data-dir builds, by the same code
//!   client:1  peer:1                     etcd's sockets: nothing listens on the network
//!   etcd.log                             what it prints
//! ```
//!
//! [`program`] finds the etcd, [`server`] runs it, [`questions`] asks it. It runs at most until
//! this process ends ([`crate::sys::bound`]).

mod expected;
mod program;
mod questions;
mod record;
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::change::datadir;
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::snapshot::LayerState;
use crate::finding::Layer;
use crate::keep::catalog::{BackupSet, Rehearsed};
use crate::keep::database;
use crate::sys::scratch::{self, Scratch};
use crate::sys::space;

use expected::{Expected, NAME, Needed, PEER_URL};
use program::Program;
pub use program::{Etcd, From, Programs};
pub use questions::{Step, StepState};
use server::Server;

/// The purpose in the name of the scratch folder.
const PURPOSE: &str = "rehearse";
/// What etcd writes besides the database (bytes): two segments of its WAL, and pages of writes.
const BESIDES: u64 = 160 << 20;

/// What is to be rehearsed.
#[derive(Debug, Clone)]
pub struct Request {
    /// The backup.
    pub set: BackupSet,
    /// What its verification found of the snapshot.
    pub database: Box<database::Report>,
    /// Which etcd.
    pub programs: Programs,
    /// Where the scratch folder is made.
    pub scratch: PathBuf,
    /// How long etcd may take for everything it is asked.
    pub limit: Duration,
}

/// What a rehearsal found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// Whether nothing failed.
    pub good: bool,
    /// The etcd that served.
    pub etcd: Etcd,
    /// Seconds from the start of the restore until etcd served; none if it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_after_seconds: Option<f64>,
    /// What was asked, in this order.
    pub steps: Vec<Step>,
    /// Whether the result could be recorded beside the backup.
    pub recorded: bool,
}

impl Rehearsal {
    /// What is kept of it beside the Manifest.
    fn record(&self, time: Timestamp) -> Rehearsed {
        let failed = self.steps.iter();
        let failed = failed.filter(|step| step.state == StepState::Failed);
        Rehearsed {
            schema_version: 1,
            time,
            good: self.good,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            etcd_version: self.etcd.version.clone(),
            served_after_seconds: self.served_after_seconds,
            failed: failed.map(|step| step.name.to_owned()).collect(),
        }
    }
}

/// Rehearses a backup, and records the result.
///
/// # Errors
/// The refusals `no-etcd`, `etcd-unusable` and `etcd-too-old`; [`Kind::NotChecked`] with the refusal
/// `rehearsal-timeout` or where etcd was killed; [`Kind::Store`] if there is no room; those of
/// [`datadir::run`]. What etcd answers wrongly is in the result.
pub async fn run(context: &Context, request: Request) -> Result<Rehearsal> {
    let set = request.set.clone();
    let rehearsal = Box::pin(rehearse(context, request)).await;
    let mut rehearsal =
        rehearsal.map_err(|failure| failure.doing(format!("rehearsing {}", set.name)))?;
    if set.manifest.is_some() {
        let record = rehearsal.record(context.now);
        rehearsal.recorded = record::write(context, &set, &record);
    }
    Ok(rehearsal)
}

/// Rehearses a backup that was not verified yet: its snapshot is read first. Whether etcd served it.
///
/// # Errors
/// Those of [`run`]; [`Kind::BadBackup`] if the snapshot is damaged.
pub async fn scheduled(
    context: &Context,
    set: BackupSet,
    programs: Programs,
    scratch: PathBuf,
    limit: Duration,
) -> Result<bool> {
    let (own, reading) = (context.clone(), set.clone());
    let read = tokio::task::spawn_blocking(move || {
        let snapshot = reading.files.snapshot.as_ref();
        let snapshot = snapshot.ok_or_else(|| bad("it has no snapshot"))?;
        let report = database::read(&own, snapshot, database::KeyFilter::default())?;
        report.ok_or_else(|| bad("it has no snapshot"))
    });
    let read = read.await.doing(Kind::Unexpected, || "running a thread")?;
    let name = set.name.clone();
    let database = read.map_err(|failure| failure.doing(format!("rehearsing {name}")))?;
    let request = Request {
        set,
        database: Box::new(database),
        programs,
        scratch,
        limit,
    };
    run(context, request).await.map(|rehearsal| rehearsal.good)
}

/// Removes what killed rehearsals left in a folder.
pub fn sweep(base: &Path) {
    scratch::sweep(base, PURPOSE);
}

async fn rehearse(context: &Context, request: Request) -> Result<Rehearsal> {
    let begun = Instant::now();
    let limit = request.limit;
    let own = context.clone();
    let prepared = tokio::task::spawn_blocking(move || prepare(&own, &request)).await;
    let (here, program, expected) = prepared.doing(Kind::Unexpected, || "running a thread")??;
    let server = Server::start(&program, here.path())?;
    let asked = Box::pin(questions::ask(context, &server, &expected, limit, begun)).await?;
    drop(server);
    Ok(Rehearsal {
        good: asked
            .steps
            .iter()
            .all(|step| step.state != StepState::Failed),
        etcd: program.told(),
        served_after_seconds: asked.served_after.map(|after| after.as_secs_f64()),
        steps: asked.steps,
        recorded: false,
    })
}

/// Finds the etcd, and builds the data directory.
fn prepare(context: &Context, request: &Request) -> Result<(Scratch, Program, Expected)> {
    let facts = request.database.facts.as_ref();
    let facts = facts.ok_or_else(|| bad("its snapshot could not be read"))?;
    let hash = request.database.hash_kv;
    let hash = hash.ok_or_else(|| bad("its snapshot has no HashKV"))?;
    let snapshot = request.set.files.snapshot.clone();
    let snapshot = snapshot.ok_or_else(|| bad("it has no snapshot"))?;
    let here = Scratch::make(&request.scratch, PURPOSE)?;
    let program = program::find(
        context,
        &request.programs,
        &Needed::of(&request.set, facts),
        here.path(),
    )?;
    let space = space::space(here.path())?;
    let size = facts.total_size.saturating_add(BESIDES);
    // The scratch folder may be beside the data of the etcd that serves.
    space.check(size.saturating_add(space.reserve(true)), "the rehearsal")?;
    let unsealed = request.database.layer(Layer::Trailer) == Some(&LayerState::Unsealed);
    let data_dir = here.path().join(server::DATA);
    let request = datadir::Request {
        // What has no integrity hash was checked page by page before.
        skip_hash_check: unsealed,
        // Its users' passwords are not in it, and without one etcd 3.5.28 and later answers hardly anything.
        authentication_off: true,
        // A bump would compact the backup's own revision, whose HashKV etcd is asked for.
        ..datadir::Request::unbumped(&snapshot, &data_dir, (NAME, PEER_URL))?
    };
    let built = datadir::run(context, &request)?;
    context.cancel.check()?;
    let expected = Expected {
        snapshot,
        cluster_id: built.cluster_id,
        member_id: built.member_id,
        revision: built.revision,
        keys: built.keys,
        hash,
        auth: facts.auth.enabled,
    };
    Ok((here, program, expected))
}

fn bad(what: &'static str) -> Failure {
    Failure::new(Kind::BadBackup, what)
}
