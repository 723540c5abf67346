//! A node of a kubelet, a container runtime and four static pods, in its own namespaces, and
//! what the tests ask of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use etcd_dr::node::runtime::{Container, ContainerState, Runtime, Sandbox};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::image;
use testbench::bins::{self, EtcdBins};
use testbench::bulk::block_on;
use testbench::certs::ClusterCerts;
use testbench::golden::{self, Run};
use testbench::kube::{CLUSTER_VERSION_KEY, OPERATORS, OpenShift, cluster_operator_key};
use testbench::node::generator;
use testbench::process::{bound_command, expect_success, spawn_bound, tail, wait_for};

/// The node's name, and its only member's.
pub const NAME: &str = "master-0";
/// The node's address.
pub const IP: &str = "192.168.10.10";
/// The kubelet's name of the etcd pod's namespace.
pub const ETCD_NAMESPACE: &str = "openshift-etcd";
/// The containers whose end means that the control plane has stopped: one a component.
pub const MAIN: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];
/// How long the kubelet may take for what is asked of it. On a quiet machine everything runs
/// after half a minute, and all of it has ended within one.
const LIMIT: Duration = Duration::from_secs(300);

/// The revisions of a node, in the form of `make-node.py`.
pub type Revisions = &'static str;
/// What the node runs at first.
pub const FIRST: Revisions = "etcd=7,kube-apiserver=10,kube-controller-manager=8,kube-scheduler=6";

/// The running node. Dropping it ends everything in it.
pub struct RealNode {
    child: Child,
    pid: u32,
    root: PathBuf,
    certs: ClusterCerts,
    bins: EtcdBins,
    // Dropped last: nothing runs in it by then.
    dir: TempDir,
}

/// Boots a node and waits until etcd and the other three run; nothing if this machine cannot,
/// or was not asked to.
pub fn boot() -> Option<RealNode> {
    if std::env::var_os("ETCD_DR_REAL_NODE").is_none_or(|value| value != "1") {
        // Not a gap of this machine's: so said even where nothing may be skipped.
        eprintln!("SKIPPED real_node: it is asked for by itself, with make test-node");
        return None;
    }
    let tools = tools()?;
    let bins = bins::require("3.5")?;
    let started = Instant::now();
    let node = RealNode::start(&tools, bins);
    node.wait_running(&MAIN);
    node.wait_etcd();
    // Written once, so that no later loss of its data can pass for a fresh start.
    fs::remove_file(node.path("/etc/kubernetes/begin")).expect("removing the permission to begin");
    eprintln!("real_node: booted in {:.0?}", started.elapsed());
    node.write_openshift();
    Some(node)
}

/// What `scripts/fetch-node.sh` laid down, if this machine can run it.
fn tools() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache = std::env::var_os("ETCD_DR_CACHE")
        .map_or_else(|| project.join(".cache"), |dir| project.join(dir));
    let tools = cache.join("node");
    let lacking = if !tools.join("VERSIONS").is_file() {
        "no kubelet here: run scripts/fetch-node.sh"
    } else if !rustix::process::geteuid().is_root() {
        "namespaces and mounts need root"
    } else if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "this kubelet wants cgroup v1"
    } else if !["unshare", "nsenter", "ip", "python3"].iter().all(has) {
        "it needs unshare, nsenter, ip and python3"
    } else {
        let real = fs::canonicalize(&tools).expect("following the cache's links");
        return Some(real);
    };
    bins::skip(lacking);
    None
}

