//! `list`: every backup of a store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanBytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::args::ListArgs;
use super::output::table::{Table, nothing, terminal_width};
use super::output::words::{age, ago, span};
use super::output::{error, json};
use super::session::{Session, Shown};
use super::{operation, ranges, remote, sign};
use crate::backup::manifest::Manifest;
use crate::error::{Doing, Fact, Failure, Kind, Result, exit};
use crate::etcd::history::Span;
use crate::finding::printable;
use crate::keep::catalog::{self, BackupSet, Rehearsed, SetSignature, SetState, Verified};
use crate::node::layout::NodeLayout;
use crate::store::local::SET_PREFIX;
use crate::store::objects::Scheme;
use crate::store::{Address, LocalStore};

/// What is listed.
struct Found {
    /// The store, as it is called.
    place: String,
    /// The set that its link leads to.
    latest: Option<String>,
    sets: Vec<BackupSet>,
}

/// Shows every backup of a store.
pub(super) fn run(session: &Session, args: &ListArgs) -> Result<Shown> {
    if args.ranges {
        return ranges::list(session, args);
    }
    let trust = sign::trust(session, &args.signers, &[])?;
    let Found {
        place,
        latest,
        mut sets,
    } = match remote::url(session, args.store.as_deref())? {
        Some(address) => at_url(session, args, &address)?,
        None => in_directory(session, args)?,
    };
    trust.mark(&mut sets);
    let now = session.context.now;
    let newest = catalog::newest_good(&sets, now);
    let age = newest
        .and_then(|set| set.created)
        .map(|created| now.duration_since(created).max(SignedDuration::ZERO));
    let stale = args.stale_after.map(|limit| {
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        age.is_none_or(|age| age > limit)
    });
    let mut remarks = remarks(session, &sets);
    let mut status = exit::DONE;
    if let (Some(true), Some(limit)) = (stale, args.stale_after) {
        remarks.push(staleness(
            newest.map(|set| set.name.as_str()).zip(age),
            limit,
        ));
        status = exit::DIFFERS;
    }
    // Of a thousand sets either is work: the one that is shown is made, and without a tree of values.
    let text = if !session.is_text() {
        let listing = Listing::new(&place, latest.as_deref(), &sets, newest, stale, now);
        json::text(&listing).doing(Kind::Unexpected, || "writing JSON")?
    } else if sets.is_empty() {
        format!("no backups in {place}\n")
    } else {
        let shown = Columns {
            verbose: session.global.verbose > 0,
            signer: trust.is_asked(),
        };
        table(&sets, newest, now, shown)
    };
    Ok(Shown {
        text,
        problems: Vec::new(),
        json: Value::Null,
        remark: (!remarks.is_empty()).then(|| remarks.join("\n")),
        status,
    })
}

/// The sets at a URL: copies, or a directory's own backups.
fn at_url(session: &Session, args: &ListArgs, address: &Address) -> Result<Found> {
    let copies = remote::list(session, address, &args.remote)?;
    let (sets, latest) = match address.scheme() {
        // The directory of a store, and not of copies.
        Scheme::Directory if copies.iter().all(|set| set.state == SetState::Foreign) => {
            let store = LocalStore::at(address.path());
            (catalog::list(&store)?, store.latest())
        }
        _ => (copies, None),
    };
    Ok(Found {
        place: address.to_string(),
        latest,
        sets,
    })
}

/// The sets of a directory: backups, or copies where it holds these.
fn in_directory(session: &Session, args: &ListArgs) -> Result<Found> {
    let store = session.store_to_read(args.store.as_deref())?;
    let mut sets = local_sets(&store, args.store.is_some())?;
    if sets.is_empty() && args.store.is_some() && holds_copies(store.dir()) {
        sets = copies_in(session, &store, args)?;
    }
    Ok(Found {
        place: store.dir().display().to_string(),
        latest: store.latest(),
        sets,
    })
}

