//! Proves the stand-in kubelet and container runtime: what they report is true, and the faults that
//! they are configured for happen. The client of the container runtime looks at them all the time.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use etcd_dr::etcd::datadir::holders;
use etcd_dr::node::layout::NodeLayout;
use etcd_dr::node::runtime::{Container, ContainerState, Runtime, find_socket, static_pod_name};
use testbench::bins::{self, EtcdBins};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::node::{self, NodeOptions};
use testbench::node_bench::{Answer, Api, BenchSpec, Empty, Lie, NodeBench, Stop};

const ETCD: &str = "etcd-pod.yaml";

fn each_family(test: impl Fn(&EtcdBins)) {
    for family in ["3.4", "3.5"] {
        if let Some(bins) = bins::require(family) {
            eprintln!("with etcd {}", bins.version);
            test(&bins);
        }
    }
}

/// A single member with a node around it, run by the bench.
fn adopted(bins: &EtcdBins) -> (Cluster, NodeBench) {
    let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
    Bulk::new(20, 64).write(&cluster);
    node::make(&cluster, 0, &NodeOptions::default());
    let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
    (cluster, bench)
}

/// Pods of a node without any etcd.
fn sleeping(change: impl FnOnce(&mut BenchSpec)) -> (tempfile::TempDir, NodeBench) {
    let dir = tempfile::tempdir().expect("a folder");
    for (file, name) in [("a.yaml", "alpha"), ("b.yaml", "beta")] {
        write_pod(dir.path(), file, name);
    }
    let mut spec = BenchSpec::new(dir.path(), "Node-1");
    change(&mut spec);
    let bench = NodeBench::start(spec);
    (dir, bench)
}

fn write_pod(root: &Path, file: &str, name: &str) {
    let manifests = root.join("etc/kubernetes/manifests");
    std::fs::create_dir_all(&manifests).expect("a folder");
    let text = format!(
        "kind: Pod\napiVersion: v1\nmetadata:\n  name: {name}\n  namespace: kube-system\n  \
         labels: {{tier: x}}\nspec:\n  containers:\n  - name: main\n    image: i\n  \
         - name: side\n    image: j\n"
    );
    std::fs::write(manifests.join(file), text).expect("writing a manifest");
}

/// Asks the runtime as the tool would.
fn ask<T>(bench: &NodeBench, question: impl AsyncFnOnce(Runtime) -> T) -> T {
    let layout = NodeLayout::new(bench.root());
    let socket = find_socket(&layout).expect("the bench listens");
    assert_eq!(socket, bench.socket());
    executor().block_on(async {
        let runtime = Runtime::connect(&socket, Duration::from_secs(10)).await;
        question(runtime.expect("connecting")).await
    })
}

fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("starting tokio")
}

fn listed(bench: &NodeBench) -> Vec<Container> {
    ask(bench, async |runtime| {
        runtime.containers().await.expect("a list")
    })
}

