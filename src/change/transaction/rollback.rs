//! Rolling back: the previous data returns, and the pods start on it.
//!
//! As long as the restored data has served no client, the previous data is moved back, byte for
//! byte. Once it has, clients know revisions that the previous data lacks or has with another
//! content: they would wait for changes that never come, and keep objects that are gone. So the
//! previous data is bumped then: a copy gets its WAL applied, a revision above all that was served,
//! and everything up to there marked as compacted, so that every client lists again. The original
//! bytes stay in the safety folder.
//!
//! The copy is made next to its place and moved there by one rename. A member of several cannot be
//! bumped alone: its peers, whose disks are elsewhere, would disagree with it about every later
//! revision. Its data comes back unchanged, with a warning about the clients that do not notice.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::context::StepContext;
use super::data::MEMBER;
use super::exchange::Exchange;
use super::files::{label_as, remove_if_there};
use super::info::{PodInfo, Scope};
use super::served::{self, BUMPED_TO, LOG_INDEX, SERVED, Served};
use super::{moves, proof};
use crate::change::dir_options::DirOptions;
use crate::change::{datadir, survivor};
use crate::error::{Kind, Result};
use crate::etcd::datadir::{self as files, Layout};
use crate::etcd::ids::ClusterId;
use crate::etcd::restore::{Bump, Evidence, SLACK};
use crate::event::Event;
use crate::journal::Known;
use crate::node::component::Component;
use crate::node::pod::{MAX_BYTES, PodManifest};
use crate::sys::fs;
use crate::sys::owner::Owner;
use crate::sys::random::bytes;

/// Why the data from before came back without a bump.
const NOT_BUMPED: &str = "notBumped";
/// The components that did not serve at the end of the rollback.
const NOT_SERVING: &str = "notServing";
/// The grace period of an API server that is restarted.
const RESTART: Duration = Duration::from_secs(2);

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Returned {
    /// The highest revision of the restored data that clients can have seen, if any were served.
    pub served: Option<i64>,
    /// The revision that the data from before was bumped to.
    pub bumped_to: Option<i64>,
    /// Why it was not bumped, if it should have been.
    pub not_bumped: Option<String>,
    /// What does not serve although it did before.
    pub not_serving: Vec<String>,
}

impl Returned {
    /// What the steps that were undone found out.
    pub(crate) fn of(known: &Known) -> Self {
        let number = |name: &str| known.field(name).and_then(Value::as_i64);
        let texts = |name: &str| known.read::<Vec<String>>(name).unwrap_or_default();
        Self {
            served: number(SERVED),
            bumped_to: number(BUMPED_TO),
            not_bumped: known.read(NOT_BUMPED).unwrap_or_default(),
            not_serving: texts(NOT_SERVING),
        }
    }

    /// In words: what the node is now.
    pub fn sentence(&self) -> String {
        let mut parts = vec!["the node is as before".to_owned()];
        parts.extend(self.details());
        parts.join("; ")
    }

    /// What differs from before, and what does not serve yet.
    pub fn details(&self) -> Vec<String> {
        let served = self.served.unwrap_or_default();
        let mut parts = Vec::new();
        match (self.bumped_to, &self.not_bumped) {
            (Some(bumped), _) => parts.push(format!(
                "etcd's revision is bumped to {bumped}, above {served}, the highest served in the meantime: all clients re-list"
            )),
            (None, Some(why)) => parts.push(format!(
                "clients that have seen revisions up to {served} do not notice the rollback: {why}"
            )),
            (None, None) => {}
        }
        if !self.not_serving.is_empty() {
            let missing = self.not_serving.join("; ");
            parts.push(format!("not serving yet: {missing}"));
        }
        parts
    }
}

/// What is found out about the new data when it is moved out of its place.
pub(crate) fn taken_out(node: &StepContext, known: &Known, built: &Path) -> Option<Value> {
    let index = known.field(LOG_INDEX).and_then(Value::as_u64);
    let told = known.field("revisionNow").and_then(Value::as_i64);
    match served::by(&node.context, built, index, told) {
        Served::Nothing => None,
        Served::UpTo(revision) => Some(json!({ SERVED: revision })),
    }
}

