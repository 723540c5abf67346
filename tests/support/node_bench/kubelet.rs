//! The stand-in kubelet: runs what is in the manifests' directory, and stops what does not.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::faults::Stop;
use super::records::{ContainerRecord, SandboxRecord, now};
use super::{BenchSpec, Empty, Shared, lock};
use crate::process::{bound_command, spawn_bound};

/// How often the manifests are looked at.
const POLL: Duration = Duration::from_millis(50);

/// A manifest that is there.
struct Wanted {
    uid: String,
    pod: PodText,
}

/// What is needed of a manifest.
#[derive(Clone)]
struct PodText {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// Name and image of each.
    init_containers: Vec<(String, String)>,
    containers: Vec<(String, String)>,
}

/// A pod that runs or ends.
struct Pod {
    file: PathBuf,
    uid: String,
    text: PodText,
    sandbox: String,
    processes: Vec<Process>,
    ending: Option<Ending>,
}

/// A process, and the containers that it stands for.
struct Process {
    containers: Vec<(String, String)>,
    ids: Vec<String>,
    child: Option<Child>,
    restart_at: Option<Instant>,
}

impl Process {
    fn signal(&mut self, signal: Signal) {
        let Some(child) = &mut self.child else { return };
        // Not collected yet, so that the id is still its own.
        if matches!(child.try_wait(), Ok(None)) {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let pid = pid.expect("a process id is positive");
            kill_process(pid, signal).expect("signalling a pod's process");
        }
    }
}

struct Ending {
    since: Instant,
    asked: Option<Instant>,
}

pub struct Kubelet {
    spec: BenchSpec,
    shared: Arc<Shared>,
    pods: Vec<Pod>,
}

impl Kubelet {
    pub fn new(spec: BenchSpec, shared: Arc<Shared>) -> Self {
        Self {
            spec,
            shared,
            pods: Vec::new(),
        }
    }