/// What is to be said of the sets and of this node besides.
fn remarks(session: &Session, sets: &[BackupSet]) -> Vec<String> {
    let of_set = |set: &BackupSet| -> Vec<String> {
        let problem = |problem: &String| printable(format!("{}: {problem}", set.name));
        let distrust = set.distrust.as_ref();
        let distrust = distrust.map(|d| printable(format!("{}: {} [{}]", set.name, d.why, d.name)));
        set.problems.iter().map(problem).chain(distrust).collect()
    };
    let mut remarks: Vec<String> = sets.iter().flat_map(of_set).collect();
    remarks.extend(future(sets, session.context.now));
    // That this node's operations cannot be read is no reason to show nothing.
    match unfinished(session).and_then(|unfinished| {
        let disabled = operation::disabled(&NodeLayout::new(&session.root))?;
        Ok([unfinished, disabled])
    }) {
        Ok(found) => remarks.extend(found.into_iter().flatten()),
        Err(failure) => remarks.push(error::render("list", &failure)),
    }
    remarks
}

/// What is to be said of operations on this node that are not finished, or not committed.
fn unfinished(session: &Session) -> Result<Option<String>> {
    let layout = NodeLayout::new(&session.root);
    match crate::journal::registry::refuse_while_unfinished(&layout.state()) {
        Err(failure) => Ok(Some(error::render("restore", &failure))),
        Ok(()) => operation::uncommitted(&layout),
    }
}

/// Whether a directory has folders as copies are in, three below each other. Only these are looked
/// at: it may be any directory, and of any size.
pub(super) fn holds_copies(dir: &Path) -> bool {
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    };
    let is_set = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(SET_PREFIX)
    };
    folders(dir)
        .iter()
        .flat_map(|cluster| folders(cluster))
        .any(|node| folders(&node).iter().any(is_set))
}

/// The copies in a directory, as its `file` URL has them.
fn copies_in(session: &Session, store: &LocalStore, args: &ListArgs) -> Result<Vec<BackupSet>> {
    let listing = || format!("listing {}", store.dir().display());
    let dir = store.dir().canonicalize().doing(Kind::Store, listing)?;
    remote::list(session, &Address::of_directory(&dir)?, &args.remote)
}

/// The sets of a directory; the node's own need not exist before the first backup.
fn local_sets(store: &LocalStore, named: bool) -> Result<Vec<BackupSet>> {
    if store.dir().is_symlink() && !store.dir().exists() {
        let target = std::fs::read_link(store.dir()).unwrap_or_default();
        let what = format!(
            "listing {}: it points to {}, which does not exist: is that volume mounted?",
            store.dir().display(),
            target.display()
        );
        return Err(Failure::new(Kind::Store, what).with(Fact::Path(store.dir().to_owned())));
    }
    if store.dir().symlink_metadata().is_ok() {
        return catalog::list(store);
    }
    if !named {
        return Ok(Vec::new());
    }
    let what = format!(
        "listing {}: there is no such directory",
        store.dir().display()
    );
    Err(Failure::new(Kind::Store, what).with(Fact::Path(store.dir().to_owned())))
}

/// The columns of `list` that a narrow terminal does without, the least needed first.
const LESS_NEEDED: [&str; 9] = [
    "REACHABLE",
    "REHEARSED",
    "SHARED",
    "OCP",
    "KEYS",
    "EXPIRES",
    "SIZE",
    "CREATED",
    "VERIFIED",
];

/// Columns that are shown only sometimes.
#[derive(Clone, Copy)]
struct Columns {
    verbose: bool,
    signer: bool,
}

/// Who signed a backup, or why its signature does not count.
fn signer(set: &BackupSet) -> String {
    match (&set.distrust, &set.signer) {
        (Some(distrust), _) => distrust.name.to_owned(),
        (None, Some(signer)) => printable(signer.clone()),
        (None, None) => nothing(),
    }
}

/// When a check was, and that it failed if it did.
fn checked(time: Timestamp, good: bool, now: Timestamp) -> String {
    let when = ago(time, now);
    if good { when } else { format!("FAILED {when}") }
}

