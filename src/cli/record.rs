//! `record`: until it is asked to stop.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinHandle;

use super::args::{RecordArgs, ScheduleArgs, SealArgs, SignArgs};
use super::output::json;
use super::session::{Session, Shown};
use super::{backup, copies, remote, target};
use crate::error::{Failure, Kind, Result};
use crate::keep::metrics::serve::Served;
use crate::keep::record::{self, Away, RecordRequest, Recorded, Standing};
use crate::keep::schedule::{GRACE, on_a_thread};
use crate::store::{Address, LocalStore};

/// The most that a segment holds before it is sealed, in bytes.
const MAX_SEAL: u64 = 64 << 20;
/// The shortest time between two seals.
const SHORTEST: Duration = Duration::from_millis(100);

/// Records what is written to etcd.
pub(super) fn run(session: &Session, args: &RecordArgs) -> Result<Shown> {
    let store = session.store(args.store.as_deref())?;
    let request = RecordRequest {
        default_store: args.store.is_none() && session.config.store.is_none(),
        away: Some(away(session, args)?),
        ..request(session, store, &args.seal)?
    };
    let recorded = session.block_on(record::run(&session.context, &request))?;
    let document = json::document("record", &json!(recorded));
    Ok(Shown::done(text(&recorded), document))
}

/// Where segments are copied to.
fn away(session: &Session, args: &RecordArgs) -> Result<Away> {
    let to = match args.copy_to.is_empty() {
        true => &session.config.copy.to,
        false => &args.copy_to,
    };
    if to.is_empty() {
        remote::refuse_recipients(&args.form, "no copy is requested (--copy-to URL)")?;
    }
    let to: Result<Vec<Address>> = to.iter().map(|url| Address::parse(url)).collect();
    Ok(Away {
        to: to?,
        settings: remote::settings(session, &args.remote)?,
        form: remote::form(session, &args.form, &SignArgs::default())?,
        on_copied: None,
    })
}

/// What is recorded, and where to.
pub(super) fn request(
    session: &Session,
    store: LocalStore,
    seal: &SealArgs,
) -> Result<RecordRequest> {
    let usage = |what: &str| Err(Failure::new(Kind::Usage, what.to_owned()));
    if !(1..=MAX_SEAL).contains(&seal.seal_size) {
        return usage(
            "--seal-size must be 1 byte to 64MiB: a segment is held in memory until it is sealed",
        );
    }
    if seal.seal_every < SHORTEST {
        return usage("--seal-every must be at least 100ms: each segment is a file");
    }
    Ok(RecordRequest {
        target: target::target(session)?,
        store,
        default_store: false,
        away: None,
        seal_every: seal.seal_every,
        seal_bytes: seal.seal_size,
        prove_every: seal.prove_every,
        on_standing: None,
    })
}

/// A recorder beside the schedule.
type Recording = JoinHandle<Result<()>>;

/// Begins to record beside the schedule, on a thread of its own, if that is asked for. What fails is no
/// reason to take no backups, unless the command line is wrong.
pub(super) fn beside(
    session: &Session,
    args: &ScheduleArgs,
    served: &Arc<Served>,
) -> Result<Option<Recording>> {
    match begin(session, args, served) {
        Err(failure) if failure.kind() != Kind::Usage => {
            let context = &session.context;
            context.warn("recording-failed", failure.to_string());
            Ok(None)
        }
        other => other,
    }
}

/// Waits until it has sealed what it has; a disk that hangs is not waited for.
pub(super) async fn ended(recording: Option<Recording>) {
    if let Some(recording) = recording {
        let _ = tokio::time::timeout(GRACE, recording).await;
    }
}

fn begin(
    session: &Session,
    args: &ScheduleArgs,
    served: &Arc<Served>,
) -> Result<Option<Recording>> {
    if !args.record {
        return Ok(None);
    }
    let store = backup::store(session, &args.backup)?;
    let mut asked = request(session, store, &args.seal)?;
    let (told, copied) = (Arc::clone(served), Arc::clone(served));
    told.metrics.recording(&Standing::default());
    asked.on_standing = Some(Arc::new(move |standing| told.metrics.recording(standing)));
    asked.default_store = args.backup.store.is_none() && session.config.store.is_none();
    let copies = copies::copies(session, &args.backup)?;
    asked.away = Some(Away {
        to: copies.to,
        settings: copies.settings,
        form: copies.form,
        on_copied: Some(Arc::new(move |address, until| {
            copied.metrics.copied(&address.to_string(), until);
        })),
    });
    // A store that never gets anything must be seen, too.
    for address in asked.away.iter().flat_map(|away| &away.to) {
        served
            .metrics
            .copied(&address.to_string(), Timestamp::UNIX_EPOCH);
    }
    let context = session.context.clone();
    let work = move || async move { record::keep_recording(&context, &asked).await };
    Ok(Some(tokio::spawn(on_a_thread(work))))
}

fn text(recorded: &Recorded) -> String {
    let mut text = String::new();
    let (Some(first), Some(last)) = (recorded.first_revision, recorded.last_revision) else {
        return "nothing was written while recording\n".to_owned();
    };
    let _ = writeln!(
        text,
        "recorded revisions {first} to {last}: {} changes in {} segments, {}",
        HumanCount(recorded.records),
        recorded.segments,
        HumanBytes(recorded.bytes)
    );
    for gap in &recorded.gaps {
        let _ = writeln!(
            text,
            "gap after revision {}: {}; recorded again from revision {}",
            gap.after,
            gap.cause.sentence(),
            gap.until
        );
    }
    text
}
