//! Real etcd clusters: one process a member, on loopback addresses with the standard ports.
//!
//! Each member has a folder that serves as a node's root, with its data in `var/lib/etcd`, so
//! that [`crate::node`] can make a control-plane node around it while it runs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::bins::EtcdBins;
use crate::certs::ClusterCerts;
use crate::launch::{EtcdLaunch, LaunchCerts};
use crate::loopback::Loopback;
use crate::process::{
    expect_success, private_dir, spawn_bound, tail, wait_for, without_etcd_variables,
};

/// How long a cluster may take to answer on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long a member may take to end when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What a cluster is to be like.
pub struct ClusterSpec {
    /// The release.
    pub bins: EtcdBins,
    /// Member names, as many as there are members.
    pub names: Vec<String>,
    /// Mutual TLS for clients and peers alike, as on OpenShift and kubeadm.
    pub tls: bool,
    /// `--quota-backend-bytes`; OpenShift's 8 GiB unless set.
    pub quota: u64,
    /// `--snapshot-count`; small ones make `.snap` files and cut the WAL short.
    pub snapshot_count: u64,
    /// Whether writes reach the disk before they are acknowledged. Data survives a killed process
    /// either way; loading much is faster without. Releases before 3.5 always do.
    pub fsync: bool,
    /// Flags besides.
    pub extra_args: Vec<String>,
    /// A network reserved earlier, where addresses must be known before the start.
    pub network: Option<Loopback>,
    /// A domain: peers know each other by `NAME.DOMAIN`, and not by addresses.
    pub domain: Option<String>,
    /// Existing data directories, one a member, to start from instead of empty ones.
    pub data_dirs: Vec<PathBuf>,
}

impl ClusterSpec {
    /// Members `master-0`, `master-1`, … with mutual TLS.
    pub fn new(bins: &EtcdBins, members: usize) -> Self {
        Self {
            bins: bins.clone(),
            names: (0..members).map(|i| format!("master-{i}")).collect(),
            tls: true,
            quota: 8 << 30,
            snapshot_count: 10_000,
            fsync: true,
            extra_args: Vec::new(),
            network: None,
            domain: None,
            data_dirs: Vec::new(),
        }
    }

    /// Without TLS.
    pub fn plain(mut self) -> Self {
        self.tls = false;
        self
    }

    /// Without waiting for the disk, where the release can.
    pub fn fast(mut self) -> Self {
        self.fsync = false;
        self
    }
}

/// One member.
struct Member {
    name: String,
    /// What is run in place of the release's server.
    program: Option<PathBuf>,
    ip: IpAddr,
    root: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    /// `--initial-cluster` and `--initial-cluster-state` of its first start.
    join: (String, &'static str),
    child: Option<Child>,
    /// A stand-in kubelet runs it from now on.
    elsewhere: bool,
}

/// A running cluster; dropping it kills the servers and removes their files.
pub struct Cluster {
    spec: ClusterSpec,
    network: Loopback,
    members: Vec<Member>,
    certs: Option<ClusterCerts>,
    // Dropped last: the servers are dead by then.
    dir: TempDir,
}

impl Cluster {
    /// Starts all members and waits until each answers; shows the servers' logs when one does not.
    pub fn start(mut spec: ClusterSpec) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("etcd-dr-bench-")
            .tempdir()
            .expect("making the cluster's folder");
        let network = spec.network.take().unwrap_or_else(Loopback::reserve);
        let certs = spec
            .tls
            .then(|| ClusterCerts::new(&dir.path().join("certs")));
        let mut cluster = Self {
            spec,
            network,
            members: Vec::new(),
            certs,
            dir,
        };
        for name in cluster.spec.names.clone() {
            cluster.add_slot(&name);
        }
        let everyone = cluster.initial_cluster();
        for i in 0..cluster.members.len() {
            cluster.launch(i, &everyone, "new");
        }
        cluster.wait_healthy();
        cluster
    }

    /// Starts a single member on a data directory that a restore made.
    pub fn start_on(bins: &EtcdBins, name: &str, data_dir: &Path) -> Self {
        let mut spec = ClusterSpec::new(bins, 1);
        spec.names = vec![name.to_owned()];
        spec.data_dirs = vec![data_dir.to_owned()];
        Self::start(spec)
    }

