//! A STAND-IN for a node's kubelet and container runtime, around REAL etcd processes.
//!
//! What a restore does to a node, it does through the kubelet: it takes manifests away, waits
//! until the runtime says that nothing runs, and puts others there. A true kubelet and a true
//! runtime need root, own namespaces and most of a minute for each change; and neither can be
//! told to hang, to lie or never to stop a pod. The stand-in does what they do as far as it can
//! be seen from outside: it polls the manifests' directory, runs what it finds there, and answers
//! the CRI. The container `etcd` of the pod `etcd` is a real etcd on the node's own data; every
//! other pod is one real process that does nothing, so that "it has stopped" is true of something.
//!
//! What differs from a true kubelet: changes are seen within 50 ms and not seconds; a manifest
//! that goes and comes back between two looks is not seen to have gone; nothing is probed or
//! pulled; a manifest that cannot be read counts as absent at once, where the kubelet may continue
//! with what it has for a while.

mod faults;
mod kubelet;
mod messages;
pub mod program;
mod records;
mod runtime;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::cluster::Cluster;
use crate::launch::EtcdLaunch;
use crate::process::wait_for;

// No suite names all of them.
#[allow(unused_imports)]
pub use faults::{Answer, Faults, Lie, Stop};
pub use records::{ContainerRecord, SandboxRecord};

/// How long the stand-in may take for what it is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// What the etcd container does without data: OpenShift's asks the cluster, in its program
/// `discover-etcd-initial-cluster`; here it is told.
#[derive(Debug, Clone)]
pub enum Empty {
    /// It fails, and is started again and again.
    Refuse,
    /// It joins as a member that was added, with this `--initial-cluster`.
    Join(String),
    /// It starts a new cluster.
    New,
}

/// The versions of the CRI that the runtime serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Both, as containerd 1.6.
    Both,
    /// Only the newer.
    V1,
    /// Only the older.
    V1alpha2,
}

/// What the bench is to be like.
#[derive(Debug, Clone)]
pub struct BenchSpec {
    /// The node's root.
    pub root: PathBuf,
    /// Where its manifests are, below the root.
    pub manifests: PathBuf,
    /// The node's name.
    pub node: String,
    /// How its etcd is started; without, the etcd pod is like the others.
    pub etcd: Option<EtcdLaunch>,
    /// What etcd does without data.
    pub empty: Empty,
    /// From asking a process to end until it is killed.
    pub grace: Duration,
    /// From a process's own end until it is started again.
    pub restart_after: Duration,
    /// From a container's end until a pod of the same manifest starts again, as long as the runtime
    /// lists that container: the kubelet takes it for a crash.
    pub back_off: Duration,
    /// The runtime's API.
    pub api: Api,
}

impl BenchSpec {
    /// A node as OpenShift's, which refuses to start an etcd without data.
    pub fn new(root: &Path, node: &str) -> Self {
        Self {
            root: root.to_owned(),
            manifests: PathBuf::from("etc/kubernetes/manifests"),
            node: node.to_owned(),
            etcd: None,
            empty: Empty::Refuse,
            grace: Duration::from_secs(15),
            restart_after: Duration::from_secs(1),
            back_off: Duration::ZERO,
            api: Api::Both,
        }
    }
}

/// What kubelet, runtime and test share.
struct Shared {
    node: String,
    records: Mutex<records::Records>,
    faults: Mutex<Faults>,
    log: Mutex<Vec<String>>,
    /// Containers that the runtime was told to stop, and when each is killed.
    stops: Mutex<Vec<(String, Instant)>>,
    /// Whether what runs was what the manifests said, when last looked.
    settled: AtomicBool,
    ticks: AtomicU64,
    stop: AtomicBool,
    gentle: AtomicBool,
}

impl Shared {
    fn say(&self, line: String) {
        let mut log = lock(&self.log);
        if log.last() != Some(&line) {
            log.push(line);
        }
    }

