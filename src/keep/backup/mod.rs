//! `backup`: checks the cluster, streams the snapshot, archives the static pods' resources,
//! checks what it wrote, and only then makes it a set.
//!
//! ```text
//! locked store ─ leftovers removed
//!   └ source asked, resources listed ─ quality gate ─ free space
//!       └ staging: snapshot, archives ─ re-read and compared ─ rollout looked for again
//!           └ backup.env, SHA256SUMS, Manifest last ─ rename ─ latest-backup
//! ```

mod artifacts;
mod commit;
mod node_found;
mod request;
mod session;
mod share;
mod sink;
mod source;

use std::path::Path;

use jiff::SignedDuration;

use super::prune::{self, PruneRequest, Pruned, Selection};
use super::quality;
use super::{catalog, in_use};
use crate::backup::Stamp;
use crate::backup::manifest::Check;
use crate::backup::names::{self, BackupId};
use crate::backup::retention::Rules;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::event::Event;
use crate::journal::registry::{self, Found};
use crate::node::collect::rollout_fingerprint;
use crate::node::layout::NodeLayout;
use crate::store::LocalStore;
use crate::sys::lock::Lock;
use crate::sys::{fs, random, space};

use artifacts::Artifacts;
use node_found::NodeFound;
pub use request::{BackupRequest, Destination, Outcome, Taken, Timings};
use session::Run;
use source::{Scope, Source};

/// How far above the estimate the free space must be, in per cent.
const HEADROOM_PER_CENT: u64 = 10;
/// How many complaints about files are listed.
const MAX_TOLD: usize = 20;

/// Takes a backup.
///
/// # Errors
/// [`Kind::Busy`] if it fails because an operation of this node is not finished.
pub async fn run(context: &Context, request: &BackupRequest) -> Result<Outcome> {
    let taken = take(context, request).await;
    taken.map_err(|failure| match failure.kind() {
        Kind::Interrupted | Kind::Store | Kind::Busy => failure,
        _ => blame_unfinished(&request.target.layout, failure),
    })
}

/// A node in the middle of a restore has no manifests, or no etcd: the way out is to finish that.
fn blame_unfinished(layout: &NodeLayout, failure: Failure) -> Failure {
    let unfinished = |found: &Found| found.progress.is_ok() && found.blocks();
    let known = registry::list(&layout.state()).is_ok_and(|all| all.iter().any(unfinished));
    match registry::refuse_while_unfinished(&layout.state()) {
        Err(busy) if known => busy.doing(format!("taking a backup failed ({failure})")),
        _ => failure,
    }
}

async fn take(context: &Context, request: &BackupRequest) -> Result<Outcome> {
    let (store, flat) = match &request.destination {
        Destination::Store(dir) => (LocalStore::at(dir), None),
        Destination::DefaultStore => (LocalStore::at(request.target.layout.backups()), None),
        Destination::Flat(dir) => (LocalStore::at(dir), Some(dir.as_path())),
    };
    // Before the node is read and the lock is taken: this costs a listing, and most runs end here.
    if let Some(recent) = recent_enough(context, request, &store)? {
        return Ok(recent);
    }
    let node = NodeFound::find(context, request)?;
    open_store(request, &store)?;
    let lock = store.lock("backup")?;
    let leftovers = match flat {
        Some(_) => store.remove_flat_leftovers(&lock, &names::is_of_a_set)?,
        None => store.remove_leftovers(&lock, &names::is_of_a_set)?,
    };
    for path in leftovers {
        context.tell(Event::LeftoverRemoved(path));
    }
    // Another run may have taken one while this one waited to begin.
    if let Some(recent) = recent_enough(context, request, &store)? {
        return Ok(recent);
    }
    warn_of_the_future(context, &store)?;
    let mut run = Run {
        context,
        request,
        node,
        store: &store,
        lock: &lock,
    };
    let mut taken = run
        .take(flat)
        .await
        .map_err(|failure| failure.doing("taking a backup"))?;
    if let Some(id) = taken
        .is_set
        .then(|| BackupId::parse(&taken.manifest.id))
        .flatten()
    {
        taken.shared = share::share(context, &store, id.0, &lock);
    }
    taken.pruned = request
        .keep
        .as_ref()
        .map(|rules| prune_after(context, request, &store, rules, &lock));
    Ok(Outcome::Taken(Box::new(taken)))
}