    /// Makes name, address, certificates and folder of a further member, not started; says which
    /// member it is.
    pub fn add_slot(&mut self, name: &str) -> usize {
        let i = self.members.len();
        let ip = self.network.ip(i);
        self.certify(name, ip);
        let root = self.dir.path().join("nodes").join(name);
        private_dir(&root);
        let data_dir = match self.spec.data_dirs.get(i) {
            Some(given) => given.clone(),
            None => root.join("var/lib/etcd"),
        };
        private_dir(&data_dir);
        let logs = self.dir.path().join("logs");
        private_dir(&logs);
        self.members.push(Member {
            name: name.to_owned(),
            program: None,
            ip,
            root,
            data_dir,
            log: logs.join(format!("{name}.log")),
            join: (String::new(), "new"),
            child: None,
            elsewhere: false,
        });
        i
    }

    /// Gives a member that does not run another address of this network, with certificates for it,
    /// as a node that came back elsewhere; its peers do not learn of it.
    pub fn readdress(&mut self, i: usize) -> IpAddr {
        let taken = |ip: &IpAddr| self.members.iter().any(|member| member.ip == *ip);
        let ip = (0..8)
            .rev()
            .map(|n| self.network.ip(n))
            .find(|ip| !taken(ip))
            .expect("a free address");
        self.readdress_to(i, ip);
        ip
    }

    /// The same to a chosen address.
    pub fn readdress_to(&mut self, i: usize, ip: IpAddr) {
        assert!(!self.is_running(i), "a running member has its address");
        self.certify(&self.members[i].name, ip);
        self.members[i].ip = ip;
    }

    /// Makes a member's certificates, if it has any.
    fn certify(&self, name: &str, ip: IpAddr) {
        if let Some(certs) = &self.certs {
            let host = self
                .spec
                .domain
                .iter()
                .map(|domain| format!("{name}.{domain}"));
            certs.add_member_at(name, &host.collect::<Vec<_>>(), &self.network.callers(ip));
        }
    }

    /// Runs a program in place of a member's server from its next start on.
    pub fn run_by(&mut self, i: usize, program: &Path) {
        self.members[i].program = Some(program.to_owned());
    }

    /// Empties a member's data directory, as a new disk would.
    pub fn wipe(&mut self, i: usize) {
        assert!(!self.is_running(i), "a running member has its disk");
        let dir = self.data_dir(i).to_owned();
        std::fs::remove_dir_all(&dir).expect("removing a data directory");
        private_dir(&dir);
    }

    /// Starts a member with the given `--initial-cluster` and `--initial-cluster-state`, without
    /// waiting: a joining member answers only when the others know it.
    pub fn launch(&mut self, i: usize, initial_cluster: &str, state: &'static str) {
        self.members[i].join = (initial_cluster.to_owned(), state);
        self.relaunch(i);
    }

    /// The same under another name than its slot's, to join others; without TLS.
    pub fn launch_named(&mut self, i: usize, name: &str, initial_cluster: &str) {
        let slot = std::mem::replace(&mut self.members[i].name, name.to_owned());
        self.launch(i, initial_cluster, "existing");
        self.members[i].name = slot;
    }

    fn relaunch(&mut self, i: usize) {
        assert!(!self.members[i].elsewhere, "another runs this member");
        let launch = self.launch_of(i);
        let command = launch.command(&launch.initial_cluster, self.members[i].join.1);
        let child = spawn_bound(command).unwrap_or_else(|error| panic!("starting etcd: {error}"));
        self.members[i].child = Some(child);
    }

    /// How a member is started.
    pub fn launch_of(&self, i: usize) -> EtcdLaunch {
        let member = &self.members[i];
        let mut extra = vec![
            format!("--quota-backend-bytes={}", self.spec.quota),
            format!("--snapshot-count={}", self.spec.snapshot_count),
        ];
        if !self.spec.fsync && self.spec.bins.numbers() >= (3, 5, 0) {
            extra.push("--unsafe-no-fsync=true".to_owned());
        }
        extra.extend(self.spec.extra_args.iter().cloned());
        EtcdLaunch {
            program: member
                .program
                .as_ref()
                .unwrap_or(&self.spec.bins.etcd)
                .clone(),
            name: member.name.clone(),
            client_url: self.client_url(i),
            peer_url: self.url(&member.ip.to_string(), 2380),
            advertised: self.peer_url(i),
            certs: self.certs.as_ref().map(|certs| LaunchCerts {
                ca: certs.ca_file(),
                serving: certs.serving(&member.name),
                peer: certs.peer(&member.name),
            }),
            initial_cluster: member.join.0.clone(),
            data_dir: member.data_dir.clone(),
            log: member.log.clone(),
            extra,
        }
    }

    // ---- what is where -----------------------------------------------------------------------