/// The head of the table that `list` prints.
fn head(shown: &Columns) -> Vec<&'static str> {
    let mut head = vec![
        "BACKUP", "CREATED", "AGE", "REVISION", "KEYS", "SIZE", "OCP", "QUALITY", "VERIFIED",
        "EXPIRES",
    ];
    head.extend(shown.verbose.then_some("SHARED"));
    head.extend(shown.verbose.then_some("REACHABLE"));
    head.extend(shown.verbose.then_some("REHEARSED"));
    head.extend(shown.signer.then_some("SIGNER"));
    head
}

/// The table that `list` prints.
fn table(sets: &[BackupSet], newest: Option<&BackupSet>, now: Timestamp, shown: Columns) -> String {
    let mut table = Table::new(&head(&shown)).giving_up(&LESS_NEEDED);
    let is_newest = |set: &BackupSet| newest.is_some_and(|newest| newest.name == set.name);
    for set in sets {
        let manifest = set.manifest.as_ref();
        let database = manifest.map(|manifest| &manifest.database);
        let verified = set.verified.as_ref();
        let verified = verified.map(|last| checked(last.time, last.good, now));
        let rehearsed = set.rehearsed.as_ref().map(|last| {
            let when = checked(last.time, last.good, now);
            printable(format!("{when}, etcd {}", last.etcd_version))
        });
        let expiry = manifest.and_then(|manifest| manifest.earliest_certificate_expiry.as_ref());
        let shared = set.shared.map(|bytes| HumanBytes(bytes).to_string());
        let mut row = vec![
            format!("{}{}", set.name, if is_newest(set) { " *" } else { "" }),
            set.created
                .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
                .unwrap_or_else(nothing),
            set.created.map(|at| age(at, now)).unwrap_or_else(nothing),
            database
                .and_then(|db| db.kv_revision)
                .map(|n| n.to_string())
                .unwrap_or_else(nothing),
            database
                .and_then(|db| db.keys)
                .map(|n| n.to_string())
                .unwrap_or_else(nothing),
            HumanBytes(set.size).to_string(),
            manifest
                .and_then(|manifest| manifest.cluster.ocp_version.clone())
                .unwrap_or_else(nothing),
            quality(set),
            verified.unwrap_or_else(nothing),
            expiry
                .map(|expiry| expiry.time.strftime("%Y-%m-%d").to_string())
                .unwrap_or_else(nothing),
        ];
        row.extend(shown.verbose.then(|| shared.unwrap_or_else(nothing)));
        let reachable = || match set.reachable() {
            Some(span) => format!("{} to {}", span.from, span.to),
            None => nothing(),
        };
        row.extend(shown.verbose.then(reachable));
        row.extend(shown.verbose.then(|| rehearsed.unwrap_or_else(nothing)));
        row.extend(shown.signer.then(|| signer(set)));
        table.row(row);
    }
    let width = terminal_width();
    let mut text = table.render(width);
    if width.is_some() && newest.is_some() {
        text.push_str("* the newest good backup\n");
    }
    text
}

/// The quality column: the state, what makes it so, and whether it is pinned.
fn quality(set: &BackupSet) -> String {
    let pinned = if set.pinned { ", pinned" } else { "" };
    format!("{}{pinned}", state(set))
}

fn state(set: &BackupSet) -> String {
    match set.state {
        SetState::Dirty => {
            let reasons = set
                .manifest
                .iter()
                .flat_map(|manifest| &manifest.quality.reasons);
            let names: Vec<_> = reasons.map(|reason| reason.check.as_str()).collect();
            format!("dirty ({})", names.join(", "))
        }
        SetState::Foreign if set.marked_dirty => "foreign, dirty".to_owned(),
        state => state.word().to_owned(),
    }
}

