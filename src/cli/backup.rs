//! `backup`: arguments, configuration and environment to a request, its result to text and JSON.

use std::num::NonZeroU64;
use std::time::Duration;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::args::{BackupArgs, parse_duration, parse_size};
use super::run::{Session, Shown};
use super::{config, human, machine, prune, target};
use crate::backup::retention::Rules;
use crate::error::{Failure, Kind, Result, exit};
use crate::ops::backup::{self, BackupRequest, Destination, Outcome, Taken};
use crate::ops::quality::{ALLOWABLE, Allowed};

/// How long nothing may come of a snapshot, unless told.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes a backup.
pub(super) fn run(session: &Session, args: &BackupArgs) -> Result<Shown> {
    let request = request(session, args)?;
    let outcome = session.block_on(backup::run(&session.context, &request))?;
    Ok(match outcome {
        Outcome::YoungEnough { name, age } => {
            let age = age.as_secs().unsigned_abs();
            Shown::done(
                format!("nothing to do: {name} is {} old\n", human::span(age)),
                machine::document(
                    "backup",
                    &json!({"result": "young-enough", "set": name, "ageSeconds": age}),
                ),
            )
        }
        Outcome::Taken(taken) => shown(&taken),
    })
}

/// What was taken, and what came of what followed: a failure there leaves the backup as it is.
fn shown(taken: &Taken) -> Shown {
    let problems = taken.pruned.as_ref().map(prune::problems);
    let remark = problems.filter(|problems| !problems.is_empty());
    Shown {
        text: text(taken),
        json: machine::document("backup", &document(taken)),
        status: if remark.is_some() {
            exit::PARTIAL
        } else {
            exit::DONE
        },
        remark,
    }
}

fn request(session: &Session, args: &BackupArgs) -> Result<BackupRequest> {
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
    let usage = |what: String| Failure::new(Kind::Usage, what);
    let max_rate = match (args.max_rate, &configured.max_rate) {
        (Some(rate), _) => Some(rate),
        (None, Some(text)) => Some(parse_size(text).map_err(usage)?),
        (None, None) => None,
    };
    let stall_timeout = match (args.stall_timeout, &configured.stall_timeout) {
        (Some(time), _) => time,
        (None, Some(text)) => parse_duration(text).map_err(usage)?,
        (None, None) => STALL_TIMEOUT,
    };
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
        stall_timeout,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        privileged: rustix::process::geteuid().is_root(),
        pin: args.pin,
        keep: keep(args)?,
    })
}

/// The rules for afterwards; options that are no rule by themselves are refused before anything is
/// taken.
fn keep(args: &BackupArgs) -> Result<Option<Rules>> {
    if !args.keep.is_given() {
        return Ok(None);
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
fn host_name() -> String {
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
    text.push_str(&human::reasons(manifest));
    if let Some(pruned) = &taken.pruned {
        text.push_str(&prune::summary(pruned));
    }
    text
}

fn document(taken: &Taken) -> Value {
    let timings = &taken.timings;
    json!({
        "result": "taken",
        "directory": taken.dir,
        "isSet": taken.is_set,
        "manifest": taken.manifest,
        "pruned": taken.pruned,
        "seconds": {
            "snapshot": timings.snapshot.as_secs_f64(),
            "check": timings.check.as_secs_f64(),
            "archives": timings.archives.as_secs_f64(),
        },
    })
}
