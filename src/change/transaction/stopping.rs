//! Waits for the end of pods whose manifests were moved away, asks containers to end sooner, and
//! has the runtime forget those that have ended.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::context::{Explanation, Look, NOBODY_ACTS, StaticPods, StepContext};
use super::info::PodInfo;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::datadir::{holders, is_held};
use crate::event::Event;
use crate::node::component::Component;
use crate::node::runtime::{Container, ContainerState, Runtime, Sandbox};

/// How long pods must be gone before they count as stopped: the kubelet may be about to start a
/// container of a pod whose manifest was just moved.
const QUIET: Duration = Duration::from_millis(500);

impl StepContext {
    /// Records what runs before manifests are moved away: if a container ends after that, the
    /// kubelet has seen them go. The wait reports a runtime that does not answer.
    pub(crate) async fn note_running(&self) {
        let listed = match self.runtime().await {
            Ok(runtime) => runtime.containers().await,
            Err(failure) => Err(failure),
        };
        let running = listed.unwrap_or_default().into_iter();
        let running = running.filter(|container| container.state == ContainerState::Running);
        if let Ok(mut ran) = self.ran.lock() {
            // Manifests may go in several steps that one wait follows.
            ran.extend(running.map(|container| container.id));
        }
    }

    /// Waits until no container of these pods is left and, if etcd's is among them, no process
    /// holds the database. Then has the runtime forget their containers: the kubelet would count
    /// them as crashes and start the pods late. Before a manifest comes back, wait for
    /// [`relisted`](Self::relisted), too.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] after the bound, with what is left; those of asking the runtime.
    pub(crate) async fn stopped(&self, pods: &[&PodInfo]) -> Result<()> {
        let stopping = Stopping::new(self, pods).await?;
        let waited = self
            .wait("the static pods to stop", || stopping.look())
            .await;
        stopping.shorten.report(&self.context);
        waited.map_err(|failure| {
            match failure.kind() == Kind::Unreachable && stopping.nobody_acts() {
                true => Failure::new(Kind::Unreachable, format!("{failure}; {NOBODY_ACTS}")),
                false => failure,
            }
        })?;
        self.forget_exited(pods).await;
        Ok(())
    }

    /// Has the runtime forget what is left of these pods. The kubelet takes each exited container
    /// for a crash of a pod with the same manifest, and waits up to five minutes before it starts
    /// the next (kubernetes, `pkg/kubelet/kuberuntime/kuberuntime_manager.go`, `doBackOff`). If the
    /// runtime refuses, the pods only start later, and a note says so.
    pub(crate) async fn forget_exited(&self, pods: &[&PodInfo]) {
        let forget = async {
            let runtime = self.runtime().await?;
            let containers = runtime.containers().await?;
            let sandboxes = runtime.sandboxes().await?;
            let left = Left::of(&self.static_pods(), pods, &containers, &sandboxes);
            // All at once: each takes the runtime a while.
            let removals = left.iter().map(|left| left.remove(&runtime));
            let removed: Result<()> = join_all(removals).await.into_iter().collect();
            if !left.is_empty() {
                self.relisted.removed();
            }
            removed?;
            Ok::<(), Failure>(())
        };
        if let Err(failure) = forget.await {
            self.context.tell(Event::Note(format!(
                "the kubelet may start the pods late, as after crashes: {failure}"
            )));
        }
    }

    /// Waits until the kubelet knows of everything that was removed, so that manifests may come
    /// back. What else is to be done until then is done before.
    ///
    /// # Errors
    /// [`Kind::Interrupted`].
    pub(crate) async fn relisted(&self) -> Result<()> {
        let at = self.relisted.at();
        let wait = async {
            if let Some(at) = at {
                tokio::time::sleep_until(at).await;
            }
            Ok(())
        };
        self.context.cancel.guard(wait).await
    }
}

/// Something that the runtime lists of a pod that has ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// A pod that does not stand, with all its containers.
    Sandbox(String),
    /// A container by itself.
    Container(String),
}

impl Left {
    /// What is left of these pods.
    fn of(
        names: &StaticPods,
        pods: &[&PodInfo],
        containers: &[Container],
        sandboxes: &[Sandbox],
    ) -> Vec<Self> {
        let exited = |container: &&Container| container.state == ContainerState::Exited;
        let over = |sandbox: &&Sandbox| {
            let mut containers = containers.iter();
            !sandbox.ready
                && pods.iter().any(|pod| names.is_sandbox(pod, sandbox))
                && containers.all(|c| c.sandbox_id != sandbox.id || exited(&c))
        };
        let over: Vec<&Sandbox> = sandboxes.iter().filter(over).collect();
        let alone = containers.iter().filter(exited).filter(|container| {
            let mut pods = pods.iter();
            !over.iter().any(|s| s.id == container.sandbox_id)
                && pods.any(|pod| names.is_container(pod, container, sandboxes))
        });
        let alone = alone.map(|container| Self::Container(container.id.clone()));
        let over = over.iter().map(|sandbox| Self::Sandbox(sandbox.id.clone()));
        over.chain(alone).collect()
    }

