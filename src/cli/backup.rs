//! `backup`: arguments, configuration and environment to a request, its result to text and JSON.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::BackupArgs;
use super::run::{Session, Shown};
use super::{config, copy, human, machine, prune, remote, target};
use crate::backup::retention::Rules;
use crate::context::Context;
use crate::error::{Failure, Kind, Result, exit};
use crate::etcd::finding::printable;
use crate::keep::backup::{BackupRequest, Destination, Outcome, Taken};
use crate::keep::copies::{Copies, Tried};
use crate::keep::metrics::Metrics;
use crate::keep::quality::{ALLOWABLE, Allowed};
use crate::keep::{backup, metrics};
use crate::store::{Address, LocalStore};

/// How long nothing may come of a snapshot, unless told.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes a backup, and writes the metrics whatever came of it.
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
        metrics::textfile(&metrics, path)
    });
    match (result, written) {
        (result, Ok(())) => result,
        // What was not told is no reason to call a backup bad.
        (Ok(mut shown), Err(failure)) => {
            let problem = human::failure("backup", &failure);
            shown.remark = Some(
                shown
                    .remark
                    .map_or(problem.clone(), |first| format!("{first}\n{problem}")),
            );
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
    // What is wrong with a URL is found before anything is taken.
    let copies = copies(session, args)?;
    request.copies = copies.urls();
    let (context, store) = (&session.context, store(session, args)?);
    let (outcome, tried) = session.block_on(async {
        let outcome = backup::run(context, &request).await?;
        let ask = match &outcome {
            Outcome::YoungEnough { name, .. } => Some(name.as_str()),
            Outcome::Taken(_) => None,
        };
        let tried = copy_out(context, &copies, &store, ask, None).await;
        if let Some(metrics) = metrics {
            metrics.copies(&copies.look(context, &store).await);
        }
        Ok((outcome, tried))
    })?;
    Ok(came("backup", &outcome, tried))
}

/// Makes the copies of what a backup came to, and those that earlier ones are owed. A young enough
/// backup that another run took (`ask`) is copied too: what was asked for is a backup here and there.
pub(super) async fn copy_out(
    context: &Context,
    copies: &Copies,
    store: &LocalStore,
    ask: Option<&str>,
    until: Option<Timestamp>,
) -> Vec<Tried> {
    let asked = ask.map_or(Ok(()), |name| copies.ask(context, store, name));
    let made = match asked {
        Ok(()) => copies.make(context, store, until).await,
        Err(failure) => Err(failure),
    };
    made.unwrap_or_else(|failure| {
        vec![Tried {
            set: store.dir().display().to_string(),
            came: Err(failure),
            pruned: None,
        }]
    })
}

/// What came of it, and of the copies: a failure there leaves the backup as it is.
pub(super) fn came(command: &str, outcome: &Outcome, tried: Vec<Tried>) -> Shown {
    let (own, mut text, mut document, mut problems) = match outcome {
        Outcome::YoungEnough { name, age } => {
            let age = age.as_secs().unsigned_abs();
            (
                name.as_str(),
                format!("nothing to do: {name} is {} old\n", human::span(age)),
                json!({"result": "young-enough", "set": name, "ageSeconds": age}),
                Vec::new(),
            )
        }
        Outcome::Taken(taken) => (
            taken.manifest.id.as_str(),
            text(taken),
            document(taken),
            problems_of(taken),
        ),
    };
    let (copies, caught_up): (Vec<Tried>, Vec<Tried>) =
        tried.into_iter().partition(|tried| tried.set == own);
    let copies = told(copies, &mut text, &mut problems, false);
    if matches!(outcome, Outcome::Taken(_)) || copies != json!([]) {
        document["copies"] = copies;
    }
    if !caught_up.is_empty() {
        document["caughtUp"] = told(caught_up, &mut text, &mut problems, true);
    }
    let remark = (!problems.is_empty()).then(|| problems.join("\n"));
    Shown {
        text,
        json: machine::document(command, &document),
        status: if remark.is_some() {
            exit::PARTIAL
        } else {
            exit::DONE
        },
        remark,
    }
}

/// What failed once the backup was there.
fn problems_of(taken: &Taken) -> Vec<String> {
    let own = taken.problems.iter();
    let mut problems: Vec<String> = own
        .map(|problem| printable(format!("error: {problem}")))
        .collect();
    let pruned = taken.pruned.iter();
    let failed = pruned.filter(|pruned| !pruned.problems.is_empty());
    problems.extend(failed.map(prune::problems));
    problems
}

/// Copies for people, their failures, and all of them for programs.
pub(super) fn told(
    tried: Vec<Tried>,
    text: &mut String,
    problems: &mut Vec<String>,
    named: bool,
) -> Value {
    let mut documents = Vec::new();
    for Tried { set, came, pruned } in tried {
        let mut document = match came {
            Ok(copied) => {
                text.push_str(&copy::text(&copied));
                let mut document = json!(copied);
                if let Some(pruned) = pruned {
                    text.push_str(&prune::summary(&pruned));
                    if !pruned.problems.is_empty() {
                        problems.push(prune::problems(&pruned));
                    }
                    document["pruned"] = json!(pruned);
                }
                document
            }
            Err(failure) => {
                problems.push(human::failure("copy", &failure));
                json!({"error": failure.to_string()})
            }
        };
        if named {
            document["set"] = set.into();
        }
        documents.push(document);
    }
    documents.into()
}

/// Where the backup is copied to once it is taken: finds out what is wrong with the URLs, and reads
/// the files that are named.
pub(super) fn copies(session: &Session, args: &BackupArgs) -> Result<Copies> {
    let to = addresses(session, args)?;
    if to.is_empty() {
        remote::refuse_recipients(&args.form, "no copy is asked for (--copy-to URL)")?;
    }
    Ok(Copies {
        to,
        settings: remote::settings(session, &args.remote)?,
        form: remote::form(session, &args.form)?,
        host: host_name(),
        keep: keep_copies(session, args)?,
    })
}

/// The rules for the copies: those for the store here, where that is asked for.
fn keep_copies(session: &Session, args: &BackupArgs) -> Result<Option<Rules>> {
    let rules = keep(session, args)?;
    if args.keep_copies && rules.is_none() {
        let what =
            "--keep-copies applies the --keep rules to the copies: expected one, as --keep-last 20";
        return Err(Failure::new(Kind::Usage, what));
    }
    Ok(rules.filter(|_| args.keep_copies || session.config.copy.keep))
}

/// The URLs of the stores that are copied to, as records call them.
pub(super) fn copy_urls(session: &Session, args: &BackupArgs) -> Result<Vec<String>> {
    let to = addresses(session, args)?;
    Ok(to.iter().map(Address::to_string).collect())
}

fn addresses(session: &Session, args: &BackupArgs) -> Result<Vec<Address>> {
    let configured = &session.config.copy.to;
    let to = match (&args.flat, args.copy_to.is_empty()) {
        (None, true) => configured,
        _ => &args.copy_to,
    };
    to.iter().map(|url| Address::parse(url)).collect()
}

pub(super) fn request(session: &Session, args: &BackupArgs) -> Result<BackupRequest> {
    let configured = &session.config.backup;
    let mut allow = args.allow.clone();
    allow.extend(configured.allow.iter().cloned());
    for name in &allow {
        if !ALLOWABLE.contains(&name.as_str()) {
            let nearest =
                config::nearest(name, &ALLOWABLE).map(|near| format!("; did you mean {near:?}?"));
            let known =
                nearest.unwrap_or_else(|| format!("; the checks are {}", ALLOWABLE.join(", ")));
            return Err(Failure::new(
                Kind::Usage,
                format!("there is no check {name:?}{known}"),
            ));
        }
    }
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
        keep: keep(session, args)?,
    })
}