fn has(program: &&str) -> bool {
    let asked = Command::new(program)
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

impl RealNode {
    fn start(tools: &Path, bins: EtcdBins) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("etcd-dr-node-")
            .tempdir()
            .expect("making the node's folder");
        let certs = ClusterCerts::new(&dir.path().join("certs"));
        let ip: IpAddr = IP.parse().expect("an address");
        certs.add_member(NAME, ip);
        let root = dir.path().join("root");
        fs::create_dir(&root).expect("making the node's root");
        make_node(&root, &certs, FIRST, "older");
        fs::write(root.join("etc/kubernetes/begin"), "").expect("allowing etcd to begin");
        let shown = dir.path().join("shown");
        show(&shown, tools, &bins, &root);

        let cgroup = name_of(dir.path());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_node/node.sh");
        let log = fs::File::create(dir.path().join("boot.log")).expect("making the boot's log");
        let mut command = bound_command(Path::new("bash"));
        command
            .arg(script)
            .args([&root, tools, &shown])
            .args([&format!("{IP}/24"), NAME, &cgroup])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log once more"))
            .stderr(log);
        let child = spawn_bound(command).expect("starting the node");
        let mut node = Self {
            child,
            pid: 0,
            root,
            certs,
            bins,
            dir,
        };
        node.wait_booted();
        node
    }

    fn wait_booted(&mut self) {
        let booted = wait_for("the node to boot", LIMIT, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the node ended: {status}\n{}", self.logs());
            }
            match self.path("/run/booted").exists() {
                true => Ok(()),
                false => Err("its kubelet has not started"),
            }
        });
        booted.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        let unshare = self.child.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        let children = fs::read_to_string(children).expect("reading who the node is");
        self.pid = children.trim().parse().expect("one process");
    }

    /// The name of its folder, which is its cgroup's too.
    pub fn folder(&self) -> String {
        name_of(self.dir.path())
    }

    /// The host path of a node path.
    pub fn path(&self, node_path: &str) -> PathBuf {
        self.root.join(node_path.trim_start_matches('/'))
    }

    /// A command that runs inside the node.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD") {
                command.env_remove(name);
            }
        }
        command
            .args(["--target", &self.pid.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"])
            .args(["--root", "--wd", "--", program])
            .env_remove("TMPDIR")
            .env("NO_COLOR", "1")
            .env("TZ", "UTC")
            .env("COLUMNS", "100")
            .stdin(Stdio::null());
        command
    }

    /// `etcd-dr` on the node, whose own `/` is its root. It leaves its process id for
    /// [`kill_etcd_dr`](Self::kill_etcd_dr), and does not run for ever.
    fn etcd_dr_command(&self, args: &[&str], progress: &str) -> Command {
        let script = r#"echo $$ > /run/etcd-dr.pid; exec /opt/test/etcd-dr "$@""#;
        let mut command = self.inside("timeout");
        command
            .args(["--signal=KILL", "900", "sh", "-c", script, "etcd-dr"])
            .args(args)
            .args(["--progress", progress]);
        command
    }

    /// Runs `etcd-dr` on the node to its end.
    pub fn etcd_dr(&self, args: &[&str]) -> Run {
        self.etcd_dr_with(args, &[])
    }

    /// The same with variables.
    pub fn etcd_dr_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        let started = Instant::now();
        let mut command = self.etcd_dr_command(args, "never");
        let output = command.envs(variables.iter().copied()).output();
        let output = output.expect("running nsenter");
        let run = Run {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        eprintln!("real_node: after {:.1?}\n{run}", started.elapsed());
        run
    }

    /// Runs `etcd-dr` until it tells an event that this accepts, and kills it then.
    pub fn etcd_dr_killed_at(&self, args: &[&str], accept: impl Fn(&Value) -> bool) {
        let mut child = self
            .etcd_dr_command(args, "json")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("running nsenter");
        let stderr = BufReader::new(child.stderr.take().expect("its stderr"));
        let mut seen = Vec::new();
        for line in stderr.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let now = accept(&event);
            seen.push(line);
            if now {
                let pid = fs::read_to_string(self.path("/run/etcd-dr.pid"));
                let mut kill = self.inside("kill");
                let killed = kill
                    .args(["-KILL", pid.expect("its process id").trim()])
                    .output();
                expect_success("kill", &killed.expect("running kill"));
                child.wait().expect("waiting for nsenter");
                return;
            }
        }
        let status = child.wait().expect("waiting for nsenter");
        panic!("etcd-dr {args:?} ended without it ({status}): {seen:#?}");
    }

    fn etcdctl_command(&self) -> Command {
        let certs = "/etc/kubernetes/static-pod-resources/etcd-certs";
        let mut command = self.inside("/opt/test/etcd/bin/etcdctl");
        command
            .arg("--endpoints=https://127.0.0.1:2379")
            .arg(format!(
                "--cacert={certs}/configmaps/etcd-all-bundles/server-ca-bundle.crt"
            ))
            .arg(format!(
                "--cert={certs}/secrets/etcd-all-certs/etcd-peer-{NAME}.crt"
            ))
            .arg(format!(
                "--key={certs}/secrets/etcd-all-certs/etcd-peer-{NAME}.key"
            ))
            .arg("--command-timeout=10s")
            .env("ETCDCTL_API", "3");
        command
    }

    fn try_etcdctl(&self, args: &[&str]) -> Output {
        let output = self.etcdctl_command().args(args).output();
        output.expect("running etcdctl")
    }

    /// Runs the node's etcdctl, which has to succeed.
    pub fn etcdctl(&self, args: &[&str]) -> String {
        expect_success("etcdctl", &self.try_etcdctl(args))
    }

    /// Writes a key, its value through stdin.
    pub fn put(&self, key: &str, value: &[u8]) {
        let mut command = self.etcdctl_command();
        let mut child = command
            .args(["put", key])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("running etcdctl");
        let mut stdin = child.stdin.take().expect("its stdin");
        stdin.write_all(value).expect("giving etcdctl the value");
        drop(stdin);
        assert!(child.wait().expect("waiting for etcdctl").success());
    }

    /// Every key with its value and revisions, but for what the whole answer bears.
    pub fn keys(&self) -> Vec<Value> {
        let text = self.etcdctl(&["get", "", "--from-key", "-w", "json"]);
        let mut answer: Value = serde_json::from_str(&text).expect("JSON of etcdctl");
        match answer["kvs"].take() {
            Value::Array(keys) => keys,
            _ => Vec::new(),
        }
    }

    /// Waits until a pod's only standing sandbox is of that revision.
    pub fn wait_revision(&self, namespace: &str, revision: &str) {
        self.wait(&format!("revision {revision} in {namespace}"), || {
            let found = self.revisions(namespace);
            match found == [revision] {
                true => Ok(()),
                false => Err(format!("{found:?}")),
            }
        });
    }

    /// The revisions of the sandboxes in a namespace.
    pub fn revisions(&self, namespace: &str) -> Vec<String> {
        let (_, sandboxes) = self.listed();
        let standing = sandboxes
            .into_iter()
            .filter(|s| s.ready && s.pod_namespace == namespace);
        standing.map(|s| s.labels["revision"].clone()).collect()
    }

    /// Every file and link below `/etc/kubernetes`, with its content's digest or its target;
    /// what is hidden there, and backups, apart.
    pub fn tree(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let top = self.path("/etc/kubernetes");
        let mut todo = vec![top.clone()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).expect("listing").map(Result::unwrap) {
                let path = entry.path();
                let name = path.strip_prefix(&top).expect("below").to_string_lossy();
                let name = name.into_owned();
                let kind = entry.file_type().expect("its kind");
                if name.starts_with('.') || name == "static-pod-backups" {
                    continue;
                } else if kind.is_dir() {
                    todo.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).expect("reading a link");
                    found.insert(name, format!("-> {}", target.display()));
                } else {
                    let bytes = fs::read(&path).expect("reading a file");
                    found.insert(name, hex::encode(Sha256::digest(bytes)));
                }
            }
        }
        found
    }

    /// etcd's status.
    pub fn status(&self) -> Value {
        let text = self.etcdctl(&["endpoint", "status", "-w", "json"]);
        let all: Value = serde_json::from_str(&text).expect("JSON of etcdctl");
        all[0]["Status"].clone()
    }

    /// Waits until etcd answers a linearizable read.
    pub fn wait_etcd(&self) {
        self.wait("etcd to be healthy", || {
            let output = self.try_etcdctl(&["endpoint", "health"]);
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        });
    }

    fn write_openshift(&self) {
        let openshift = OpenShift::default();
        self.put(
            CLUSTER_VERSION_KEY,
            openshift.cluster_version().to_string().as_bytes(),
        );
        for name in OPERATORS {
            self.put(
                &cluster_operator_key(name),
                openshift.cluster_operator(name).to_string().as_bytes(),
            );
        }
    }

    /// The runtime's socket, as seen from outside.
    pub fn socket(&self) -> PathBuf {
        self.path("/run/containerd/containerd.sock")
    }

    /// What the runtime lists, asked with the tool's own client.
    pub fn listed(&self) -> (Vec<Container>, Vec<Sandbox>) {
        let socket = self.socket();
        block_on(async {
            let runtime = Runtime::connect(&socket, Duration::from_secs(20)).await?;
            Ok::<_, etcd_dr::error::Failure>((
                runtime.containers().await?,
                runtime.sandboxes().await?,
            ))
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }

    /// Containers in that state, of that name.
    pub fn containers(&self, name: &str, state: &ContainerState) -> Vec<Container> {
        let (mut containers, _) = self.listed();
        containers.retain(|c| c.name == name && c.state == *state);
        containers
    }

    /// Waits until one container of each name runs.
    pub fn wait_running(&self, names: &[&str]) {
        for name in names {
            self.wait(&format!("{name} to run"), || {
                match self.containers(name, &ContainerState::Running).len() {
                    1 => Ok(()),
                    n => Err(format!("{n} run")),
                }
            });
        }
    }

    /// Waits until no container of that name runs.
    pub fn wait_stopped(&self, name: &str) {
        self.wait(&format!("{name} to end"), || {
            let running = self.containers(name, &ContainerState::Running);
            match running.is_empty() {
                true => Ok(()),
                false => Err("it runs"),
            }
        });
    }

    /// Waits until no pod is in a namespace.
    pub fn wait_no_sandbox(&self, namespace: &str) {
        self.wait(&format!("the pod in {namespace} to go"), || {
            match self.revisions(namespace).is_empty() {
                true => Ok(()),
                false => Err("it stands"),
            }
        });
    }

    /// Waits until the kubelet has done all it wants to do: what runs has been the same for twice
    /// as long as it takes between two looks at its manifests.
    pub fn settle(&self) {
        let mut before = Vec::new();
        let mut since = Instant::now();
        self.wait("the kubelet to settle", || {
            let (containers, _) = self.listed();
            let running = containers
                .into_iter()
                .filter(|c| c.state == ContainerState::Running);
            let mut now: Vec<String> = running.map(|c| c.id).collect();
            now.sort();
            if now != before {
                (before, since) = (now, Instant::now());
            }
            match since.elapsed() {
                quiet if quiet > Duration::from_secs(10) => Ok(()),
                quiet => Err(format!("quiet for {quiet:.0?}")),
            }
        });
    }

    /// Sends a program of the node's own a signal: `kubelet` or `containerd`.
    pub fn signal(&self, program: &str, signal: &str) {
        let script = format!("kill -{signal} $(cat /run/{program}.pid)");
        let told = self.inside("sh").args(["-c", &script]).output();
        expect_success("kill", &told.expect("running kill"));
    }

    /// Waits, and shows what the node said where it was in vain.
    pub fn wait<E: std::fmt::Display>(&self, what: &str, check: impl FnMut() -> Result<(), E>) {
        wait_for(what, LIMIT, check).unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
    }

    /// The operators roll out: revision directories beside those that are there, and the live
    /// manifests of those revisions.
    pub fn roll_out(&self, revisions: Revisions) {
        make_node(&self.root, &self.certs, revisions, "none");
    }

    /// The release of the etcd that runs.
    pub fn bins(&self) -> &EtcdBins {
        &self.bins
    }

    /// The last lines of everything that logs.
    pub fn logs(&self) -> String {
        let (containers, log) = (self.path("/var/log/pods"), self.path("/var/log"));
        let mut found = vec![
            self.dir.path().join("boot.log"),
            log.join("containerd.log"),
            log.join("kubelet.log"),
        ];
        for pod in fs::read_dir(containers).into_iter().flatten().flatten() {
            if let Some("0.log") = newest(&pod.path().join("etcd")).as_deref() {
                found.push(pod.path().join("etcd/0.log"));
            }
        }
        found
            .iter()
            .map(|file| format!("---- {}\n{}\n", file.display(), tail(file, 25)))
            .collect()
    }
}

fn name_of(dir: &Path) -> String {
    let name = dir.file_name().expect("a name");
    name.to_string_lossy().into_owned()
}

fn newest(dir: &Path) -> Option<String> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.max()
}