/// The names of a pod's containers that are listed as running.
fn running(bench: &NodeBench, pod: &str) -> BTreeSet<String> {
    listed(bench)
        .into_iter()
        .filter(|c| c.pod_name == pod && c.state == ContainerState::Running)
        .map(|c| c.name)
        .collect()
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_manifest_that_goes_stops_etcd_and_one_that_comes_back_serves() {
    each_family(|bins| {
        let (mut cluster, bench) = adopted(bins);
        cluster.wait_member(0);
        assert_eq!(Bulk::new(20, 64).count_present(&cluster), 20);
        let pod = static_pod_name("etcd", cluster.name(0));
        assert!(running(&bench, &pod).contains("etcd"));
        let before = bench.pid("etcd", "etcd").expect("etcd runs");
        let comm = std::fs::read_to_string(format!("/proc/{before}/comm")).expect("a name");
        assert_eq!(comm.trim(), "etcd");
        let data = cluster.data_dir(0).to_owned();
        let holder = holders(&data).expect("asking").expect("etcd holds it");
        assert!(holder.db && holder.wal);
        assert_eq!(holder.to_string(), format!("etcd (process {before})"));

        bench.take_out(ETCD);
        bench.settle();
        assert!(!exists(before), "etcd is gone");
        assert!(!cluster.is_running(0));
        assert_eq!(holders(&data).expect("asking"), None);
        assert_eq!(running(&bench, &pod), BTreeSet::new());
        let ended = listed(&bench);
        let ended: Vec<_> = ended.iter().filter(|c| c.pod_name == pod).collect();
        assert!(ended.iter().all(|c| c.state == ContainerState::Exited));
        assert!(ended.iter().any(|c| c.name == "etcd" && c.attempt == 0));
        let others = running(&bench, &static_pod_name("kube-apiserver", cluster.name(0)));
        assert!(others.contains("kube-apiserver"), "the others run on");

        bench.put_back(ETCD);
        bench.settle();
        cluster.wait_member(0);
        assert_eq!(Bulk::new(20, 64).count_present(&cluster), 20);
        assert_ne!(bench.pid("etcd", "etcd"), Some(before));
        let again = listed(&bench);
        let etcd = |state: ContainerState| -> Vec<u32> {
            let of_state = again
                .iter()
                .filter(|c| c.pod_name == pod && c.name == "etcd");
            of_state
                .filter(|c| c.state == state)
                .map(|c| c.attempt)
                .collect()
        };
        assert_eq!(
            etcd(ContainerState::Exited),
            [0],
            "the earlier one stays listed"
        );
        assert_eq!(etcd(ContainerState::Running), [1]);
        let pods = ask(&bench, async |runtime| {
            runtime.sandboxes().await.expect("a list")
        });
        let pods: Vec<_> = pods.iter().filter(|s| s.pod_name == pod).collect();
        assert_eq!(pods.len(), 2);
        assert_eq!((pods[0].ready, pods[0].attempt), (false, 0));
        assert_eq!((pods[1].ready, pods[1].attempt), (true, 1));
        assert_eq!(pods[1].pod_namespace, "openshift-etcd");
        assert_eq!(pods[1].labels["k8s-app"], "etcd");
        assert_eq!(pods[1].annotations["kubernetes.io/config.source"], "file");
        assert_eq!(
            pods[1].annotations["kubernetes.io/config.hash"],
            pods[1].pod_uid
        );
    });
}

#[test]
fn without_data_etcd_follows_its_flags() {
    each_family(|bins| {
        for (empty, serves) in [(Empty::Refuse, false), (Empty::New, true)] {
            let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
            node::make(&cluster, 0, &NodeOptions::kubeadm());
            let data = cluster.data_dir(0).to_owned();
            cluster.stop(0);
            std::fs::remove_dir_all(data.join("member")).expect("emptying the data directory");
            let bench = NodeBench::adopt(&mut cluster, 0, |spec| {
                spec.empty = empty;
                spec.restart_after = Duration::from_millis(100);
            });
            if serves {
                cluster.wait_member(0);
                assert!(bench.runs("etcd"));
                continue;
            }
            let attempts = || {
                let all = bench.containers();
                all.iter()
                    .filter(|c| c.name == "etcd" && !c.running)
                    .count()
            };
            bench.until("etcd to fail more than once", || attempts() > 2);
            assert!(!cluster.is_running(0));
        }
    });
}

#[test]
fn a_member_that_lost_its_data_joins_again() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 2).fast());
    node::make_all(&cluster, &NodeOptions::default());
    let everyone = cluster.initial_cluster();
    let bench = NodeBench::adopt(&mut cluster, 1, |spec| spec.empty = Empty::Join(everyone));
    cluster.wait_member(1);
    let id = cluster.status(1)["header"]["member_id"]
        .as_u64()
        .expect("an id");
    // etcd refuses until both have been connected for a while.
    let limit = Duration::from_secs(60);
    testbench::process::wait_for("the member to be removed", limit, || {
        let output = cluster.etcdctl_on(0, &["member", "remove", &format!("{id:x}")]);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    })
    .expect("the member is removed");
    // It may have been the leader.
    cluster.wait_member(0);
    bench.take_out(ETCD);
    bench.settle();
    std::fs::remove_dir_all(cluster.data_dir(1).join("member")).expect("losing the data");
    let peers = format!("--peer-urls={}", cluster.peer_url(1));
    let added = cluster.etcdctl_on(0, &["member", "add", "master-1", &peers]);
    assert!(added.status.success(), "{added:?}");
    bench.put_back(ETCD);
    cluster.wait_member(1);
}

