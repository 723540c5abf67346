//! `backup`: checks the cluster, streams the snapshot, archives the static pods' resources,
//! checks what it wrote, and only then makes it a set.
//!
//! ```text
//! locked store ─ leftovers removed
//!   └ source asked, resources listed ─ quality gate ─ free space
//!       └ staging: snapshot, archives ─ re-read and compared ─ rollout looked for again
//!           └ backup.env, SHA256SUMS, Manifest last ─ rename ─ latest-backup
//! ```

pub(super) mod artifacts;
mod share;
mod source;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::copies::Record;
use super::prune::{self, PruneRequest, Pruned, Selection};
use super::quality::{self, Allowed};
use super::{advice, catalog, in_use, lineage};
use crate::backup::manifest::{
    self, Check, Cluster, Component, FileEntry, Manifest, Member, Node, Quality, SCHEMA_VERSION,
    Tool,
};
use crate::backup::names::{self, BackupId, FileKind};
use crate::backup::retention::Rules;
use crate::backup::{Stamp, environment, sums};
use crate::cluster::connect::Target;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::known::{Effect, Known};
use crate::event::Event;
use crate::node;
use crate::node::access::EtcdAccess;
use crate::node::apiserver::ApiServer;
use crate::node::collect::{Fingerprint, ResourcePlan, resource_plan, rollout_fingerprint};
use crate::node::layout::NodeLayout;
use crate::node::manifests::{MANIFEST_COPY, describe_rivals};
use crate::node::profile::{Detection, Profile};
use crate::plan::lock::Lock;
use crate::plan::registry::{self, Found};
use crate::store::{LocalStore, Staging};
use crate::sys::{fs, random, space};

use artifacts::Artifacts;
pub use artifacts::Timings;
use source::{Scope, Source};

/// What is asked of `backup`.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The node.
    pub target: Target,
    /// The host's own name, for the Manifest.
    pub host: String,
    /// Where the backup goes.
    pub destination: Destination,
    /// Do nothing where the newest good set is younger.
    pub if_older_than: Option<Duration>,
    /// Checks that may fail.
    pub allowed: Allowed,
    /// Whether the members' data are compared.
    pub check_members: bool,
    /// Bytes a second at the most.
    pub max_rate: Option<NonZeroU64>,
    /// How long nothing may come.
    pub stall_timeout: Duration,
    /// The version the Manifest names.
    pub tool_version: String,
    /// Whether this process is root.
    pub privileged: bool,
    /// Whether the set is pinned from the beginning.
    pub pin: bool,
    /// The URLs of the stores that it is to be copied to afterwards, which the set is told.
    pub copies: Vec<String>,
    /// What of the store is to stay once this set is in it; the rest is removed.
    pub keep: Option<Rules>,
}

/// Where a backup goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A store.
    Store(PathBuf),
    /// The node's own store, made where it is missing.
    DefaultStore,
    /// Plain files in a directory, as `cluster-backup.sh` leaves them.
    Flat(PathBuf),
}

/// What came of it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A backup was taken.
    Taken(Box<Taken>),
    /// The newest good one is recent enough.
    YoungEnough {
        /// Its name.
        name: String,
        /// Its age.
        age: SignedDuration,
    },
}

/// A backup that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Where it is: the set's directory, or the plain one.
    pub dir: PathBuf,
    /// Its Manifest; with plain files it is not on disk.
    pub manifest: Manifest,
    /// What failed once the set was there.
    pub problems: Vec<String>,
    /// Whether it is a set of a store.
    pub is_set: bool,
    /// Where the time went.
    pub timings: Timings,
    /// Bytes of the snapshot that share their blocks with the set before; none where the file
    /// system shares none.
    pub shared: Option<u64>,
    /// What was removed from the store afterwards.
    pub pruned: Option<Pruned>,
}

/// How far above the estimate the free space must be, in per cent.
const HEADROOM_PER_CENT: u64 = 10;
/// How many complaints about files are listed.
const MAX_TOLD: usize = 20;

/// Takes a backup.
///
/// # Errors
/// [`Kind::Busy`] where it fails because an operation of this node is not finished.
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
    if let Some(young) = young_enough(context, request, &store)? {
        return Ok(young);
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
    if let Some(young) = young_enough(context, request, &store)? {
        return Ok(young);
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
        };
        prune::locked(context, store, &asked, None, lock)
    };
    work().unwrap_or_else(|failure| Pruned {
        problems: vec![failure.to_string()],
        ..Pruned::default()
    })
}

fn young_enough(
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
        let young = age.unsigned_abs() <= limit;
        young.then_some(Outcome::YoungEnough { name, age })
    }))
}

/// Makes the store's directory. The node's own lies under /var where it is missing, since an
/// OSTree host copies /etc with every deployment.
fn open_store(request: &BackupRequest, store: &LocalStore) -> Result<()> {
    if request.destination == Destination::DefaultStore {
        make_default_store(&request.target.layout)?;
    }
    store.ensure()
}

/// Makes the node's own store where it is missing: a link to `/var`, since an OSTree host copies
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

