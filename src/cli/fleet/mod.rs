//! `list --fleet`: a line for each cluster and node of some stores.

mod page;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt};
use indicatif::HumanBytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::args::{ListArgs, OutputArg};
use super::given::file;
use super::list::holds_copies;
use super::output::json;
use super::output::table::{Table, nothing, terminal_width};
use super::output::words::{ago, span};
use super::recorded::chains;
use super::session::{Session, Shown};
use super::{remote, sign};
use crate::error::{Doing, Kind, Result, exit};
use crate::keep::catalog;
use crate::keep::fleet::{self, Expected, Fleet, Line, Recorded, Rules, State};
use crate::keep::metrics::{self, fleet::FleetMetrics};
use crate::keep::trust::Trust;
use crate::store::{Address, LocalStore, Settings, objects};
use crate::sys::quote::printable;

/// The oldest that the newest good backup may be: a daily one, and an hour for it.
const STALE_AFTER: SignedDuration = SignedDuration::from_hours(25);

/// Stores that are read at a time.
const STORES_AT_A_TIME: usize = 8;

/// The change of size from which on a backup counts as shrunk, as in the alert's rule.
const LESS_THAN: f64 = -0.5;

/// The result for one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    /// The store, as it is called.
    store: String,
    /// What of it could not be read, and why.
    pub(super) problems: Vec<String>,
}

/// The document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    command: &'static str,
    schema_version: u32,
    time: Timestamp,
    stale_after_seconds: i64,
    stores: &'a [Seen],
    fleet: &'a [Line],
}

/// Shows the clusters of all stores.
pub(super) fn run(session: &Session, args: &ListArgs) -> Result<Shown> {
    let trust = sign::trust(session, &args.signers, &[])?;
    let expected = match &args.expect {
        Some(path) => Some(
            fleet::parse_expected(&file(path)?)
                .map_err(|failure| failure.doing(format!("reading {}", path.display())))?,
        ),
        None => None,
    };
    let settings = remote::settings(session, &args.remote)?;
    let named = args.store.iter().chain(&args.more).map(PathBuf::as_path);
    let named: Vec<&Path> = named.collect();
    let (found, stores) = look(session, &named, &trust, &settings)?;
    let now = session.context.now;
    let stale_after = args.stale_after.map_or(STALE_AFTER, |limit| {
        SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX)
    });
    let rules = Rules {
        expected: expected.as_deref(),
        stale_after,
        now,
    };
    let lines = found.lines(&rules);
    if let Some(path) = &args.textfile {
        let unread = stores
            .iter()
            .map(|seen| (seen.store.as_str(), seen.problems.is_empty()));
        let text = FleetMetrics::new(&lines, unread, now).render()?;
        metrics::textfile(&text, path)?;
    }
    let document = Document {
        command: "list",
        schema_version: json::SCHEMA_VERSION,
        time: now,
        stale_after_seconds: stale_after.as_secs(),
        stores: &stores,
        fleet: &lines,
    };
    shown(session, &document, expected.as_deref(), stale_after)
}

fn shown(
    session: &Session,
    document: &Document<'_>,
    expected: Option<&[Expected]>,
    stale_after: SignedDuration,
) -> Result<Shown> {
    let (lines, now) = (document.fleet, document.time);
    let text = match session.global.output {
        OutputArg::Json => json::text(document).doing(Kind::Unexpected, || "writing JSON")?,
        OutputArg::Html => page::page(
            lines,
            document.stores.iter().flat_map(|seen| &seen.problems),
            stale_after,
            now,
        ),
        _ if lines.is_empty() => "no backups\n".to_owned(),
        _ => table(lines, now),
    };
    let problems = document.stores.iter().flat_map(|seen| &seen.problems);
    let mut remarks: Vec<String> = problems.cloned().map(printable).collect();
    let unread = !remarks.is_empty();
    let failing = lines.iter().filter(|line| is_failing(line));
    remarks.extend(failing.map(|line| remark(line, stale_after)));
    remarks.extend(lines.iter().filter_map(gap));
    let other = |line: &&Line| expected.is_some() && !line.expected && line.state != State::Ok;
    let others = lines.iter().filter(other).count();
    if others > 0 {
        remarks.push(format!(
            "{others} lines that the file does not name are not ok either"
        ));
    }
    Ok(Shown {
        remark: (!remarks.is_empty()).then(|| remarks.join("\n")),
        // What could not be read may have what seems to be missing.
        status: match lines.iter().any(is_failing) {
            _ if unread => exit::NOT_CHECKED,
            true => exit::DIFFERS,
            false => exit::DONE,
        },
        ..Shown::done(text, serde_json::Value::Null)
    })
}