    async fn remove(&self, runtime: &Runtime) -> Result<()> {
        match self {
            Self::Sandbox(id) => runtime.remove_sandbox(id).await,
            Self::Container(id) => runtime.remove_container(id).await,
        }
    }
}

/// A wait for pods to stop.
struct Stopping<'a> {
    node: &'a StepContext,
    pods: &'a [&'a PodInfo],
    runtime: Runtime,
    names: StaticPods,
    shorten: Shorten,
    forget: Forget,
    holder: Explanation,
    /// Since when nothing has been seen of the pods.
    quiet: Cell<Option<Instant>>,
    /// Whether the last look was answered.
    answered: Cell<bool>,
}

impl<'a> Stopping<'a> {
    async fn new(node: &'a StepContext, pods: &'a [&'a PodInfo]) -> Result<Self> {
        Ok(Self {
            node,
            pods,
            runtime: node.runtime().await?,
            names: node.static_pods(),
            shorten: Shorten::default(),
            forget: Forget::default(),
            holder: Explanation::default(),
            quiet: Cell::default(),
            answered: Cell::new(false),
        })
    }

    /// Whether the runtime answers, but the kubelet has not acted on the manifests.
    fn nobody_acts(&self) -> bool {
        self.answered.get() && !self.shorten.acts.get()
    }

    async fn look(&self) -> Result<Look> {
        self.answered.set(false);
        let there = self.still_there().await?;
        self.answered.set(true);
        if !there.is_empty() {
            self.quiet.set(None);
            return Ok(Look::NotYet(there.join(", ")));
        }
        if self.forget.is_pending() {
            self.quiet.set(None);
            return Ok(Look::NotYet("what has exited is still listed".to_owned()));
        }
        let since = self.quiet.get().unwrap_or_else(Instant::now);
        self.quiet.set(Some(since));
        Ok(match since.elapsed() >= QUIET {
            true => Look::There,
            false => Look::NotYet("looking again".to_owned()),
        })
    }

    /// The containers that have not ended, and the holder of the database if one is etcd's. Once
    /// the kubelet is ending them, those that are not etcd's are asked to end with a shorter grace
    /// period.
    async fn still_there(&self) -> Result<Vec<String>> {
        let containers = self.runtime.containers().await?;
        let sandboxes = self.runtime.sandboxes().await?;
        let pod_of = |container: &Container| {
            let mut pods = self.pods.iter();
            pods.find(|pod| self.names.is_container(pod, container, &sandboxes))
        };
        let ours: Vec<(&Container, &&PodInfo)> = containers
            .iter()
            .filter_map(|container| Some((container, pod_of(container)?)))
            .collect();
        self.shorten.see(&ours, &self.node.ran);
        let mut there = self.standing(&ours, &sandboxes);
        let etcd = self.pods.iter().any(|pod| is_etcd(pod));
        let held = if etcd { self.holding().await? } else { None };
        // Whatever the runtime says of it, an etcd that holds the database has not ended.
        let ended = self.pods.iter().copied();
        let ended: Vec<&PodInfo> = ended
            .filter(|pod| held.is_none() || !is_etcd(pod))
            .collect();
        for left in Left::of(&self.names, &ended, &containers, &sandboxes) {
            // The kubelet and the runtime may still be busy with these.
            if matches!(left, Left::Sandbox(_)) {
                self.forget.ask(self.node, &self.runtime, left);
            }
        }
        there.extend(held);
        Ok(there)
    }

    /// The containers that have not exited, and the sandboxes that are ready without one.
    fn standing(&self, ours: &[(&Container, &&PodInfo)], sandboxes: &[Sandbox]) -> Vec<String> {
        let mut there = Vec::new();
        let exited = |container: &Container| container.state == ContainerState::Exited;
        let left: Vec<_> = ours.iter().filter(|(c, _)| !exited(c)).collect();
        for (container, pod) in &left {
            there.push(format!(
                "container {} of pod {} is {}",
                container.name,
                container.pod_name,
                word(&container.state)
            ));
            if let Some(grace) = self.node.facts.grace
                && self.shorten.acts.get()
                && !is_etcd(pod)
            {
                self.shorten.ask(&self.runtime, &container.id, grace);
            }
        }
        // The kubelet may have just made a sandbox, and be about to start its first container.
        let ready = sandboxes.iter().filter(|sandbox| {
            let empty = !left.iter().any(|(c, _)| c.sandbox_id == sandbox.id);
            let mut pods = self.pods.iter();
            sandbox.ready && empty && pods.any(|pod| self.names.is_sandbox(pod, sandbox))
        });
        there.extend(ready.map(|sandbox| format!("pod {} is still ready", sandbox.pod_name)));
        there
    }

    /// Who holds the database.
    async fn holding(&self) -> Result<Option<String>> {
        let data_dir = self.node.host(&self.node.facts.etcd.data_dir);
        if !is_held(&data_dir)? {
            return Ok(None);
        }
        // Finding the holder means looking at every process of the node.
        let who = async { holders(&data_dir).ok()?.map(|holder| holder.to_string()) };
        let who = self.holder.get(who).await;
        Ok(Some(format!(
            "{} holds the database in {}",
            who.as_deref().unwrap_or("a process"),
            data_dir.display()
        )))
    }
}

fn is_etcd(pod: &PodInfo) -> bool {
    pod.component == Component::Etcd.name()
}

/// Asks containers to end sooner than the kubelet would have it.
///
/// Only once the kubelet acts: before that, a kubelet that has not seen the manifest go would start
/// the container again, or, if no kubelet runs, none would.
#[derive(Default)]
struct Shorten {
    /// Whether the kubelet is seen to act.
    acts: Cell<bool>,
    /// What was there at the first look.
    first: RefCell<Option<BTreeSet<String>>>,
    asked: RefCell<BTreeMap<String, JoinHandle<Result<()>>>>,
}

impl Shorten {
    /// Looks whether something of the pods has ended since the manifests went.
    fn see(&self, ours: &[(&Container, &&PodInfo)], ran: &Mutex<BTreeSet<String>>) {
        let are = |state: ContainerState| {
            let ours = ours.iter().filter(move |(c, _)| c.state == state);
            ours.map(|(container, _)| container.id.clone())
        };
        let running: BTreeSet<String> = are(ContainerState::Running).collect();
        let ran = ran.lock().map(|ran| ran.clone()).unwrap_or_default();
        let ended = are(ContainerState::Exited).any(|id| ran.contains(&id));
        let mut first = self.first.borrow_mut();
        let first = first.get_or_insert_with(|| running.clone());
        if ended || !first.is_subset(&running) {
            self.acts.set(true);
        }
    }