/// Says which sets of the store are from the future: they count for nothing, and stay.
fn warn_of_the_future(context: &Context, store: &LocalStore) -> Result<()> {
    for set in catalog::list(store)? {
        if let Some(created) = set.created.filter(|_| set.is_future(context.now)) {
            let what = format!(
                "{} was taken at {created}, which is in the future: the clock was wrong then, or is wrong now; it does not count until that time",
                set.name
            );
            context.warn("from-the-future", what);
        }
    }
    Ok(())
}

/// Removes what the rules no longer want. The backup is taken: what fails here is a problem of
/// the rest, and no failure.
fn prune_after(
    context: &Context,
    request: &BackupRequest,
    store: &LocalStore,
    rules: &Rules,
    lock: &Lock,
) -> Pruned {
    let work = || {
        let asked = PruneRequest {
            selection: Selection::Rules(rules.clone()),
            in_use: in_use::sets(&request.target.layout, store.dir())?,
            trust: request.trust.clone(),
            sign: request.sign.clone(),
        };
        prune::locked(context, store, &asked, None, lock)
    };
    work().unwrap_or_else(|failure| Pruned {
        problems: vec![failure.to_string()],
        ..Pruned::default()
    })
}

fn recent_enough(
    context: &Context,
    request: &BackupRequest,
    store: &LocalStore,
) -> Result<Option<Outcome>> {
    let Some(limit) = request.if_older_than else {
        return Ok(None);
    };
    if !store.dir().is_dir() {
        return Ok(None);
    }
    let sets = catalog::list(store)?;
    let newest = catalog::newest_good(&sets, context.now)
        .and_then(|set| Some((set.name.clone(), set.created?)));
    Ok(newest.and_then(|(name, created)| {
        let age = context
            .now
            .duration_since(created)
            .max(SignedDuration::ZERO);
        let recent = age.unsigned_abs() <= limit;
        recent.then_some(Outcome::RecentEnough { name, age })
    }))
}

/// Makes the store's directory. The node's own is made under /var if it is missing, since an
/// OSTree host copies /etc with every deployment.
fn open_store(request: &BackupRequest, store: &LocalStore) -> Result<()> {
    if request.destination == Destination::DefaultStore {
        make_default_store(&request.target.layout)?;
    }
    store.ensure()
}

/// Makes the node's own store if it is missing: a link to `/var`, since an OSTree host copies
/// /etc with every deployment.
pub fn make_default_store(layout: &NodeLayout) -> Result<()> {
    let link = layout.backups();
    let target = layout.backups_target();
    let absent = link.symlink_metadata().is_err();
    let dangling = link.is_symlink() && !link.exists();
    if absent || dangling {
        fs::mkdir_all(&target)?;
    }
    if absent {
        fs::mkdir_all(fs::parent(&link))?;
        match fs::symlink(Path::new("../../var/lib/etcd-dr/static-pod-backups"), &link) {
            // Another first run was faster.
            Err(failure) if failure.io_kind() == Some(std::io::ErrorKind::AlreadyExists) => {}
            made => made?,
        }
        fs::sync_dir(fs::parent(&link))?;
    }
    Ok(())
}