    /// The release that runs.
    pub fn bins(&self) -> &EtcdBins {
        &self.spec.bins
    }

    /// The certificates, unless without TLS.
    pub fn certs(&self) -> Option<&ClusterCerts> {
        self.certs.as_ref()
    }

    /// How many members there are, running or not.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// A member's name.
    pub fn name(&self, i: usize) -> &str {
        &self.members[i].name
    }

    /// A member's address.
    pub fn ip(&self, i: usize) -> IpAddr {
        self.members[i].ip
    }

    /// The folder that serves as the root of the member's node.
    pub fn node_root(&self, i: usize) -> &Path {
        &self.members[i].root
    }

    /// A member's data directory.
    pub fn data_dir(&self, i: usize) -> &Path {
        &self.members[i].data_dir
    }

    /// A folder of this cluster's for whatever the test needs; gone with the cluster.
    pub fn scratch(&self) -> PathBuf {
        let dir = self.dir.path().join("scratch");
        private_dir(&dir);
        dir
    }

    /// Where a member serves clients.
    pub fn client_url(&self, i: usize) -> String {
        self.url(&self.members[i].ip.to_string(), 2379)
    }

    /// Where a member's peers look for it.
    pub fn peer_url(&self, i: usize) -> String {
        match self.host_name(i) {
            Some(name) => self.url(&name, 2380),
            None => self.url(&self.members[i].ip.to_string(), 2380),
        }
    }

    /// The name by which a member's peers know it.
    pub fn host_name(&self, i: usize) -> Option<String> {
        let domain = self.spec.domain.as_ref()?;
        Some(format!("{}.{domain}", self.members[i].name))
    }

    fn url(&self, host: &str, port: u16) -> String {
        let scheme = if self.certs.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{host}:{port}")
    }