#[test]
fn what_dies_is_started_again() {
    let (_dir, bench) = sleeping(|spec| spec.restart_after = Duration::from_millis(100));
    let first = bench.pid("alpha", "main").expect("it runs");
    assert_eq!(bench.pid("alpha", "side"), Some(first));
    testbench::process::kill_pid(first);
    bench.until("a new process", || {
        bench.pid("alpha", "main").is_some_and(|pid| pid != first)
    });
    let pod = static_pod_name("alpha", "Node-1");
    assert_eq!(pod, "alpha-node-1");
    let all = listed(&bench);
    let main = |c: &&Container| c.pod_name == pod && c.name == "main";
    let seen: Vec<_> = all
        .iter()
        .filter(main)
        .map(|c| (c.attempt, &c.state))
        .collect();
    let expected = [(0, &ContainerState::Exited), (1, &ContainerState::Running)];
    assert_eq!(seen, expected);
}

#[test]
fn other_files_are_not_run_and_a_changed_manifest_is_another_pod() {
    let (dir, bench) = sleeping(|_| {});
    write_pod(dir.path(), ".hidden.yaml", "hidden");
    let manifests = bench.manifests();
    std::fs::write(manifests.join("half"), "{\"kind\":\"Pod\",").expect("writing");
    bench.settle();
    let pods: BTreeSet<_> = listed(&bench).into_iter().map(|c| c.pod_name).collect();
    let expected = ["alpha-node-1", "beta-node-1"].map(str::to_owned);
    assert_eq!(pods, BTreeSet::from(expected));

    let uid = |bench: &NodeBench| bench.sandboxes().last().expect("one").uid.clone();
    let (first, before) = (bench.pid("beta", "main"), uid(&bench));
    let text = std::fs::read_to_string(manifests.join("b.yaml")).expect("reading");
    std::fs::write(
        manifests.join("b.yaml"),
        text.replace("image: i", "image: k"),
    )
    .expect("writing");
    bench.until("another process", || {
        bench
            .pid("beta", "main")
            .is_some_and(|pid| Some(pid) != first)
    });
    bench.settle();
    assert!(!exists(first.expect("it ran")));
    assert_ne!(uid(&bench), before);
}

#[test]
fn both_versions_of_the_api_can_be_had() {
    for (api, spoken) in [
        (Api::Both, "v1"),
        (Api::V1, "v1"),
        (Api::V1alpha2, "v1alpha2"),
    ] {
        let (_dir, bench) = sleeping(|spec| spec.api = api);
        let said = ask(&bench, async |runtime| runtime.info().clone());
        assert_eq!(
            (said.name.as_str(), said.api.as_str()),
            ("stand-in", spoken)
        );
        assert_eq!(running(&bench, "alpha-node-1").len(), 2);
    }
}