/// Whether a line decides the exit status.
fn is_failing(line: &Line) -> bool {
    line.expected && matches!(line.state, State::Absent | State::Stale)
}

/// Reads all stores side by side, and the clusters of each. None named: this node's.
///
/// # Errors
/// [`Kind::Usage`] if a name cannot be meant. What a store fails with is in the result.
pub(super) fn look(
    session: &Session,
    named: &[&Path],
    trust: &Trust,
    settings: &Settings,
) -> Result<(Fleet, Vec<Seen>)> {
    let named: Vec<Option<&Path>> = match named {
        [] => vec![None],
        named => named.iter().copied().map(Some).collect(),
    };
    let places: Vec<Place> = named
        .into_iter()
        .map(|named| place(session, named))
        .collect::<Result<_>>()?;
    session.block_on(async {
        let reading = places
            .iter()
            .map(|place| look_at(session, place, (trust, settings)));
        let mut reading = futures_util::stream::iter(reading).buffered(STORES_AT_A_TIME);
        let (mut fleet, mut stores) = (Fleet::default(), Vec::new());
        while let Some((found, seen)) = reading.try_next().await? {
            // In their order: of a backup that two stores have, the first one's is named.
            fleet.merge(found);
            stores.push(seen);
        }
        Ok((fleet, stores))
    })
}

/// Where one store's backups are.
enum Place {
    /// Copies, in a remote store or a directory of them.
    Copies(Address),
    /// A directory of backups, and what it is called.
    Local(LocalStore, String),
}

fn place(session: &Session, named: Option<&Path>) -> Result<Place> {
    if let Some(address) = remote::url(session, named)? {
        return Ok(Place::Copies(address));
    }
    let store = session.store_to_read(named)?;
    let name = store.dir().display().to_string();
    if !holds_copies(store.dir()) {
        return Ok(Place::Local(store, name));
    }
    let dir = store
        .dir()
        .canonicalize()
        .doing(Kind::Store, || format!("opening {name}"))?;
    Address::of_directory(&dir).map(Place::Copies)
}

async fn look_at(
    session: &Session,
    place: &Place,
    (trust, settings): (&Trust, &Settings),
) -> Result<(Fleet, Seen)> {
    let now = session.context.now;
    let mut fleet = Fleet::default();
    let address = match place {
        Place::Copies(address) => address,
        Place::Local(store, name) => {
            let seen = local(session, (store, name), trust, &mut fleet);
            return Ok((fleet, seen));
        }
    };
    let looking = async {
        let store = objects::open(address, settings).await?;
        fleet::look(&mut fleet, store.as_ref(), trust, now).await
    };
    let problems = match session.context.cancel.guard(looking).await {
        Ok(gaps) => gaps
            .into_iter()
            .map(|gap| format!("{}: {}", gap.place, gap.why))
            .collect(),
        Err(failure) if failure.kind() == Kind::Store => vec![failure.to_string()],
        Err(failure) => return Err(failure),
    };
    let seen = Seen {
        store: address.to_string(),
        problems,
    };
    Ok((fleet, seen))
}

/// A directory's own backups.
fn local(
    session: &Session,
    (store, name): (&LocalStore, &str),
    trust: &Trust,
    fleet: &mut Fleet,
) -> Seen {
    let read = catalog::list(store).and_then(|sets| Ok((sets, chains(session, store)?)));
    let problems = match read {
        Ok((mut sets, chains)) => {
            trust.mark(&mut sets);
            let recorded = BTreeMap::from([(String::new(), chains)]);
            fleet.add(name, sets, &recorded, session.context.now);
            Vec::new()
        }
        Err(failure) => vec![failure.to_string()],
    };
    Seen {
        store: name.to_owned(),
        problems,
    }
}

