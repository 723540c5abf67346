//! `verify`: which sets, and what was found of each.

mod chain;
mod cluster;
mod compare;
mod data_dir;
mod fleet;
pub(in crate::cli) mod rehearse;
mod upgrade;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::args::VerifyArgs;
use super::brought::{Brought, Reached, bring};
use super::output::{json, layers, words};
use super::session::{Session, Shown, scratch};
use super::{ranges, remote, sign, target};
use crate::backup::names::MANIFEST;
use crate::change::rehearse::Rehearsal;
use crate::error::{Failure, Kind, Result, exit};
use crate::event::Event;
use crate::inspect::live::{self, Live};
use crate::inspect::verify::{self, Report};
use crate::keep::catalog::{self, BackupSet, SetState};
use crate::keep::{foreign, remote as sets};
use crate::store::Address;
use crate::sys::quote::printable;

/// Checks what is meant.
pub(super) fn run(session: &Session, args: &VerifyArgs) -> Result<Shown> {
    if let Some(release) = &args.upgrade_to {
        return upgrade::run(session, release, args.data_dir.as_deref());
    }
    if args.cluster {
        return cluster::run(session, args.data_dir.as_deref());
    }
    if !args.compare.is_empty() {
        return compare::run(&args.compare);
    }
    if args.chain {
        return chain::run(session, args);
    }
    if args.fleet {
        return fleet::run(session, args);
    }
    if args.ranges {
        return ranges::verify(session, args);
    }
    if args.sets.iter().any(|word| Address::is_url(word)) {
        return away(session, args);
    }
    let trust = sign::trust_only(session, &args.source.trust)?;
    let store = session.store_to_read(args.source.store.as_deref())?;
    if let Some(dir) = &args.data_dir {
        return data_dir::run(session, dir, args.wal_dir.as_deref(), &store);
    }
    let mut passed_over = Vec::new();
    let sets: Vec<BackupSet> = if args.all {
        let (sets, unmade): (Vec<_>, Vec<_>) = catalog::list(&store)?.into_iter().partition(made);
        passed_over = unmade;
        sets
    } else {
        args.sets
            .iter()
            .map(|word| catalog::resolve_marked(&store, word, |sets| trust.mark(sets)))
            .collect::<Result<_>>()?
    };
    if sets.is_empty() {
        let what = format!("there is no backup in {}", store.dir().display());
        return Err(Failure::new(Kind::Usage, what));
    }
    sets.iter().try_for_each(|set| trust.admit(set))?;
    let mut checked = Vec::new();
    for set in sets {
        let name = set.name.clone();
        let one = check(session, set, args, &scratch(args.source.scratch.as_deref()));
        checked.push(one.map_err(|failure| failure.doing(format!("verifying {name}")))?);
    }
    Ok(shown(session, &checked, remark(&passed_over)))
}

/// What was found of one set.
struct Checked {
    report: Report,
    live: Option<Live>,
    rehearsal: Option<Rehearsal>,
}

/// What was found of several sets.
fn shown(session: &Session, checked: &[Checked], remark: Option<String>) -> Shown {
    let good = checked.iter().all(|one| one.report.good);
    let text: Vec<String> = checked.iter().map(|one| text(one, session)).collect();
    let sets: Vec<Value> = checked.iter().map(document).collect();
    let status = checked
        .iter()
        .map(|one| status(one.report.good, one.live.as_ref()));
    Shown {
        text: text.join("\n"),
        problems: Vec::new(),
        json: json::document("verify", &json!({"good": good, "sets": sets})),
        remark,
        status: status
            .min_by_key(|status| SEVERITY.iter().position(|worse| worse == status))
            .unwrap_or(exit::DONE),
    }
}

/// Brings each set here, checks it, and leaves nothing of it.
fn away(session: &Session, args: &VerifyArgs) -> Result<Shown> {
    let settings = remote::settings(session, &args.source.remote)?;
    let trust = &sign::trust_only(session, &args.source.trust)?;
    let reached = Reached::of(&args.source, trust);
    let scratch = &scratch(args.source.scratch.as_deref());
    let mut checked = Vec::new();
    for word in &args.sets {
        let address = Address::parse(word)?;
        let brought = bring(session, &address, &reached, sets::Part::Whole, "verify");
        let Brought { set, there, here } =
            brought.map_err(|failure| failure.doing(format!("verifying {address}")))?;
        let set = BackupSet {
            name: there.dir.display().to_string(),
            ..set
        };
        checked.push(check(session, set, args, scratch)?);
        if there.state == SetState::Foreign {
            continue;
        }
        let recorded = session.block_on(async {
            let (store, set) = remote::resolve(session, &address, &settings, trust).await?;
            sets::record(store.as_ref(), &set.name, here.path(), session.context.now).await
        });
        if let Err(failure) = recorded {
            let note = format!("the result is not recorded: {failure}");
            session.context.tell(Event::Note(note));
        }
    }
    Ok(shown(session, &checked, None))
}