    fn ask(&self, runtime: &Runtime, id: &str, grace: Duration) {
        let mut asked = self.asked.borrow_mut();
        if asked.contains_key(id) {
            return;
        }
        let (runtime, container) = (runtime.clone(), id.to_owned());
        let call = async move { runtime.stop_container(&container, grace).await };
        asked.insert(id.to_owned(), tokio::spawn(call));
    }

    /// Reports what the runtime refused. Abandons requests that are still under way: the pods have
    /// ended, or the wait has.
    fn report(&self, context: &Context) {
        use futures_util::FutureExt;
        for (_, call) in std::mem::take(&mut *self.asked.borrow_mut()) {
            match call.is_finished() {
                false => call.abort(),
                true => {
                    if let Some(Ok(Err(failure))) = call.now_or_never() {
                        context.tell(Event::Note(failure.to_string()));
                    }
                }
            }
        }
    }
}

/// What the runtime was asked to forget while other pods are still waited for.
#[derive(Default)]
struct Forget(RefCell<BTreeMap<Left, JoinHandle<Result<()>>>>);

impl Forget {
    fn ask(&self, node: &StepContext, runtime: &Runtime, left: Left) {
        let mut asked = self.0.borrow_mut();
        if asked.contains_key(&left) {
            return;
        }
        let (runtime, wanted) = (runtime.clone(), left.clone());
        let relisted = node.relisted.clone();
        let call = async move {
            let removed = wanted.remove(&runtime).await;
            // A removal without an answer may have been carried out.
            relisted.removed();
            removed
        };
        asked.insert(left, tokio::spawn(call));
    }

    /// Whether an answer is still due. A refused container is still listed, and
    /// [`StepContext::forget_exited`] asks again later and reports why.
    fn is_pending(&self) -> bool {
        !self.0.borrow().values().all(JoinHandle::is_finished)
    }
}

/// The word for a container's state.
fn word(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
        ContainerState::Unknown => "in an unknown state",
    }
}