    /// Runs until told to stop; then ends everything that runs, as a node's shutdown does.
    pub fn run(mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.tick();
            std::thread::sleep(POLL);
        }
        let gentle = self.shared.gentle.load(Ordering::SeqCst);
        let deadline = Instant::now()
            + if gentle {
                self.spec.grace
            } else {
                Duration::ZERO
            };
        for pod in &mut self.pods {
            pod.signal(if gentle { Signal::TERM } else { Signal::KILL });
        }
        while self.pods.iter_mut().any(Pod::lives) {
            if Instant::now() >= deadline {
                self.pods
                    .iter_mut()
                    .for_each(|pod| pod.signal(Signal::KILL));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.pods.iter_mut().for_each(|pod| pod.reap(&self.shared));
        for pod in &self.pods {
            mark_not_ready(&self.shared, &pod.sandbox);
        }
    }

    fn tick(&mut self) {
        let wanted = self.wanted();
        for pod in &mut self.pods {
            pod.reap(&self.shared);
            let stays = wanted.get(&pod.file).is_some_and(|w| w.uid == pod.uid);
            if !stays && pod.ending.is_none() {
                self.shared.say(format!("{} is to stop", pod.text.name));
                pod.ending = Some(Ending {
                    since: Instant::now(),
                    asked: None,
                });
            }
        }
        self.end();
        self.stop_asked();
        self.restart();
        for (file, wanted) in &wanted {
            let same = |pod: &Pod| {
                pod.text.name == wanted.pod.name && pod.text.namespace == wanted.pod.namespace
            };
            let backs_off = || {
                let ended = lock(&self.shared.records).last_end(&wanted.uid);
                ended.is_some_and(|ended| ended.elapsed() < self.spec.back_off)
            };
            if !self.pods.iter().any(same) && !backs_off() {
                let pod = self.start(file, wanted);
                self.pods.push(pod);
            }
        }
        let settled =
            self.pods.iter().all(|pod| pod.ending.is_none()) && self.pods.len() == wanted.len();
        self.shared.settled.store(settled, Ordering::SeqCst);
        self.shared.ticks.fetch_add(1, Ordering::SeqCst);
    }

    /// Brings ending pods further.
    fn end(&mut self) {
        let faults = lock(&self.shared.faults).clone();
        for pod in &mut self.pods {
            let lives = pod.lives();
            let Some(ending) = &pod.ending else {
                continue;
            };
            let stop = match faults.is_about(&pod.text.name) {
                true => faults.stop,
                false => Stop::Prompt,
            };
            let may = match stop {
                Stop::Prompt => true,
                Stop::After(delay) => ending.since.elapsed() >= delay,
                Stop::Never => false,
            };
            match ending.asked {
                None if may || !lives => {
                    pod.ending = Some(Ending {
                        since: ending.since,
                        asked: Some(Instant::now()),
                    });
                    pod.signal(Signal::TERM);
                }
                Some(asked) if asked.elapsed() >= self.spec.grace => pod.signal(Signal::KILL),
                _ => {}
            }
        }
        let shared = self.shared.clone();
        self.pods.retain_mut(|pod| {
            let over = pod.ending.as_ref().is_some_and(|e| e.asked.is_some()) && !pod.lives();
            if over {
                pod.reap(&shared);
                mark_not_ready(&shared, &pod.sandbox);
                shared.say(format!("{} has stopped", pod.text.name));
            }
            !over
        });
    }

    /// What the runtime does when it is told to stop containers: asks, and kills in the end.
    fn stop_asked(&mut self) {
        let faults = lock(&self.shared.faults).clone();
        let mut stops = lock(&self.shared.stops);
        for (id, deadline) in stops.iter() {
            for pod in &mut self.pods {
                if faults.stop == Stop::Never && faults.is_about(&pod.text.name) {
                    continue;
                }
                let late = Instant::now() >= *deadline;
                let signal = if late { Signal::KILL } else { Signal::TERM };
                pod.signal_container(id, signal);
            }
        }
        let records = lock(&self.shared.records);
        let runs = |id: &String| records.containers.iter().any(|c| c.id == *id && c.running);
        stops.retain(|(id, _)| runs(id));
    }

    /// Starts again what ended by itself.
    fn restart(&mut self) {
        for pod in self.pods.iter_mut().filter(|pod| pod.ending.is_none()) {
            for process in &mut pod.processes {
                if process.child.is_some() {
                    continue;
                }
                let at = *process
                    .restart_at
                    .get_or_insert_with(|| Instant::now() + self.spec.restart_after);
                if Instant::now() >= at {
                    let (spec, shared) = (&self.spec, &self.shared);
                    let containers = std::mem::take(&mut process.containers);
                    *process = launch(spec, shared, &pod.text, &pod.uid, &pod.sandbox, containers);
                }
            }
        }
    }

    fn start(&self, file: &Path, wanted: &Wanted) -> Pod {
        let Wanted { uid, pod } = wanted;
        let sandbox = self.sandbox(uid, pod);
        self.shared.say(format!("{} starts", pod.name));
        let mut started = Pod {
            file: file.to_owned(),
            uid: uid.clone(),
            text: pod.clone(),
            sandbox: sandbox.clone(),
            processes: Vec::new(),
            ending: None,
        };
        record(&self.shared, pod, uid, &sandbox, &pod.init_containers, None);
        let is_etcd = |name: &str| self.spec.etcd.is_some() && pod.name == "etcd" && name == "etcd";
        let (etcd, others): (Vec<_>, Vec<_>) = pod
            .containers
            .iter()
            .cloned()
            .partition(|(name, _)| is_etcd(name));
        for containers in [etcd, others].into_iter().filter(|list| !list.is_empty()) {
            let process = launch(&self.spec, &self.shared, pod, uid, &sandbox, containers);
            started.processes.push(process);
        }
        started
    }

    fn sandbox(&self, uid: &str, pod: &PodText) -> String {
        let mut records = lock(&self.shared.records);
        let id = records.new_id();
        let mut labels = pod.labels.clone();
        labels.extend(pod_labels(pod, uid, &self.spec.node));
        let mut annotations = pod.annotations.clone();
        for (name, value) in [("hash", uid), ("source", "file")] {
            annotations.insert(format!("kubernetes.io/config.{name}"), value.to_owned());
        }
        let attempt = records.sandbox_attempts(uid);
        records.sandboxes.push(SandboxRecord {
            id: id.clone(),
            manifest_name: pod.name.clone(),
            name: mirror_name(pod, &self.spec.node),
            namespace: pod.namespace.clone(),
            uid: uid.to_owned(),
            attempt,
            ready: true,
            removed: false,
            created: now(),
            labels,
            annotations,
        });
        id
    }

    /// The manifests that are there and can be read.
    fn wanted(&self) -> BTreeMap<PathBuf, Wanted> {
        let mut wanted = BTreeMap::new();
        if lock(&self.shared.faults).blind {
            return wanted;
        }
        let Ok(entries) = std::fs::read_dir(self.spec.root.join(&self.spec.manifests)) else {
            return wanted;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            // As the kubelet's glob `[^.]*`: whatever the ending.
            if entry.file_name().to_string_lossy().starts_with('.') || !path.is_file() {
                continue;
            }
            let Ok(bytes) = std::fs::read(&path) else {
                continue;
            };
            let Some(pod) = parse(&bytes) else {
                self.shared
                    .say(format!("{} is no manifest", path.display()));
                continue;
            };
            let mut hash = Sha256::new();
            hash.update(&bytes);
            hash.update(format!("host:{}file:{}", self.spec.node, path.display()));
            let uid = hex::encode(hash.finalize())[..32].to_owned();
            wanted.insert(path, Wanted { uid, pod });
        }
        wanted
    }
}

impl Pod {
    fn signal(&mut self, signal: Signal) {
        for process in &mut self.processes {
            process.signal(signal);
        }
    }

    fn signal_container(&mut self, id: &String, signal: Signal) {
        let processes = self.processes.iter_mut();
        for process in processes.filter(|process| process.ids.contains(id)) {
            process.signal(signal);
        }
    }