/// Puts the previous data back into its directory, bumped if clients were served in the meantime.
/// The new data has been moved out by then.
pub(crate) async fn data(
    node: &StepContext,
    data_dir: &Path,
    aside: &Path,
    known: &Known,
) -> Result<Option<Value>> {
    let Some(served) = known.field(SERVED).and_then(Value::as_i64) else {
        moves::move_contents(aside, data_dir, &[])?;
        return Ok(None);
    };
    let place = data_dir.join(MEMBER);
    if !aside.join(MEMBER).is_dir() {
        moves::move_contents(aside, data_dir, &[])?;
        // There was no data, or a killed attempt has moved it back unchanged.
        return Ok(place.is_dir().then(|| {
            let why = alone(node, data_dir).err();
            json!({ NOT_BUMPED: why.unwrap_or_else(|| "it could not be bumped".to_owned()) })
        }));
    }
    let bumped = beside(aside);
    let ready = bumped.join(MEMBER);
    if place.symlink_metadata().is_err() {
        // A copy made before (by `prepare`, or by a killed attempt) will do if it is above all that
        // has been served since.
        if revision_of(&bumped).is_none_or(|revision| revision <= served)
            && let Err(why) = build(node, aside, &bumped, data_dir, served).await?
        {
            if node.facts.proves_rollback {
                node.context.warn("revision-not-bumped", why.clone());
            }
            moves::move_contents(aside, data_dir, &[])?;
            return Ok(Some(json!({ NOT_BUMPED: why })));
        }
        fs::rename(&ready, &place)?;
        fs::sync_dir(data_dir)?;
        fs::sync_dir(&bumped)?;
    } else if ready.symlink_metadata().is_ok() {
        return Err(moves::in_the_way(&place, &ready));
    }
    // Other entries of the directory go back unchanged; the member's original bytes are kept.
    moves::move_contents(aside, data_dir, &[OsString::from(MEMBER)])?;
    remove_if_there(&bumped)?;
    // What is in place must be that copy, and not data that another program has put there.
    let revision = revision_of(data_dir).filter(|revision| *revision > served);
    let revision = revision.ok_or_else(|| moves::in_the_way(&place, &aside.join(MEMBER)))?;
    Ok(Some(json!({ BUMPED_TO: revision })))
}

/// Where a bumped copy is made.
fn beside(aside: &Path) -> PathBuf {
    aside.with_file_name("data-bumped")
}

fn revision_of(dir: &Path) -> Option<i64> {
    let evidence = datadir::evidence_of_member(&Layout::new(dir, None).db());
    Some(evidence.ok()??.revision)
}

/// Makes a bumped copy of the data in `aside`, completely or not at all. The inner error says why
/// that data cannot be bumped.
async fn build(
    node: &StepContext,
    aside: &Path,
    bumped: &Path,
    place: &Path,
    served: i64,
) -> Result<Result<(), String>> {
    let cluster_id = match alone(node, aside) {
        Ok(cluster_id) => cluster_id,
        Err(why) => return Ok(Err(why)),
    };
    let mut evidence = served::of_operations(&node.context, &node.layout);
    evidence.push(Evidence {
        source: "what was restored".to_owned(),
        revision: served,
    });
    let request = survivor::Request {
        options: DirOptions {
            data_dir: bumped.to_owned(),
            wal_dir: None,
            bump: Some(Bump::Auto { slack: SLACK }),
            mark_compacted: true,
            evidence,
            allow: Vec::new(),
            random: u128::from_ne_bytes(bytes::<16>()?),
        },
        from: aside.to_owned(),
        from_wal: None,
        name: None,
        peer_urls: None,
        cluster_id: Some(cluster_id),
    };
    let (context, into, place) = (node.context.clone(), bumped.to_owned(), place.to_owned());
    let from = aside.to_owned();
    let made = node
        .blocking(move || {
            remove_if_there(&into)?;
            survivor::run(&context, &request)?;
            if let Some(owner) = Owner::of(&from.join(MEMBER), &Layout::new(&from, None).db())? {
                owner.give(&into.join(MEMBER))?;
            }
            label_as(&place, &into)
        })
        .await;
    match made {
        Err(failure) if failure.kind() == Kind::Refused => Ok(Err(failure.to_string())),
        other => other.map(Ok),
    }
}

/// The cluster id of a member that is alone in its cluster, or why it cannot be bumped alone.
fn alone(node: &StepContext, dir: &Path) -> Result<ClusterId, String> {
    let report = files::check(&Layout::new(dir, None), None).map_err(|e| e.to_string())?;
    let identity = report.wal.scan.metadata;
    let identity = identity.ok_or("its WAL does not say which member it belongs to")?;
    let members = report.last_members.map_or(1, |members| members.ids().len());
    match members {
        1 => Ok(ClusterId(identity.cluster)),
        several => Err(format!(
            "the data belongs to one of {several} members: bumped on one member alone, it would contradict the others. Restart all clients that watch, on all nodes (API servers, kubelets, operators), or make a cluster of this member alone: etcd-dr restore --from-data-dir {}",
            node.facts.etcd.data_dir.display()
        )),
    }
}

/// Makes the bumped copy of the data in `aside` before a completed change is rolled back, while
/// everything still runs, so that a failure costs nothing. The copy goes to `data_dir` later.
///
/// # Errors
/// [`Kind::Store`] without room for the copy.
pub(crate) async fn prepare(
    node: &StepContext,
    data_dir: &Path,
    aside: &Path,
    known: &Known,
) -> Result<()> {
    if !aside.join(MEMBER).is_dir() {
        return Ok(());
    }
    let numbers = ["revision", "revisionNow"].map(|name| known.field(name));
    let told = numbers
        .into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .max();
    let live = revision_of(data_dir);
    let bumped = beside(aside);
    let served = live.max(told).unwrap_or_default();
    // Why not is told when it comes to that.
    let built = build(node, aside, &bumped, data_dir, served).await?;
    if built.is_ok() {
        node.context.tell(Event::Note(format!(
            "the previous data is ready in {}, with its revision bumped above all that was served",
            bumped.display()
        )));
    }
    Ok(())
}