/// Whether it is a backup at all, whole or broken: what is being made, or is the rest of one that
/// never was, is nobody's.
fn made(set: &BackupSet) -> bool {
    set.state != SetState::Incomplete || set.dir.join(MANIFEST).exists()
}

/// Which were passed over, and why.
fn remark(sets: &[BackupSet]) -> Option<String> {
    let line = |set: &BackupSet| {
        printable(format!(
            "{} is not a backup: {}",
            set.name,
            set.problems.join("; ")
        ))
    };
    (!sets.is_empty()).then(|| sets.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Of several sets' statuses the first of these is the command's.
const SEVERITY: [u8; 4] = [
    exit::BAD_BACKUP,
    exit::DIFFERS,
    exit::NOT_CHECKED,
    exit::DONE,
];

fn status(good: bool, live: Option<&Live>) -> u8 {
    match live {
        _ if !good => exit::BAD_BACKUP,
        Some(Live::Differs { .. }) => exit::DIFFERS,
        Some(Live::NotChecked { .. }) => exit::NOT_CHECKED,
        _ => exit::DONE,
    }
}

/// Checks one set, and rehearses it and compares it with the running member where that is asked for.
fn check(session: &Session, set: BackupSet, args: &VerifyArgs, scratch: &Path) -> Result<Checked> {
    let (set, _unpacked) = foreign::unpacked(&session.context, set, scratch)?;
    let checking = set.clone();
    let mut report = session.blocking(move |context| verify::run(&context, &checking))?;
    let live = match args.live {
        true => Some(compared(session, &set, &report)?),
        false => None,
    };
    let rehearsal = match args.rehearse.rehearse {
        true => rehearse::run(session, &args.rehearse, set, &mut report, scratch)?,
        false => None,
    };
    Ok(Checked {
        report,
        live,
        rehearsal,
    })
}

/// Compares a set with the running member.
fn compared(session: &Session, set: &BackupSet, report: &Report) -> Result<Live> {
    let cluster = set
        .manifest
        .as_ref()
        .map(|manifest| manifest.cluster.etcd_id.clone());
    let snapshot = set.files.snapshot.clone();
    let hash = report
        .database
        .as_ref()
        .and_then(|database| database.hash_kv);
    let (Some(snapshot), Some(hash)) = (snapshot, hash) else {
        let detail = "the snapshot has no HashKV".to_owned();
        return Ok(Live::NotChecked { detail });
    };
    let target = target::target(session)?;
    let compared = live::compare(
        &session.context,
        &target,
        &snapshot,
        hash,
        cluster.as_deref(),
    );
    session.block_on(compared)
}

fn document(checked: &Checked) -> Value {
    let mut value = json!(checked.report);
    if let Some(live) = &checked.live {
        value["live"] = json!(live);
    }
    if let Some(rehearsal) = &checked.rehearsal {
        value["rehearsal"] = json!(rehearsal);
    }
    value
}

fn text(checked: &Checked, session: &Session) -> String {
    let report = &checked.report;
    let mut text = layers::head(&report.set, report.good);
    layers::layers(&mut text, &report.layers, &report.findings);
    if let Some(rehearsal) = &checked.rehearsal {
        rehearse::text(&mut text, rehearsal);
    }
    let compared = checked.live.as_ref().map(|live| match live {
        Live::Same { detail } => (console::style("same").green(), detail),
        Live::Differs { detail } => (console::style("DIFFERS").red().bold(), detail),
        Live::NotChecked { detail } => (console::style("not checked").yellow(), detail),
    });
    if let Some((state, detail)) = compared {
        let _ = writeln!(text, "  {:<12} {state}  {detail}", "live");
    }
    if let Some(database) = report.database.as_deref() {
        layers::describe(&mut text, database);
    }
    for with in &report.encrypted {
        let verdict = match &with.why {
            None => console::style("can be decrypted with the backup's own key".to_owned()).green(),
            Some(why) => console::style(format!("CANNOT BE DECRYPTED: {why}")).red(),
        };
        let (key, under) = (printable(with.key.clone()), printable(with.under.clone()));
        let _ = writeln!(
            text,
            "  encrypted    {} objects under {under} by {key}: {verdict}",
            with.objects
        );
    }
    if let Some(expiry) = &report.earliest_certificate_expiry {
        let left = expiry.time.duration_since(session.context.now).as_secs();
        let when = if left < 0 {
            "expired".to_owned()
        } else {
            format!("in {}", words::span(left.unsigned_abs()))
        };
        let _ = writeln!(
            text,
            "  first certificate to expire: {} {when} ({}, {})",
            expiry.time,
            printable(expiry.subject.clone()),
            printable(expiry.path.clone())
        );
    }
    text
}