impl Run<'_> {
    async fn take(&mut self, flat: Option<&Path>) -> Result<Taken> {
        let cancel = &self.context.cancel;
        let scope = Scope {
            profile: self.node.profile(),
            node: self.node.name(),
            check_members: self.request.check_members,
        };
        let source = cancel
            .guard(Source::open(&self.node.access, &scope))
            .await?;
        for note in &source.notes {
            self.context.warn("object-unreadable", note.clone());
        }
        self.node.warn(self.context, &source.status.version);
        let mut checks = quality::assess(&source.seen, self.context.now);
        checks.push(self.resources_check()?);
        quality::gate(&checks, &self.request.allowed)?;
        self.check_space(source.status.db_size)?;

        let number = self.store.next_number()?;
        let staging = match flat {
            Some(_) => self.store.stage_flat(random::bytes()?, self.lock)?,
            None => self.store.stage(number, self.lock)?,
        };
        crate::context::warn_of_modes(self.context, staging.dir());
        let stamp = Stamp::new(self.context.now, false);
        let artifacts = Artifacts::write(self, &source, staging.dir(), &stamp).await?;
        cancel.check()?;

        checks.push(self.rollout_check()?);
        let quality = quality::gate(&checks, &self.request.allowed)?;
        let manifest = self.manifest(&source, &artifacts, number, checks, quality)?;
        let taken = match flat {
            Some(dir) => self.commit_flat(staging, dir, manifest)?,
            None => self.commit(staging, number, manifest)?,
        };
        Ok(Taken {
            timings: artifacts.timings,
            encrypted: artifacts.encrypted,
            ..taken
        })
    }

    /// Whether all static pods' resources can be archived.
    fn resources_check(&self) -> Result<Check> {
        let plan = &self.node.plan;
        let problems = plan.problems.iter();
        let mut told: Vec<String> = problems
            .map(|problem| format!("{}: {}", problem.component, problem.message))
            .collect();
        let mut left: Vec<String> = plan.left_out.clone();
        let layout = &self.request.target.layout;
        for list in [Some(&plan.resources), plan.certs.as_ref()]
            .into_iter()
            .flatten()
        {
            let selection = artifacts::selection(list, layout.node_path(&list.base));
            for found in selection.left_out()? {
                let text = format!("{}: {}", layout.node_path(&found.path).display(), found.why);
                if found.harmless { &mut left } else { &mut told }.push(text);
            }
        }
        for left in &left {
            self.context.tell(Event::Note(format!("left out: {left}")));
        }
        let told = bounded(told);
        let mut check = quality::verdict(quality::STATIC_PODS_INCOMPLETE, told);
        if check.detail.is_empty() && !left.is_empty() {
            check.detail = format!("left out: {}", bounded(left).join("; "));
        }
        Ok(check)
    }

    /// Whether the static pods are still those of the beginning.
    fn rollout_check(&self) -> Result<Check> {
        let after = rollout_fingerprint(&self.request.target.layout, self.node.profile())?;
        Ok(quality::verdict(
            quality::ROLLOUT_DURING_BACKUP,
            self.node.before.differences(&after),
        ))
    }

    /// Refuses a store whose file system would not hold the backup.
    fn check_space(&self, db_size: u64) -> Result<()> {
        let estimate = db_size.saturating_add(self.node.before.total_size());
        let needed = estimate.saturating_add(estimate / 100 * HEADROOM_PER_CENT);
        let here = space::space(self.store.dir())?;
        here.check(needed, "the backup")?;
        let Some(data_dir) = self
            .node
            .access
            .data_dir
            .as_ref()
            .map(|dir| dir.value.as_path())
        else {
            return Ok(());
        };
        // If the data directory is not on this machine there is nothing to compare with.
        let Ok(data) = space::space(data_dir) else {
            return Ok(());
        };
        // The difference is not negative: the check above has passed.
        if data.device == here.device && data_dir.exists() && here.available - needed < db_size {
            self.context.warn(
                "little-space-beside-etcd",
                format!(
                    "the file system at {} also holds etcd's data; after this backup about {} bytes stay free, less \
                     than the database's {db_size}",
                    here.mount.display(),
                    here.available - needed
                ),
            );
        }
        Ok(())
    }
}

/// The first of them, and how many more there are.
fn bounded(mut told: Vec<String>) -> Vec<String> {
    let more = told.len().saturating_sub(MAX_TOLD);
    told.truncate(MAX_TOLD);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}