impl Drop for RealNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // Nothing better can be done about either.
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove_cgroups(&self.root);
    }
}

/// Removes the node's cgroups, which are empty as soon as the last of its processes is gone.
fn remove_cgroups(root: &Path) {
    let made = fs::read_to_string(root.join("run/cgroups")).unwrap_or_default();
    let removed = wait_for("the node's cgroups to be empty", LIMIT, || {
        let mut left = made.lines().filter(|dir| !remove_below(Path::new(dir)));
        match left.next() {
            None => Ok(()),
            Some(dir) => Err(format!("{dir} is not")),
        }
    });
    if let Err(error) = removed {
        eprintln!("real_node: {error}");
    }
}

fn remove_below(dir: &Path) -> bool {
    if !dir.exists() {
        return true;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    fs::remove_dir(dir).is_ok()
}

fn make_node(root: &Path, certs: &ClusterCerts, revisions: Revisions, stale: &str) {
    let output = generator()
        .arg(root)
        .args(["--node", NAME, "--nodes", &format!("{NAME}={IP}")])
        .args(["--revisions", revisions, "--stale", stale])
        .arg("--certs-from")
        .arg(certs.dir())
        .output();
    expect_success("make-node.py", &output.expect("running python3"));
}

/// Lays down what the node sees as `/opt/test`: the image and the names it gets, `etcd-dr`, and
/// etcdctl.
fn show(shown: &Path, tools: &Path, bins: &EtcdBins, root: &Path) {
    fs::create_dir(shown).expect("making the shown folder");
    image::write(&shown.join("image.tar"), tools, bins);
    let mut names = image::named_by(&root.join("etc/kubernetes/manifests")).join("\n");
    names.push('\n');
    fs::write(shown.join("images"), names).expect("writing the images' names");
    fs::copy(golden::binary(), shown.join("etcd-dr")).expect("copying etcd-dr");
    let home = bins.etcdctl.parent().and_then(Path::parent);
    let output = Command::new("cp")
        .arg("-rL")
        .arg(home.expect("two folders above"))
        .arg(shown.join("etcd"))
        .output();
    expect_success("cp", &output.expect("running cp"));
}