    /// Client URLs of the members that run: a dead one would fail a share of all requests.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.size())
            .filter(|i| self.is_running(*i))
            .map(|i| self.client_url(i))
            .collect()
    }

    /// `name=peer-url,…` of all members.
    pub fn initial_cluster(&self) -> String {
        (0..self.size())
            .map(|i| format!("{}={}", self.name(i), self.peer_url(i)))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// etcdctl's own variables for this cluster, which `etcd-dr` reads too.
    pub fn client_env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![("ETCDCTL_ENDPOINTS", self.endpoints().join(","))];
        if let Some(certs) = &self.certs {
            let peer = certs.peer(self.name(0));
            let text = |path: PathBuf| path.to_string_lossy().into_owned();
            env.push(("ETCDCTL_CACERT", text(certs.ca_file())));
            env.push(("ETCDCTL_CERT", text(peer.cert)));
            env.push(("ETCDCTL_KEY", text(peer.key)));
        }
        env
    }

    // ---- asking ------------------------------------------------------------------------------

    /// Runs this release's etcdctl against all running members.
    pub fn etcdctl(&self, args: &[&str]) -> Output {
        self.etcdctl_at(&self.endpoints().join(","), args)
    }

    /// The same; it must succeed. What it printed.
    pub fn etcdctl_ok(&self, args: &[&str]) -> String {
        expect_success(&format!("etcdctl {args:?}"), &self.etcdctl(args))
    }

    /// Runs it against one member.
    pub fn etcdctl_on(&self, i: usize, args: &[&str]) -> Output {
        self.etcdctl_at(&self.client_url(i), args)
    }

    fn etcdctl_at(&self, endpoints: &str, args: &[&str]) -> Output {
        let mut command = self.etcdctl_command();
        command.env("ETCDCTL_ENDPOINTS", endpoints).args(args);
        command.output().expect("running etcdctl")
    }

    /// A bounded etcdctl with this cluster's variables set, to change and run. etcdctl refuses a
    /// flag whose variable is set, so that other endpoints go into the variable too.
    pub fn etcdctl_command(&self) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", "300"])
            .arg(&self.spec.bins.etcdctl);
        without_etcd_variables(&mut command);
        command.env("ETCDCTL_API", "3").envs(self.client_env());
        command
    }

    /// `endpoint status` of one member.
    pub fn status(&self, i: usize) -> serde_json::Value {
        let output = self.etcdctl_on(i, &["endpoint", "status", "-w", "json"]);
        let text = expect_success("etcdctl endpoint status", &output);
        let statuses: serde_json::Value =
            serde_json::from_str(&text).expect("reading etcdctl's JSON");
        statuses[0]["Status"].clone()
    }

    /// The KV revision that a member is at.
    pub fn revision(&self, i: usize) -> i64 {
        self.status(i)["header"]["revision"]
            .as_i64()
            .expect("a status has a revision")
    }

    /// Which running member leads.
    pub fn leader(&self) -> Option<usize> {
        (0..self.size()).filter(|i| self.is_running(*i)).find(|i| {
            let status = self.status(*i);
            status["leader"].as_u64().is_some_and(|leader| leader != 0)
                && status["leader"] == status["header"]["member_id"]
        })
    }

    /// A client of all running members, with a member's peer certificate.
    pub async fn client(&self) -> Client {
        Client::connect(self.endpoints(), Some(self.client_options()))
            .await
            .expect("connecting to the cluster")
    }

    /// How such a client connects.
    pub fn client_options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(10))
            .with_timeout(Duration::from_secs(60));
        if let Some(certs) = &self.certs {
            let read = |path: PathBuf| std::fs::read(path).expect("reading a certificate");
            let peer = certs.peer(self.name(0));
            options = options.with_tls(
                TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(read(certs.ca_file())))
                    .identity(Identity::from_pem(read(peer.cert), read(peer.key))),
            );
        }
        options
    }

    // ---- harm and repair ---------------------------------------------------------------------

    /// Whether a member's process lives; of one that another runs, whether it can be reached.
    pub fn is_running(&self, i: usize) -> bool {
        let member = &self.members[i];
        let reached = || {
            let address = (member.ip, 2379).into();
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        };
        member.child.is_some() || member.elsewhere && reached()
    }

    /// Stops a member, and leaves all its further starts to another.
    pub fn release(&mut self, i: usize) -> EtcdLaunch {
        if self.members[i].child.is_some() {
            self.stop(i);
        }
        self.members[i].elsewhere = true;
        self.launch_of(i)
    }

    /// Kills a member as a power cut would; a paused one too.
    pub fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.members[i].child.take() {
            child.kill().expect("killing etcd");
            child.wait().expect("waiting for etcd's end");
        }
    }

    /// Asks a member to end, and waits for it.
    pub fn stop(&mut self, i: usize) {
        self.signal(i, Signal::TERM);
        if let Some(mut child) = self.members[i].child.take() {
            wait_for("etcd to end", STOP_LIMIT, || match child.try_wait() {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err("it still runs".to_owned()),
                Err(error) => Err(error.to_string()),
            })
            .unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        }
    }

    /// Freezes a member: its sockets stay open, nothing answers.
    pub fn pause(&self, i: usize) {
        self.signal(i, Signal::STOP);
    }

    /// Lets a frozen member continue.
    pub fn resume(&self, i: usize) {
        self.signal(i, Signal::CONT);
    }

    fn signal(&self, i: usize, signal: Signal) {
        let child = self.members[i].child.as_ref().expect("the member runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
            .expect("a process id is positive");
        kill_process(pid, signal).expect("signalling etcd");
    }

    /// Kills a member if it runs, starts it again and waits until it answers.
    pub fn restart(&mut self, i: usize) {
        self.kill(i);
        self.relaunch(i);
        self.wait_member(i);
    }

    /// Starts again what does not run, without waiting.
    pub fn relaunch_stopped(&mut self) {
        for i in 0..self.size() {
            if !self.is_running(i) && !self.members[i].elsewhere {
                self.relaunch(i);
            }
        }
    }

    /// Waits until every running member answers a linearizable read.
    pub fn wait_healthy(&mut self) {
        for i in 0..self.size() {
            if self.is_running(i) {
                self.wait_member(i);
            }
        }
    }

    /// Waits until one member answers a linearizable read.
    pub fn wait_member(&mut self, i: usize) {
        let what = format!("{} to be healthy", self.name(i));
        let result = wait_for(&what, START_LIMIT, || {
            if let Some(child) = self.members[i].child.as_mut()
                && let Ok(Some(status)) = child.try_wait()
            {
                panic!("{} ended: {status}\n{}", self.name(i), self.logs());
            }
            let address = (self.ip(i), 2379).into();
            if let Err(error) =
                std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))
            {
                return Err(error.to_string());
            }
            let output = self.etcdctl_on(i, &["endpoint", "health", "--command-timeout=3s"]);
            if output.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        });
        if let Err(error) = result {
            panic!("{error}\n{}", self.logs());
        }
    }

    /// The last lines that each server wrote.
    pub fn logs(&self) -> String {
        self.members
            .iter()
            .map(|member| format!("---- {}\n{}\n", member.name, tail(&member.log, 25)))
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                // Nothing better can be done about either; the kernel ends the process with ours.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