    /// Says so each time.
    fn say_each(&self, line: &str) {
        lock(&self.log).push(line.to_owned());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A node that runs what its manifests say; dropping it kills all that it started.
pub struct NodeBench {
    root: PathBuf,
    shared: Arc<Shared>,
    kubelet: Option<JoinHandle<()>>,
    runtime: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl NodeBench {
    /// Starts kubelet and runtime, and waits until every manifest that is there runs.
    pub fn start(spec: BenchSpec) -> Self {
        let shared = Arc::new(Shared {
            node: spec.node.clone(),
            records: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
            stops: Mutex::default(),
            settled: AtomicBool::default(),
            ticks: AtomicU64::default(),
            stop: AtomicBool::default(),
            gentle: AtomicBool::default(),
        });
        let root = spec.root.clone();
        let runtime = start_runtime(&root, shared.clone(), spec.api);
        let kubelet = kubelet::Kubelet::new(spec, shared.clone());
        let kubelet = std::thread::Builder::new()
            .name("kubelet".to_owned())
            .spawn(move || kubelet.run())
            .expect("starting the stand-in kubelet");
        let bench = Self {
            root,
            shared,
            kubelet: Some(kubelet),
            runtime: Some(runtime),
        };
        bench.settle();
        bench
    }

    /// Takes a member over: the cluster stops it, and from now on the member's node runs it. Its
    /// manifests must be there already ([`super::node::make`]).
    pub fn adopt(cluster: &mut Cluster, i: usize, change: impl FnOnce(&mut BenchSpec)) -> Self {
        let mut spec = BenchSpec::new(cluster.node_root(i), cluster.name(i));
        spec.etcd = Some(cluster.release(i));
        change(&mut spec);
        Self::start(spec)
    }

    /// The node's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the runtime listens.
    pub fn socket(&self) -> PathBuf {
        self.root.join("run/crio/crio.sock")
    }

    /// Where the manifests are.
    pub fn manifests(&self) -> PathBuf {
        self.root.join("etc/kubernetes/manifests")
    }

    /// Changes what goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.shared.faults));
    }

    /// Lets nothing go wrong from now on.
    pub fn no_faults(&self) {
        self.faults(|faults| *faults = Faults::default());
    }

    /// Every container that was ever started, and the truth about it.
    pub fn containers(&self) -> Vec<ContainerRecord> {
        lock(&self.shared.records).containers.clone()
    }

    /// Every sandbox that was ever made, and the truth about it.
    pub fn sandboxes(&self) -> Vec<SandboxRecord> {
        lock(&self.shared.records).sandboxes.clone()
    }

    /// The process of a pod's container, if it runs; the pod by its manifest's name.
    pub fn pid(&self, pod: &str, container: &str) -> Option<u32> {
        self.containers()
            .iter()
            .rev()
            .find(|c| c.manifest_name == pod && c.name == container && c.running)
            .and_then(|c| c.pid)
    }

    /// Whether any container of a pod runs.
    pub fn runs(&self, pod: &str) -> bool {
        self.containers()
            .iter()
            .any(|c| c.manifest_name == pod && c.running)
    }

    /// What the kubelet did so far.
    pub fn log(&self) -> Vec<String> {
        lock(&self.shared.log).clone()
    }

    /// Waits until what runs is what the manifests say: nothing starts or ends any more. A
    /// process that fails again and again counts as started.
    pub fn settle(&self) {
        let seen = self.shared.ticks.load(Ordering::SeqCst);
        self.until("the kubelet to have done all", || {
            // Two looks that both began after this call.
            self.shared.ticks.load(Ordering::SeqCst) >= seen + 2
                && self.shared.settled.load(Ordering::SeqCst)
        });
    }

    /// Waits for something; panics with the kubelet's log when it does not come.
    pub fn until(&self, what: &str, check: impl Fn() -> bool) {
        let waited = wait_for(what, LIMIT, || match check() {
            true => Ok(()),
            false => Err("not yet"),
        });
        if let Err(error) = waited {
            panic!("{error}\n{}", self.log().join("\n"));
        }
    }

    /// Moves a manifest where the documented procedure does, without waiting for the pod's end.
    pub fn take_out(&self, file: &str) {
        let aside = self.aside();
        std::fs::create_dir_all(&aside).expect("making a folder for manifests");
        std::fs::rename(self.manifests().join(file), aside.join(file))
            .unwrap_or_else(|error| panic!("taking {file} out: {error}"));
    }

    /// Moves it back, without waiting for the pod's start.
    pub fn put_back(&self, file: &str) {
        std::fs::rename(self.aside().join(file), self.manifests().join(file))
            .unwrap_or_else(|error| panic!("putting {file} back: {error}"));
    }

    fn aside(&self) -> PathBuf {
        self.root.join("home/core/assets/manifests-stopped")
    }

    /// Ends everything as a shutdown does: asked first, killed after the grace.
    pub fn stop(mut self) {
        self.shared.gentle.store(true, Ordering::SeqCst);
        self.finish();
    }

    fn finish(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(kubelet) = self.kubelet.take()
            && kubelet.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the stand-in kubelet panicked");
        }
        if let Some((stop, runtime)) = self.runtime.take() {
            // It may have ended by itself, which its thread then tells.
            let _ = stop.send(());
            if runtime.join().is_err() && !std::thread::panicking() {
                panic!("the stand-in runtime panicked");
            }
        }
    }
}

impl Drop for NodeBench {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Serves the CRI from its own thread, so that suites without a runtime can use the bench.
fn start_runtime(
    root: &Path,
    shared: Arc<Shared>,
    api: Api,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let socket = root.join("run/crio/crio.sock");
    let (stop, stopped) = oneshot::channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("runtime".to_owned())
        .spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("starting tokio");
            executor.block_on(async {
                let listener = runtime::bind(&socket);
                ready.send(()).expect("the bench waits");
                runtime::serve(listener, shared, api, stopped).await;
            });
        })
        .expect("starting the stand-in runtime");
    is_ready.recv().expect("the stand-in runtime listens");
    (stop, thread)
}