/// What was found out about the node.
struct NodeFound {
    detection: Detection,
    access: EtcdAccess,
    plan: ResourcePlan,
    before: Fingerprint,
    api: ApiServer,
}

impl NodeFound {
    fn find(context: &Context, request: &BackupRequest) -> Result<Self> {
        let detection = request.target.detect(context)?;
        refuse_unprivileged(request, detection.profile)?;
        if !detection.two_node_fencing.is_empty() {
            context.warn(
                "two-node-fencing",
                format!(
                    "Pacemaker owns etcd on this node ({}): backups work as on any node, but a restore must go through Pacemaker",
                    detection.two_node_fencing.join("; ")
                ),
            );
        }
        let access = request.target.access(context, &detection)?;
        let layout = &request.target.layout;
        warn_of_copies(context, layout, detection.profile, &access)?;
        let plan = resource_plan(layout, detection.profile)?;
        let before = rollout_fingerprint(layout, detection.profile)?;
        let api = ApiServer::look(layout, detection.profile);
        Ok(Self {
            api,
            detection,
            access,
            plan,
            before,
        })
    }

    fn profile(&self) -> Profile {
        self.detection.profile
    }

    /// What this backup alone does not bring back.
    fn warn(&self, context: &Context, version: &str) {
        if let Some(what) = advice::partial_cluster(&advice::others_of(&self.api)) {
            context.warn(advice::PARTIAL_CLUSTER, what);
        }
        if let Some(what) = advice::kms(&self.api.kms) {
            context.warn(advice::KMS_ENCRYPTION, what);
        }
        if let Some(known) = Known::of(version, Effect::Data) {
            context.warn(advice::KNOWN_BAD_VERSION, known.sentence());
        }
    }

    fn name(&self) -> Option<&str> {
        self.access
            .member_name
            .as_ref()
            .map(|name| name.value.as_str())
    }
}

