//! What the options of `restore` ask for.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::args::{Bump as BumpArg, RestoreArgs};
use super::super::brought::{Reached, bring};
use super::super::recorded::chains;
use super::super::session::{Session, scratch};
use super::super::{allow, remote, sign};
use super::away;
use crate::change::datadir;
use crate::change::dir_options::DirOptions;
use crate::change::transaction::served;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::history::{Moment, Target, UNREACHABLE};
use crate::etcd::restore::{Bump, Evidence, SLACK};
use crate::keep::catalog::{self, BackupSet};
use crate::keep::ranges::{Continuation, Recorded, continuation};
use crate::keep::remote::Identities;
use crate::keep::{backup, foreign, reach, remote as sets, trust};
use crate::node::layout::NodeLayout;
use crate::store::{Address, LocalStore, Store};
use crate::sys::scratch::Scratch;

/// A set that is named, and the folder it was brought to for this run only.
pub(super) struct Named {
    pub(super) set: BackupSet,
    /// The revision to restore to, if one is asked for.
    pub(super) to: Option<Moment>,
    /// The recorded changes that are applied for that.
    pub(super) recorded: Option<Recorded>,
    /// Where changes were brought to, if not to the node's own store.
    changes: Option<LocalStore>,
    /// The backups beside it in another store: a later one proves recorded changes.
    beside: Vec<BackupSet>,
    _brought: Option<Scratch>,
    _unpacked: Option<Scratch>,
}

impl Named {
    /// A set whose snapshot can be read: what another program packed is unpacked first.
    fn new(
        session: &Session,
        args: &RestoreArgs,
        set: BackupSet,
        brought: Option<Scratch>,
    ) -> Result<Self> {
        let scratch = scratch(args.scratch.as_deref());
        let (set, unpacked) = foreign::unpacked(&session.context, set, &scratch)?;
        Ok(Self {
            set,
            to: None,
            recorded: None,
            changes: None,
            beside: Vec::new(),
            _brought: brought,
            _unpacked: unpacked,
        })
    }
}

/// Finds the set that is named. One in another store is brought here: to this node's own store,
/// where `keep` is wanted, or to a folder that goes with this run.
pub(super) fn find(session: &Session, args: &RestoreArgs, keep: bool) -> Result<Named> {
    let word = set(args)?;
    let Some(target) = to(args, session.context.now) else {
        return named(session, args, word, keep);
    };
    if word == LATEST {
        let store = session.store_to_read(args.store.as_deref())?;
        let trust = sign::trust(session, &args.signers, &args.allow)?;
        let mut sets = catalog::list(&store)?;
        trust.mark(&mut sets);
        let chains = chains(session, &store)?;
        let (set, reached) = reach::newest(sets, &chains, &target, session.context.now)?;
        trust.check_set(&set)?;
        return Ok(Named {
            set,
            to: Some(reached.moment),
            recorded: reached.recorded,
            changes: None,
            beside: Vec::new(),
            _brought: None,
            _unpacked: None,
        });
    }
    let trust = sign::trust(session, &args.signers, &args.allow)?;
    let several = away::candidates(session, args, word, &target, &trust)?;
    let words = several.unwrap_or_else(|| vec![word.to_owned()]);
    let mut refused = None;
    for word in words {
        let named = named(session, args, &word, keep)?;
        match reaching(session, args, named, &target) {
            Err(failure) if failure.refusal() == Some(UNREACHABLE) => {
                refused.get_or_insert(failure);
            }
            came => return came,
        }
    }
    Err(refused.unwrap_or_else(|| Failure::new(Kind::Unexpected, "no backup was tried")))
}

/// A set with the moment that is asked for.
fn reaching(
    session: &Session,
    args: &RestoreArgs,
    mut named: Named,
    target: &Target,
) -> Result<Named> {
    let store = match &named.changes {
        Some(store) => store.clone(),
        None => session.store_to_read(args.store.as_deref())?,
    };
    let continued = continued(session, args, &store, &named)?;
    let reached = reach::moment(&named.set, target, continued.as_ref())?;
    named.to = Some(reached.moment);
    named.recorded = reached.recorded;
    Ok(named)
}

/// The changes that the store has after a backup.
fn continued(
    session: &Session,
    args: &RestoreArgs,
    store: &LocalStore,
    named: &Named,
) -> Result<Option<Continuation>> {
    let chains = chains(session, store)?;
    if chains.is_empty() {
        return Ok(None);
    }
    let mut sets = catalog::list(store)?;
    sets.extend(named.beside.iter().cloned());
    sign::trust(session, &args.signers, &args.allow)?.mark(&mut sets);
    Ok(continuation(&chains, &sets, &named.set))
}

/// The newest good backup.
const LATEST: &str = "latest";

/// The moment that is asked for.
fn to(args: &RestoreArgs, now: Timestamp) -> Option<Target> {
    let revision = args.to_revision.map(Target::Revision);
    let time = || args.to_time.map(|when| Target::Time(when.time(now)));
    let before = || args.to_before.clone().map(Target::Before);
    revision.or_else(time).or_else(before)
}