/// What a line is called.
fn called(line: &Line) -> String {
    let cluster = line.label.as_deref().unwrap_or(&line.cluster);
    match &line.node {
        Some(node) => format!("{cluster}/{node}"),
        None => cluster.to_owned(),
    }
}

fn remark(line: &Line, limit: SignedDuration) -> String {
    let limit = span(limit.as_secs().unsigned_abs());
    let name = called(line);
    printable(match (&line.newest, line.age_seconds) {
        (Some(newest), Some(age)) => format!(
            "stale: {name}: the newest good backup, {}, is {} old; the limit is {limit}",
            newest.name,
            span(age.unsigned_abs())
        ),
        _ => format!(
            "{}: {name}: {}",
            line.state.word(),
            line.why.as_deref().unwrap_or_default()
        ),
    })
}

/// What cannot be restored between recorded changes.
fn gap(line: &Line) -> Option<String> {
    let gaps = &line.recorded.as_ref()?.gaps;
    let first = gaps.first()?;
    let more = match gaps.len() {
        1 => String::new(),
        all => format!(", and {} more gaps", all - 1),
    };
    Some(printable(format!(
        "gap: {}: revisions {} to {} cannot be restored{more}",
        called(line),
        first.from,
        first.to
    )))
}

/// What was recorded, in short: how long ago the last of it came, and whether anything is missing.
fn recorded(recorded: &Recorded, now: Timestamp) -> String {
    let ago = ago(recorded.until, now);
    match recorded.gaps.len() {
        0 => ago,
        1 => format!("{ago}, 1 gap"),
        gaps => format!("{ago}, {gaps} gaps"),
    }
}

/// The columns that a narrow terminal does without, the least needed first.
const LESS_NEEDED: [&str; 8] = [
    "ETCD",
    "OCP",
    "REACHABLE",
    "EXPIRES",
    "SIGNER",
    "CHANGE",
    "REHEARSED",
    "SIZE",
];

fn table(lines: &[Line], now: Timestamp) -> String {
    let signed = lines.iter().filter_map(|line| line.newest.as_ref());
    let signed = signed.filter(|newest| newest.signer.is_some()).count() > 0;
    let any_recorded = lines.iter().any(|line| line.recorded.is_some());
    let mut head = vec![
        "CLUSTER",
        "NODE",
        "STATE",
        "AGE",
        "VERIFIED",
        "REHEARSED",
        "SIZE",
        "CHANGE",
        "REACHABLE",
        "ETCD",
        "OCP",
        "EXPIRES",
    ];
    head.extend(any_recorded.then_some("RECORDED"));
    head.extend(signed.then_some("SIGNER"));
    let mut table = Table::new(&head).giving_up(&LESS_NEEDED);
    for line in lines {
        let newest = line.newest.as_ref();
        let text = |text: Option<String>| text.unwrap_or_else(nothing);
        let proof =
            |proof: &Option<fleet::Proof>| text(proof.as_ref().map(|proof| ago(proof.time, now)));
        let mut row = vec![
            line.label.clone().unwrap_or_else(|| line.cluster.clone()),
            text(line.node.clone()),
            line.state.word().to_owned(),
            text(line.age_seconds.map(|age| span(age.unsigned_abs()))),
            proof(&line.verified),
            proof(&line.rehearsed),
            text(newest.map(|newest| HumanBytes(newest.size).to_string())),
            text(line.size_change.map(percent)),
            text(
                newest
                    .and_then(|newest| newest.reachable)
                    .map(|span| format!("{} to {}", span.from, span.to)),
            ),
            text(newest.and_then(|newest| newest.etcd_version.clone())),
            text(newest.and_then(|newest| newest.ocp_version.clone())),
            text(newest.and_then(expires)),
        ];
        row.extend(any_recorded.then(|| text(line.recorded.as_ref().map(|it| recorded(it, now)))));
        row.extend(signed.then(|| text(newest.and_then(|newest| newest.signer.clone()))));
        table.row(row);
    }
    table.render(terminal_width())
}

/// The day on which the first certificate of a backup expires.
fn expires(newest: &fleet::Newest) -> Option<String> {
    let at = newest.certificate_expiry?;
    Some(at.strftime("%Y-%m-%d").to_string())
}

/// A change as `+3 %`.
fn percent(change: f64) -> String {
    format!("{:+.0} %", change * 100.0)
}