/// One run, with the store locked.
struct Run<'a> {
    context: &'a Context,
    request: &'a BackupRequest,
    node: NodeFound,
    store: &'a LocalStore,
    lock: &'a Lock,
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
            quality::ROLLOUT_IN_BETWEEN,
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
        // Where the data directory is not on this machine there is nothing to compare with.
        let Ok(data) = space::space(data_dir) else {
            return Ok(());
        };
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

    /// Whether a directory is on the file system of etcd's data, where that is known.
    fn is_beside_etcd(&self, dir: &Path) -> bool {
        let data_dir = self.node.access.data_dir.as_ref();
        let data_dir = data_dir.map(|dir| dir.value.as_path());
        let Some(data_dir) = data_dir.filter(|dir| dir.exists()) else {
            return false;
        };
        let device = |dir: &Path| space::space(dir).ok().map(|space| space.device);
        device(data_dir).is_some() && device(data_dir) == device(dir)
    }

    /// Fails where a directory has no room for a snapshot of the size that the server announces,
    /// which may be another than its status said.
    fn room(&self, dir: &Path) -> Arc<dyn Fn(u64) -> Result<()> + Send + Sync> {
        let (dir, beside_etcd) = (dir.to_owned(), self.is_beside_etcd(dir));
        Arc::new(move |size| {
            let space = space::space(&dir)?;
            let needed = size.saturating_add(space.reserve(beside_etcd));
            space.check(needed, "the snapshot that the server announces")
        })
    }

    fn manifest(
        &self,
        source: &Source,
        artifacts: &Artifacts,
        number: u64,
        checks: Vec<Check>,
        quality: Quality,
    ) -> Result<Manifest> {
        let status = &source.status;
        let version = artifacts.version.as_ref();
        let id = status.header.cluster_id.to_string();
        let components = self.node.plan.components.iter().map(|live| Component {
            name: live.component.name().to_owned(),
            revision: live.revision.map(|revision| u64::from(revision.number)),
            image: live.image.clone(),
        });
        Ok(Manifest {
            schema_version: SCHEMA_VERSION,
            tool: Tool {
                name: "etcd-dr".to_owned(),
                version: self.request.tool_version.clone(),
            },
            id: BackupId(number).to_string(),
            created: self.context.now,
            node: Node {
                host: self.request.host.clone(),
                name: self.node.name().map(str::to_owned),
                profile: self.node.profile().word().to_owned(),
            },
            cluster: Cluster {
                etcd_id: id.clone(),
                uuid: version.and_then(|version| version.uuid.clone()),
                ocp_version: version.and_then(|version| version.version.clone()),
                kube_system_uid: artifacts.kube_system_uid.clone(),
                former_ids: lineage::former_ids(&self.request.target.layout, &id)?,
            },
            member: Member {
                id: status.header.member_id.to_string(),
                name: source.member_name.clone(),
                endpoint: source.endpoint.clone(),
                etcd_version: status.version.clone(),
                leader: status.is_leader(),
                learner: status.is_learner,
                raft_term: status.raft_term,
                raft_index: status.raft_index,
                raft_applied_index: status.raft_applied_index,
            },
            database: artifacts.database.clone(),
            files: artifacts.files.clone(),
            components: components.collect(),
            quality,
            checks,
            earliest_certificate_expiry: artifacts.expiry.clone(),
            other_etcds: advice::others_of(&self.node.api),
            kms_plugins: self.node.api.kms.clone(),
        })
    }

    /// Makes the staged files a set: summary, checksums, the Manifest last, then the rename.
    fn commit(&self, staging: Staging, number: u64, mut manifest: Manifest) -> Result<Taken> {
        let dir = staging.dir();
        let summary = environment::render(&manifest);
        manifest.files.push(add_file(
            dir,
            names::ENVIRONMENT,
            FileKind::Environment,
            summary.as_bytes(),
        )?);
        let listed = sums::render(&manifest.files);
        manifest.files.push(add_file(
            dir,
            names::SUMS,
            FileKind::Sums,
            listed.as_bytes(),
        )?);
        if self.request.pin {
            let since = format!("pinned {}\n", self.context.now);
            fs::write_new(&dir.join(names::PINNED), since.as_bytes())?;
        }
        if !self.request.copies.is_empty() {
            let record = Record::asked(self.request.copies.iter().cloned());
            fs::write_new(&dir.join(names::COPIES), &record.to_bytes()?)?;
        }
        fs::write_new(&dir.join(names::MANIFEST), &manifest.to_bytes()?)?;
        self.context.cancel.check()?;
        let mut problems = Vec::new();
        match self.store.commit(staging, number) {
            Err(failure) if failure.kind() == Kind::Partial => problems.push(failure.to_string()),
            other => drop(other?),
        }
        match self.store.point_latest(number) {
            // The set is there; what is missing is a convenience that this file system lacks.
            Err(failure) if failure.io_kind().is_some_and(no_links) => {
                self.context.warn("no-symbolic-links", failure.to_string());
            }
            Err(failure) => problems.push(failure.to_string()),
            Ok(()) => {}
        }
        Ok(Taken {
            dir: self.store.set_dir(number),
            problems,
            manifest,
            is_set: true,
            timings: Timings::default(),
            shared: None,
            pruned: None,
        })
    }

    /// Moves the staged files out as `cluster-backup.sh` leaves them; the snapshot goes last,
    /// since the stock restore looks for that first.
    fn commit_flat(&self, staging: Staging, dir: &Path, mut manifest: Manifest) -> Result<Taken> {
        let dirty = manifest.quality.state == manifest::QualityState::Dirty;
        let stamp = Stamp::new(self.context.now, dirty);
        fs::sync_dir(staging.dir())?;
        manifest
            .files
            .sort_by_key(|file| file.kind == FileKind::Snapshot);
        for file in &mut manifest.files {
            let name = match file.kind {
                FileKind::Snapshot => stamp.snapshot(),
                FileKind::Resources => stamp.resources(),
                _ => stamp.certificates(),
            };
            let to = dir.join(&name);
            if to.symlink_metadata().is_ok() {
                return Err(Failure::new(
                    Kind::Store,
                    format!("{} exists already", to.display()),
                ));
            }
            fs::rename(&staging.dir().join(&file.name), &to)?;
            file.name = name;
        }
        drop(staging);
        fs::sync_dir(dir)?;
        Ok(Taken {
            dir: dir.to_owned(),
            problems: Vec::new(),
            manifest,
            is_set: false,
            timings: Timings::default(),
            shared: None,
            pruned: None,
        })
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

/// What a file system without symbolic links answers.
fn no_links(error: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{PermissionDenied, Unsupported};
    matches!(error, PermissionDenied | Unsupported)
}

/// Warns of copies of manifests: a restore is refused as long as they are there.
fn warn_of_copies(
    context: &Context,
    layout: &NodeLayout,
    profile: Profile,
    access: &EtcdAccess,
) -> Result<()> {
    let pods: Vec<_> = node::component::Component::ALL
        .into_iter()
        .filter_map(|component| {
            let current = layout.current_manifest(component, profile)?;
            Some((component, layout.read_pod(&current.path).ok()?))
        })
        .collect();
    let keys: Vec<_> = pods
        .iter()
        .map(|(component, pod)| (*component, pod.key()))
        .collect();
    let rivals = layout.rivals(profile, &keys, &access.data_dir_in(layout))?;
    if !rivals.is_empty() {
        context.warn(MANIFEST_COPY, describe_rivals(layout, &rivals));
    }
    Ok(())
}

/// The node's keys and its static pods' resources are root's alone.
fn refuse_unprivileged(request: &BackupRequest, profile: Profile) -> Result<()> {
    if profile == Profile::Bare
        || request.privileged
        || request.allowed.allows(quality::ROOT_NEEDED)
    {
        return Ok(());
    }
    let what =
        format!("a backup of a node of profile {profile} reads files that only root may read");
    Err(Failure::refused(quality::ROOT_NEEDED, what))
}

/// Writes a small file into a set and describes it.
fn add_file(dir: &Path, name: &str, kind: FileKind, content: &[u8]) -> Result<FileEntry> {
    fs::write_new(&dir.join(name), content)?;
    Ok(artifacts::entry(
        name,
        kind,
        content.len() as u64,
        artifacts::sha256(content),
    ))
}