/// What is to be said of times that have not come.
fn future(sets: &[BackupSet], now: Timestamp) -> Vec<String> {
    let mut told = Vec::new();
    for set in sets {
        let name = printable(set.name.clone());
        if let Some(created) = set.created.filter(|_| set.is_future(now)) {
            told.push(format!(
                "{name}: its time, {created}, is in the future: the clock was wrong then, or is wrong now; until that time it does not count as a backup, and prune keeps it"
            ));
        }
        if set.is_verified_in_future(now) {
            told.push(format!(
                "{name}: the time of its last verification is in the future: it counts as never verified"
            ));
        }
    }
    told
}

/// What `--stale-after` found.
fn staleness(newest: Option<(&str, SignedDuration)>, limit: Duration) -> String {
    let limit = span(limit.as_secs());
    match newest {
        Some((name, age)) => {
            format!(
                "stale: the newest good backup, {name}, is {} old; the limit is {limit}",
                span(age.as_secs().unsigned_abs())
            )
        }
        None => format!("stale: there is no good backup; the limit is {limit}"),
    }
}

/// What `list` knows, as its document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing<'a> {
    command: &'static str,
    latest: Option<&'a str>,
    newest_good: Option<&'a str>,
    schema_version: u32,
    sets: Vec<Set<'a>>,
    stale: Option<bool>,
    store: &'a str,
}

/// One set of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Set<'a> {
    created: Option<Timestamp>,
    directory: &'a Path,
    files: Files<'a>,
    from_the_future: bool,
    latest: bool,
    manifest: Option<&'a Manifest>,
    marked_dirty: bool,
    name: &'a str,
    pinned: bool,
    problems: &'a [String],
    reachable: Option<Span>,
    rehearsed: Option<&'a Rehearsed>,
    shared_bytes: Option<u64>,
    signature: Signed<'a>,
    size: u64,
    state: SetState,
    verified: Option<&'a Verified>,
}

/// Its signature, and what the allowed signers say of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Signed<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
}

#[derive(Serialize)]
struct Files<'a> {
    certificates: Option<&'a Path>,
    resources: Option<&'a Path>,
    snapshot: Option<&'a Path>,
}

impl<'a> Listing<'a> {
    /// The sets of a store.
    fn new(
        store: &'a str,
        latest: Option<&'a str>,
        sets: &'a [BackupSet],
        newest: Option<&'a BackupSet>,
        stale: Option<bool>,
        now: Timestamp,
    ) -> Self {
        Self {
            command: "list",
            latest,
            newest_good: newest.map(|set| set.name.as_str()),
            schema_version: json::SCHEMA_VERSION,
            sets: sets.iter().map(|set| Set::new(set, now)).collect(),
            stale,
            store,
        }
    }
}

impl<'a> Signed<'a> {
    fn new(set: &'a BackupSet) -> Self {
        let (state, key, why) = match &set.signature {
            SetSignature::None => ("none", None, None),
            SetSignature::Fits(signature) => ("fits", Some(signature.fingerprint()), None),
            SetSignature::Bad(why) => ("bad", None, Some(why.as_str())),
        };
        let distrust = set.distrust.as_ref();
        Self {
            state,
            key,
            why: distrust.map(|distrust| distrust.why.as_str()).or(why),
            signer: set.signer.as_deref(),
            refusal: distrust.map(|distrust| distrust.name),
        }
    }
}

impl<'a> Set<'a> {
    fn new(set: &'a BackupSet, now: Timestamp) -> Self {
        let files = &set.files;
        Self {
            created: set.created,
            directory: &set.dir,
            files: Files {
                certificates: files.certificates.as_deref(),
                resources: files.resources.as_deref(),
                snapshot: files.snapshot.as_deref(),
            },
            from_the_future: set.is_future(now),
            latest: set.latest,
            manifest: set.manifest.as_ref(),
            marked_dirty: set.marked_dirty,
            name: &set.name,
            pinned: set.pinned,
            problems: &set.problems,
            reachable: set.reachable(),
            rehearsed: set.rehearsed.as_ref(),
            shared_bytes: set.shared,
            signature: Signed::new(set),
            size: set.size,
            state: set.state,
            verified: set.verified.as_ref(),
        }
    }
}