/// The rules for afterwards; options that are no rule by themselves are refused before anything is
/// taken.
fn keep(session: &Session, args: &BackupArgs) -> Result<Option<Rules>> {
    let configured = &session.config.keep;
    if !args.keep.is_given() {
        let wanted = configured.after_backup && args.flat.is_none();
        let zone = args.keep.time_zone.as_ref();
        return Ok(wanted.then(|| configured.rules(zone)));
    }
    let rules = args.keep.rules();
    rules.check()?;
    if args.flat.is_some() {
        let what = "plain files are no backups that could be pruned";
        return Err(Failure::new(Kind::Usage, what));
    }
    Ok(Some(rules))
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

/// The kernel's name for this host; it goes into the Manifest only.
pub(super) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn text(taken: &Taken) -> String {
    let manifest = &taken.manifest;
    let mut text = String::new();
    let state = if manifest.quality.reasons.is_empty() {
        "good"
    } else {
        "dirty"
    };
    let what = if taken.is_set {
        format!("{} ({state})", manifest.id)
    } else {
        format!("a {state} backup")
    };
    text.push_str(&format!("{what} in {}\n", taken.dir.display()));
    for file in &manifest.files {
        text.push_str(&format!("  {}  {}\n", file.name, HumanBytes(file.size)));
    }
    if let Some(shared) = taken.shared.filter(|shared| *shared > 0) {
        text.push_str(&format!(
            "  {} shared with the backup before\n",
            HumanBytes(shared)
        ));
    }
    text.push_str(&human::reasons(manifest));
    if let Some(pruned) = &taken.pruned {
        text.push_str(&prune::summary(pruned));
    }
    text
}

fn document(taken: &Taken) -> Value {
    let timings = &taken.timings;
    let mut document = json!({
        "result": "taken",
        "directory": taken.dir,
        "isSet": taken.is_set,
        "manifest": taken.manifest,
        "sharedBytes": taken.shared,
        "pruned": taken.pruned,
        "seconds": {
            "snapshot": timings.snapshot.as_secs_f64(),
            "check": timings.check.as_secs_f64(),
            "archives": timings.archives.as_secs_f64(),
        },
    });
    if !taken.problems.is_empty() {
        document["problems"] = json!(taken.problems);
    }
    document
}