/// Moves the manifests that a step has put in place out again, and waits until their pods have
/// stopped.
///
/// A plan starts etcd's pod before the others, so their step is undone first. As long as etcd's
/// manifest is in place, that step does not wait: etcd's then waits for all of them at once.
///
/// # Errors
/// Those of moving the manifests, and of [`StepContext::stopped`].
pub(crate) async fn stop(node: &StepContext, starts: &[Exchange]) -> Result<()> {
    node.note_running().await;
    for exchange in starts.iter().rev() {
        exchange.revert(node)?;
    }
    let present = node.layout.static_pod_keys();
    let in_place = |pod: &PodInfo| {
        let mut present = present.iter();
        present.any(|(namespace, name)| *namespace == pod.namespace && *name == pod.name)
    };
    let ours = |pod: &PodInfo| starts.iter().any(|exchange| exchange.is_manifest_of(pod));
    let pods = &node.facts.pods;
    let mut etcd = pods.iter().filter(|pod| is_of(pod, Component::Etcd));
    if etcd.any(|pod| !ours(pod) && in_place(pod)) {
        return Ok(());
    }
    let away: Vec<&PodInfo> = pods
        .iter()
        .filter(|pod| ours(pod) || !in_place(pod))
        .collect();
    node.stopped(&away).await
}

fn is_of(pod: &PodInfo, component: Component) -> bool {
    pod.component == component.name()
}

/// Puts manifests back: etcd's first; then, once etcd is about to start, the API server's,
/// which takes the longest, and the others. Reports what does not serve in time; the manifests are
/// all in place in any case.
pub(crate) async fn pods(
    node: &StepContext,
    stops: &[Exchange],
    known: &Known,
) -> Result<Option<Value>> {
    let is = |exchange: &Exchange, component| {
        let mut pods = node.facts.pods.iter();
        pods.any(|pod| is_of(pod, component) && exchange.is_manifest_of(pod))
    };
    let (etcd, mut others): (Vec<&Exchange>, Vec<&Exchange>) = stops
        .iter()
        .partition(|exchange| is(exchange, Component::Etcd));
    others.sort_by_key(|exchange| !is(exchange, Component::KubeApiserver));
    let all: Vec<&PodInfo> = node.facts.pods.iter().collect();
    node.forget_exited(&all).await;
    node.relisted().await?;
    let mut missing = Vec::new();
    for exchange in &etcd {
        exchange.revert(node)?;
    }
    let waits =
        node.facts.proves_rollback && !etcd.is_empty() && node.facts.etcd_served != Some(false);
    if waits
        && !others.is_empty()
        && let Err(failure) = proof::others_may_start(node).await
    {
        missing.push(format!("etcd: {failure}"));
    }
    for exchange in &others {
        exchange.revert(node)?;
    }
    if waits
        && missing.is_empty()
        && let Err(failure) = proof::serving(node).await
    {
        missing.push(format!("etcd: {failure}"));
    }
    // The API server has kept running, and its caches are of the data that is gone.
    if known.field(NOT_BUMPED).is_some() && node.facts.scope == Scope::Etcd {
        restart_api_server(node).await;
    }
    // Without etcd none of the others stays up.
    if waits && missing.is_empty() {
        let came = etcd.iter().chain(&others);
        let pods = came.filter_map(|exchange| as_it_came_back(node, exchange));
        let pods: Vec<PodInfo> = pods.collect();
        if let Err(failure) = proof::pods_run(node, &pods).await {
            missing.push(failure.to_string());
        }
    }
    for what in &missing {
        node.context.warn("not-serving", what.clone());
    }
    let mut facts = Map::new();
    if !missing.is_empty() {
        facts.insert(NOT_SERVING.to_owned(), json!(missing));
    }
    Ok((!facts.is_empty()).then_some(Value::Object(facts)))
}

/// The known pod of a manifest that is back in its place.
fn as_it_came_back(node: &StepContext, exchange: &Exchange) -> Option<PodInfo> {
    let mut pods = node.facts.pods.iter();
    let known = pods.find(|pod| exchange.is_manifest_of(pod))?;
    let component = Component::ALL
        .into_iter()
        .find(|component| component.name() == known.component)?;
    let place = node.host(&exchange.place);
    let bytes = crate::sys::small::read(&place, MAX_BYTES).ok()??;
    let pod = PodManifest::parse(&bytes).ok()?;
    Some(PodInfo::of(
        component,
        None,
        &pod,
        Some(exchange.place.clone()),
    ))
}

/// Ends the API server's container, so that the kubelet starts it again with empty caches.
async fn restart_api_server(node: &StepContext) {
    let name = Component::KubeApiserver.name();
    let ended = node.end_containers(name, RESTART).await;
    match ended {
        Ok(0) => {}
        Ok(_) => node.context.tell(Event::Note(format!(
            "{name} was stopped, so that it restarts and reads everything again"
        ))),
        Err(failure) => node.context.warn(
            "api-server-not-restarted",
            format!("{name} keeps its old cache: restart it by hand ({failure})"),
        ),
    }
}