    fn lives(&mut self) -> bool {
        self.processes
            .iter_mut()
            .filter_map(|process| process.child.as_mut())
            .any(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Collects the processes that ended.
    fn reap(&mut self, shared: &Shared) {
        for process in &mut self.processes {
            let Some(child) = &mut process.child else {
                continue;
            };
            if let Ok(Some(status)) = child.try_wait() {
                let how = match status.signal() {
                    Some(signal) => format!("signal {signal}"),
                    None => format!("status {:?}", status.code()),
                };
                shared.say(format!("a process of {} ended: {how}", self.text.name));
                lock(&shared.records).ended(&process.ids);
                process.child = None;
                process.restart_at = None;
            }
        }
    }
}

/// Starts a process for these containers, and lists them.
fn launch(
    spec: &BenchSpec,
    shared: &Shared,
    pod: &PodText,
    uid: &str,
    sandbox: &str,
    containers: Vec<(String, String)>,
) -> Process {
    let etcd = spec
        .etcd
        .as_ref()
        .filter(|_| pod.name == "etcd" && containers.iter().any(|(name, _)| name == "etcd"));
    let command = match etcd {
        None => sleep(),
        Some(etcd) => {
            let member = etcd.data_dir.join("member");
            let has_data =
                std::fs::read_dir(member).is_ok_and(|mut entries| entries.next().is_some());
            match &spec.empty {
                _ if has_data => etcd.command(&etcd.initial_cluster, "existing"),
                Empty::New => etcd.command(&etcd.initial_cluster, "new"),
                Empty::Join(initial_cluster) => etcd.command(initial_cluster, "existing"),
                Empty::Refuse => bound_command(Path::new("false")),
            }
        }
    };
    let child = spawn_bound(command).unwrap_or_else(|error| panic!("starting a process: {error}"));
    let ids = record(shared, pod, uid, sandbox, &containers, Some(child.id()));
    Process {
        containers,
        ids,
        child: Some(child),
        restart_at: None,
    }
}

fn sleep() -> Command {
    let mut command = bound_command(Path::new("sleep"));
    command.arg("infinity");
    command
}

/// Lists containers; those without a process have ended.
fn record(
    shared: &Shared,
    pod: &PodText,
    uid: &str,
    sandbox: &str,
    containers: &[(String, String)],
    pid: Option<u32>,
) -> Vec<String> {
    let mut records = lock(&shared.records);
    let mut ids = Vec::new();
    for (name, image) in containers {
        let id = records.new_id();
        let mut labels = pod_labels(pod, uid, &shared.node);
        labels.insert("io.kubernetes.container.name".to_owned(), name.clone());
        let attempt = records.attempts(uid, name);
        records.containers.push(ContainerRecord {
            id: id.clone(),
            sandbox_id: sandbox.to_owned(),
            manifest_name: pod.name.clone(),
            name: name.clone(),
            attempt,
            image: image.clone(),
            running: pid.is_some(),
            pid,
            created: now(),
            ended: None,
            removed: false,
            labels,
        });
        ids.push(id);
    }
    ids
}

fn mark_not_ready(shared: &Shared, id: &str) {
    for sandbox in &mut lock(&shared.records).sandboxes {
        if sandbox.id == id {
            sandbox.ready = false;
        }
    }
}

fn mirror_name(pod: &PodText, node: &str) -> String {
    format!("{}-{}", pod.name, node.to_lowercase())
}

fn pod_labels(pod: &PodText, uid: &str, node: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("io.kubernetes.pod.name".to_owned(), mirror_name(pod, node)),
        (
            "io.kubernetes.pod.namespace".to_owned(),
            pod.namespace.clone(),
        ),
        ("io.kubernetes.pod.uid".to_owned(), uid.to_owned()),
    ])
}

/// Reads a manifest, JSON or YAML; nothing if it is not one, or incomplete.
fn parse(bytes: &[u8]) -> Option<PodText> {
    // Without a byte order mark, and the first of several documents.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let document = serde_yaml_ng::Deserializer::from_slice(bytes).next()?;
    let value = Value::deserialize(document).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let strings = |value: &Value| -> BTreeMap<String, String> {
        let pairs = value.as_object().into_iter().flatten();
        pairs
            .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect()
    };
    let containers = |value: &Value| -> Vec<(String, String)> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|c| Some((text(&c["name"])?, text(&c["image"]).unwrap_or_default())))
            .collect()
    };
    let (meta, spec) = (&value["metadata"], &value["spec"]);
    let pod = PodText {
        name: text(&meta["name"])?,
        namespace: text(&meta["namespace"]).unwrap_or_else(|| "default".to_owned()),
        labels: strings(&meta["labels"]),
        annotations: strings(&meta["annotations"]),
        init_containers: containers(&spec["initContainers"]),
        containers: containers(&spec["containers"]),
    };
    (value["kind"] == "Pod" && !pod.containers.is_empty()).then_some(pod)
}
