//! `backup`: arguments, configuration and environment to a request, its result to text and JSON.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::args::BackupArgs;
use super::copies::{self, keep};
use super::output::{backup as show, json, prune, words};
use super::session::{Session, Shown, host_name};
use super::{allow, environment, sign, target};
use crate::backup::signature::SigningKey;
use crate::error::{Failure, Kind, Result, exit};
use crate::keep::backup::{self, BackupRequest, Destination, Outcome, Taken};
use crate::keep::copies::Tried;
use crate::keep::metrics::{self, Metrics};
use crate::keep::quality::{ALLOWABLE, Allowed};
use crate::store::LocalStore;

/// How long a snapshot may stall, unless configured.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes a backup, and writes the metrics even if it fails.
pub(super) fn run(session: &Session, args: &BackupArgs) -> Result<Shown> {
    let Some(path) = &args.textfile else {
        return once(session, args, None);
    };
    let metrics = Metrics::new();
    let began = Instant::now();
    let result = once(session, args, Some(&metrics));
    let failure = match &result {
        Ok(shown) if shown.status == exit::DONE => None,
        Ok(_) => Some(Kind::Partial),
        Err(failure) => Some(failure.kind()),
    };
    metrics.ended(Timestamp::now(), began.elapsed(), failure);
    let written = store(session, args).and_then(|store| {
        metrics.look(&store, "");
        metrics::textfile(&metrics.render()?, path)
    });
    match (result, written) {
        (result, Ok(())) => result,
        // What is not known is no reason to call a backup bad.
        (Ok(mut shown), Err(failure)) => {
            shown.problems.push(failure);
            if shown.status == exit::DONE {
                shown.status = exit::PARTIAL;
            }
            Ok(shown)
        }
        (Err(failure), Err(unwritten)) => {
            session.context.warn("textfile", unwritten.to_string());
            Err(failure)
        }
    }
}

/// The store that backups go to.
pub(super) fn store(session: &Session, args: &BackupArgs) -> Result<LocalStore> {
    match &args.flat {
        Some(dir) => Ok(LocalStore::at(dir)),
        None => session.store(args.store.as_deref()),
    }
}

fn once(session: &Session, args: &BackupArgs, metrics: Option<&Metrics>) -> Result<Shown> {
    let mut request = request(session, args)?;
    // A wrong URL is reported before the backup is taken.
    let copies = copies::copies(session, args)?;
    request.copies = copies.urls();
    let (context, store) = (&session.context, store(session, args)?);
    let (outcome, tried) = session.block_on(async {
        let outcome = backup::run(context, &request).await?;
        let ask = match &outcome {
            Outcome::RecentEnough { name, .. } => Some(name.as_str()),
            Outcome::Taken(_) => None,
        };
        let tried = copies.catch_up(context, &store, ask, None).await;
        if let Some(metrics) = metrics {
            metrics.copies(&copies.look(context, &store).await);
        }
        Ok((outcome, tried))
    })?;
    Ok(came("backup", &outcome, tried))
}

/// The result of the backup and of its copies: a failed copy does not change the backup.
pub(super) fn came(command: &str, outcome: &Outcome, tried: Vec<Tried>) -> Shown {
    let (own, mut text, mut document, mut problems) = match outcome {
        Outcome::RecentEnough { name, age } => {
            let age = age.as_secs().unsigned_abs();
            (
                name.as_str(),
                format!("nothing to do: {name} is {} old\n", words::span(age)),
                json!({"result": "young-enough", "set": name, "ageSeconds": age}),
                Vec::new(),
            )
        }
        Outcome::Taken(taken) => (
            taken.manifest.id.as_str(),
            show::taken(taken),
            show::document(taken),
            problems_of(taken),
        ),
    };
    let (copies, caught_up): (Vec<Tried>, Vec<Tried>) =
        tried.into_iter().partition(|tried| tried.set == own);
    let copies = copies::told(copies, &mut text, &mut problems, false);
    if matches!(outcome, Outcome::Taken(_)) || copies != json!([]) {
        document["copies"] = copies;
    }
    if !caught_up.is_empty() {
        document["caughtUp"] = copies::told(caught_up, &mut text, &mut problems, true);
    }
    Shown::in_part(text, json::document(command, &document), problems)
}

/// What failed once the backup was there.
fn problems_of(taken: &Taken) -> Vec<Failure> {
    let own = taken.problems.iter();
    let own = own.map(|problem| Failure::new(Kind::Store, problem.clone()));
    own.chain(taken.pruned.iter().flat_map(prune::problems))
        .collect()
}

pub(super) fn request(session: &Session, args: &BackupArgs) -> Result<BackupRequest> {
    let configured = &session.config.backup;
    let mut allow = args.allow.clone();
    allow.extend(configured.allow.iter().cloned());
    let allow = allow::check_as("check", &allow, &ALLOWABLE)?;
    let max_rate = args.max_rate.or(configured.max_rate);
    let stall_timeout = args.stall_timeout.or(configured.stall_timeout);
    Ok(BackupRequest {
        target: target::target(session)?,
        host: host_name(),
        destination: destination(session, args)?,
        if_older_than: args.if_older_than,
        allowed: Allowed {
            names: allow,
            all: args.force,
        },
        check_members: args.check_members || configured.check_members,
        max_rate: max_rate.and_then(NonZeroU64::new),
        stall_timeout: stall_timeout.unwrap_or(STALL_TIMEOUT),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        privileged: rustix::process::geteuid().is_root(),
        pin: args.pin,
        copies: Vec::new(),
        sign: signing_key(session, args)?,
        trust: sign::configured(session)?,
        keep: keep(session, args)?,
    })
}

/// What signs the Manifest; plain files have none. The variable alone is the environment's and no request.
fn signing_key(session: &Session, args: &BackupArgs) -> Result<Option<Arc<SigningKey>>> {
    if args.flat.is_none() {
        return sign::key(
            session,
            args.sign.sign_key.as_deref(),
            args.sign.sign_passphrase_file.as_deref(),
        );
    }
    if args.sign.sign_key.is_some() && environment::variable(sign::KEY_VARIABLE).is_none() {
        let what = "--flat writes plain files without a Manifest, which cannot be signed";
        return Err(Failure::new(Kind::Usage, what));
    }
    Ok(None)
}

fn destination(session: &Session, args: &BackupArgs) -> Result<Destination> {
    if let Some(dir) = &args.flat {
        return Ok(Destination::Flat(dir.clone()));
    }
    if args.store.is_none() && session.config.store.is_none() {
        return Ok(Destination::DefaultStore);
    }
    Ok(Destination::Store(
        session.store(args.store.as_deref())?.dir().to_owned(),
    ))
}