fn named(session: &Session, args: &RestoreArgs, word: &str, keep: bool) -> Result<Named> {
    let trust = &sign::trust(session, &args.signers, &args.allow)?;
    if !Address::is_url(word) {
        let store = session.store_to_read(args.store.as_deref())?;
        let set = trust.resolve(&store, word)?;
        return Named::new(session, args, set, None);
    }
    let address = Address::parse(word)?;
    let settings = remote::settings(session, &args.remote)?;
    let identities = remote::identities(&args.identity)?;
    if keep {
        let context = &session.context;
        let store = session.store_to_read(args.store.as_deref())?;
        if args.store.is_none() && session.config.store.is_none() {
            backup::make_default_store(&NodeLayout::new(&session.root))?;
        }
        let (id, beside) = session.block_on(async {
            let (from, set) = remote::resolve(session, &address, &settings, trust).await?;
            let from = from.as_ref();
            let keys = identities.clone();
            let id = sets::import(context, from, &set.name, &store, keys, trust).await?;
            let beside = bring_changes(session, args, from, &set, &store, identities).await?;
            Ok((id, beside))
        })?;
        let set = catalog::resolve(&store, &id.to_string())?;
        let named = Named::new(session, args, set, None)?;
        return Ok(Named { beside, ..named });
    }
    let part = match args.data_dir {
        Some(_) => sets::Part::Data,
        None => sets::Part::Whole,
    };
    let reached = Reached {
        store: args.store.as_deref(),
        scratch: args.scratch.as_deref(),
        identity: &args.identity,
        remote: &args.remote,
        trust,
    };
    let brought = bring(session, &address, &reached, part, "fetch")?;
    let into = LocalStore::at(brought.here.path());
    let beside = match to(args, session.context.now) {
        Some(_) => session.block_on(async {
            let (from, set) = remote::resolve(session, &address, &settings, trust).await?;
            bring_changes(session, args, from.as_ref(), &set, &into, identities).await
        })?,
        None => Vec::new(),
    };
    let named = Named::new(session, args, brought.set, Some(brought.here))?;
    Ok(Named {
        changes: Some(into),
        beside,
        ..named
    })
}

/// Brings the changes that were recorded after a backup in another store, if a moment is asked for; the
/// backups there that may prove them.
async fn bring_changes(
    session: &Session,
    args: &RestoreArgs,
    from: &dyn Store,
    set: &BackupSet,
    into: &LocalStore,
    identities: Arc<Identities>,
) -> Result<Vec<BackupSet>> {
    let manifest = set.manifest.as_ref();
    let after = manifest.and_then(|manifest| manifest.database.kv_revision);
    let (Some(_), Some(after), Some((node, _))) = (
        to(args, session.context.now),
        after,
        set.name.rsplit_once('/'),
    ) else {
        return Ok(Vec::new());
    };
    let brought = sets::bring_changes(&session.context, from, node, after, into, identities);
    match brought.await? {
        0 => Ok(Vec::new()),
        _ => sets::list(from, node).await,
    }
}

/// The set that is named.
fn set(args: &RestoreArgs) -> Result<&str> {
    args.set
        .as_deref()
        .ok_or_else(|| Failure::new(Kind::Usage, "no backup is given").with(Fact::Missing("set")))
}

/// 128 bits from the kernel.
pub(super) fn random() -> Result<u128> {
    Ok(u128::from_ne_bytes(crate::sys::random::bytes()?))
}

/// Refusals that an operator may override here.
const ALLOWABLE: [&str; 6] = [
    "bump-too-small",
    "unknown-version",
    "no-integrity-hash",
    trust::UNSIGNED,
    trust::UNKNOWN_SIGNER,
    trust::WRONG_SIGNER,
];

/// What every restore to a data directory is asked for.
pub(super) fn dir_options(args: &RestoreArgs, evidence: Vec<Evidence>) -> Result<DirOptions> {
    let data_dir = args.data_dir.clone();
    Ok(DirOptions {
        data_dir: data_dir
            .ok_or_else(|| Failure::new(Kind::Usage, "no data directory is given"))?,
        wal_dir: args.wal_dir.clone(),
        bump: bump(args),
        mark_compacted: args.mark_compacted,
        evidence,
        allow: args.allow.clone(),
        random: random()?,
    })
}

/// Requires that each refusal named by --allow can be overridden.
pub(super) fn check_allowed(args: &RestoreArgs) -> Result<()> {
    allow::check(&args.allow, &ALLOWABLE).map(drop)
}

/// What the store's backups and this node's operations say of revisions that were served.
pub(super) fn evidence(session: &Session, store: &LocalStore) -> Result<Vec<Evidence>> {
    let layout = NodeLayout::new(&session.root);
    let mut known = served::of_operations(&session.context, &layout);
    if store.dir().is_dir() {
        known.extend(datadir::evidence_of_store(store)?);
    }
    Ok(known)
}

/// How the revision is to be raised.
pub(super) fn bump(args: &RestoreArgs) -> Option<Bump> {
    args.bump_revision.map(|bump| match bump {
        BumpArg::Auto => Bump::Auto { slack: SLACK },
        BumpArg::By(more) => Bump::By(more),
    })
}