#[test]
fn faults_come_and_go_while_it_runs() {
    let (_dir, bench) = sleeping(|_| {});
    let pod = "alpha-node-1";
    let both = BTreeSet::from(["main".to_owned(), "side".to_owned()]);
    let executor = executor();
    let runtime = executor
        .block_on(Runtime::connect(
            &bench.socket(),
            Duration::from_millis(500),
        ))
        .expect("connecting");
    let fails = || {
        executor
            .block_on(runtime.containers())
            .unwrap_err()
            .to_string()
    };

    bench.faults(|faults| faults.answer = Answer::Error(13, "broken".to_owned()));
    assert!(fails().contains("broken"));
    bench.faults(|faults| faults.answer = Answer::Hang);
    assert!(fails().contains("no answer"));
    bench.no_faults();
    assert_eq!(running(&bench, pod), both);

    bench.faults(|faults| faults.pods = vec!["alpha".to_owned()]);
    bench.faults(|faults| faults.lie = Lie::Gone);
    assert!(listed(&bench).iter().all(|c| c.pod_name != pod));
    bench.faults(|faults| faults.lie = Lie::Ended);
    assert_eq!(running(&bench, pod), BTreeSet::new());
    assert_eq!(
        running(&bench, "beta-node-1"),
        both,
        "the lie is about one pod"
    );
    assert!(bench.runs("alpha"), "it was a lie");
    bench.no_faults();

    bench.faults(|faults| faults.earlier_attempts = true);
    let mains: Vec<_> = listed(&bench)
        .into_iter()
        .filter(|c| c.pod_name == pod && c.name == "main")
        .map(|c| (c.attempt, c.state))
        .collect();
    let expected = [(0, ContainerState::Exited), (1, ContainerState::Running)];
    assert_eq!(mains, expected);
    bench.no_faults();
}

#[test]
fn a_pod_stops_late_or_never_if_it_is_to() {
    let (_dir, bench) = sleeping(|_| {});
    let pod = "alpha-node-1";
    let pid = bench.pid("alpha", "main").expect("it runs");
    bench.faults(|faults| faults.stop = Stop::Never);
    bench.take_out("a.yaml");
    std::thread::sleep(Duration::from_millis(500));
    assert!(exists(pid));
    assert_eq!(running(&bench, pod).len(), 2);
    bench.faults(|faults| faults.stop = Stop::After(Duration::from_secs(1)));
    bench.settle();
    assert!(!exists(pid));
    assert_eq!(running(&bench, pod).len(), 0);
    bench.faults(|faults| faults.lie = Lie::RunsForEver);
    assert_eq!(running(&bench, pod).len(), 2);
}

#[test]
fn the_program_says_when_it_is_ready_and_ends_what_it_started() {
    const ARGUMENTS: &str = "NODE_BENCH_SELFTEST_ARGUMENTS";
    const NAME: &str = "the_program_says_when_it_is_ready_and_ends_what_it_started";
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let arguments: Vec<_> = arguments.lines().map(str::to_owned).collect();
        let status = testbench::node_bench::program::run(&arguments);
        assert_eq!(status, std::process::ExitCode::SUCCESS);
        return;
    }
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    let root = node::make(&cluster, 0, &NodeOptions::default());
    cluster.release(0);
    let folder = bins.etcd.parent().expect("a folder");
    let arguments = [
        format!("--root={}", root.display()),
        format!("--etcd-bin={}", folder.display()),
        format!("--node={}", cluster.name(0)),
        format!("--ip={}", cluster.ip(0)),
    ];
    let mut child = Command::new(std::env::current_exe().expect("this suite's binary"))
        .args(["--exact", NAME, "--nocapture"])
        .env(ARGUMENTS, arguments.join("\n"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting this suite once more");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map_while(Result::ok);
    let ready = lines
        .find(|line| line.contains("READY "))
        .expect("its line");
    assert!(ready.ends_with("/run/crio/crio.sock"), "{ready}");
    cluster.wait_member(0);
    testbench::process::terminate(child.id());
    // Whatever else it writes must have a reader.
    let rest: Vec<_> = lines.collect();
    let status = child.wait().expect("waiting for its end");
    assert!(status.success(), "{status}: {rest:?}");
    assert!(!cluster.is_running(0));
}
