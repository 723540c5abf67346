//! Proves the test bench itself: the other suites' findings are only as good as their servers.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use testbench::bins::{self, EtcdBins};
use testbench::bulk::Bulk;
use testbench::certs;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::Placeholders;
use testbench::kube::{self, OpenShift};
use testbench::node::{self, NodeOptions};

fn each_version(test: impl Fn(&EtcdBins)) {
    for bins in bins::require_all() {
        eprintln!("with etcd {}", bins.version);
        test(bins);
    }
}

#[test]
fn three_members_survive_kills() {
    each_version(|bins| {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3));
        let bulk = Bulk::new(500, 256);
        bulk.write(&cluster);
        let leader = cluster.leader().expect("a healthy cluster has a leader");
        cluster.kill(leader);
        assert!(!cluster.is_running(leader));
        cluster.wait_healthy();
        Bulk::new(50, 256).seeded(1).write(&cluster);
        cluster.restart(leader);
        // The one that was down has caught up: its own reads are linearizable.
        let output = cluster.etcdctl_on(leader, &["get", "--print-value-only", &Bulk::key(0)]);
        let mut expected = Bulk::new(50, 256).seeded(1).value(0);
        expected.push(b'\n');
        assert_eq!(output.stdout, expected);
        let kept = Bulk::new(500, 256).count_present(&cluster);
        assert_eq!(kept, 450, "500 written, of which 50 overwritten");
    });
}

#[test]
fn one_member_keeps_its_data_over_a_kill_and_refuses_strangers() {
    each_version(|bins| {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1));
        OpenShift::default().write(&cluster);
        cluster.restart(0);
        let stored = cluster.etcdctl_ok(&["get", "--print-value-only", kube::CLUSTER_VERSION_KEY]);
        let version: serde_json::Value =
            serde_json::from_str(&stored).expect("ClusterVersion is JSON");
        assert_eq!(version["status"]["desired"]["version"], "4.17.12");
        assert_eq!(version, OpenShift::default().cluster_version());

        let own = cluster.certs().expect("TLS is on");
        let scratch = cluster.scratch();
        for (stem, pair) in [
            ("stranger", certs::strangers_client()),
            ("expired", own.ca().expired_client()),
        ] {
            let files = pair.write(&scratch, stem);
            let output = cluster
                .etcdctl_command()
                .env("ETCDCTL_CERT", &files.cert)
                .env("ETCDCTL_KEY", &files.key)
                .args(["get", "x", "--command-timeout=3s"])
                .output()
                .expect("running etcdctl");
            assert!(!output.status.success(), "{stem} certificate was accepted");
        }
        // An expired certificate must be refused for its age, not for some other flaw.
        assert!(
            cluster.logs().contains("expired"),
            "the server says why:\n{}",
            cluster.logs()
        );
        let other_ca = certs::Ca::new("another-signer");
        let wrong_ca = scratch.join("wrong-ca.crt");
        testbench::process::write_private(&wrong_ca, other_ca.cert.as_bytes());
        let output = cluster
            .etcdctl_command()
            .env("ETCDCTL_CACERT", &wrong_ca)
            .args(["get", "x", "--command-timeout=3s"])
            .output()
            .expect("running etcdctl");
        assert!(
            !output.status.success(),
            "a server of another CA was trusted"
        );
    });
}

#[test]
fn a_paused_member_is_silent_until_resumed() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    cluster.pause(0);
    let output = cluster.etcdctl(&["get", "x", "--command-timeout=1s"]);
    assert!(!output.status.success());
    cluster.resume(0);
    cluster.wait_healthy();
    cluster.stop(0);
    assert!(!cluster.is_running(0));
}

#[test]
fn a_further_member_can_join() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let mut cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    let i = cluster.add_slot("master-9");
    cluster.etcdctl_on(0, &["get", "x"]);
    let peers = format!("--peer-urls={}", cluster.peer_url(i));
    let added = cluster.etcdctl_on(0, &["member", "add", "master-9", &peers]);
    assert!(added.status.success(), "{added:?}");
    let everyone = cluster.initial_cluster();
    cluster.launch(i, &everyone, "existing");
    cluster.wait_healthy();
    let members = cluster.etcdctl_ok(&["member", "list"]);
    assert!(members.contains("master-9"), "{members}");
}

#[test]
fn servers_end_with_the_thread_of_no_test() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    // Started by a thread that is gone: the server must live as long as the process nevertheless.
    let mut cluster = std::thread::spawn(move || Cluster::start(ClusterSpec::new(&bins, 1).fast()))
        .join()
        .expect("the cluster starts");
    std::thread::sleep(std::time::Duration::from_millis(300));
    cluster.wait_healthy();
    let root = cluster.node_root(0).to_owned();
    assert!(root.is_dir());
    drop(cluster);
    assert!(!root.exists(), "a cluster leaves nothing behind");
}

#[test]
fn servers_end_with_a_killed_process() {
    const CHILD: &str = "BENCH_SELFTEST_CHILD";
    const NAME: &str = "servers_end_with_a_killed_process";
    if std::env::var_os(CHILD).is_some() {
        let mut command = testbench::process::bound_command(Path::new("sleep"));
        command.arg("120");
        let mut server = testbench::process::spawn_bound(command).expect("starting sleep");
        eprintln!("server {}", server.id());
        server.wait().expect("waiting to be killed");
        return;
    }
    if !testbench::process::has_setpriv() {
        bins::skip("no setpriv, which util-linux has");
        return;
    }
    let mut child = Command::new(std::env::current_exe().expect("this suite's binary"))
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starting this suite once more");
    let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let pid = stderr
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("server ")?.parse::<u32>().ok())
        .expect("the child names its server");
    let stat = format!("/proc/{pid}/stat");
    assert!(Path::new(&stat).exists());
    child.kill().expect("killing the child");
    child.wait().expect("waiting for the child");
    let limit = std::time::Duration::from_secs(60);
    testbench::process::wait_for("the server's end", limit, || {
        match std::fs::read_to_string(&stat) {
            // Its status may not have been collected yet.
            Ok(text) if !text.contains(") Z ") => Err(text),
            _ => Ok(()),
        }
    })
    .expect("the server ends with the process that started it");
}

#[test]
fn placeholders_hide_what_differs_from_run_to_run() {
    let placeholders = Placeholders::default()
        .with("/tmp/x", "DIR")
        .with("/tmp/x/store", "STORE");
    assert_eq!(
        placeholders.apply(
            "/tmp/x/store/backup-12/snapshot_2026-11-21_061530.db of /tmp/x: 20.5 MiB, 4096 bytes, \
             member 8e9e05c52164694d at 2026-11-21T06:15:30.123456Z in 1.25s, 147 B, 3d 2h; revision 4711"
        ),
        "[STORE]/backup-12/snapshot_[STAMP].db of [DIR]: [SIZE], [SIZE], \
         member [ID] at [TIME] in [DURATION], [SIZE], [DURATION]; revision 4711"
    );
}

#[test]
fn placeholders_leave_words_alone() {
    let text = "a deadbeefdeadbeefdead 1.5x v3.5.16 4.17.12 cafe";
    assert_eq!(Placeholders::default().apply(text), text);
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    metadata.permissions().mode() & 0o7777
}

fn yaml(path: &Path) -> serde_json::Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml_ng::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_scratch_node_reaches_its_live_member() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 3).fast());
    let root = node::make(&cluster, 1, &NodeOptions::default());
    let kubernetes = root.join("etc/kubernetes");
    let resources = kubernetes.join("static-pod-resources");
    for (component, revision) in node::REVISIONS {
        let manifest = kubernetes.join(format!("manifests/{component}-pod.yaml"));
        let text = std::fs::read_to_string(&manifest).expect("reading a manifest");
        assert_eq!(text.lines().count(), 1, "an installer writes one line");
        assert!(text.ends_with("\"status\":{}}\n"));
        let path = format!("/etc/kubernetes/static-pod-resources/{component}-pod-{revision}");
        let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            object["spec"]["volumes"][0]["hostPath"]["path"],
            path.as_str()
        );
        assert_eq!(mode(&manifest), 0o600);
        for stale in [revision - 1, revision + 1] {
            assert!(resources.join(format!("{component}-pod-{stale}")).is_dir());
        }
        let copy = resources.join(format!("{component}-pod-{revision}/{component}-pod.yaml"));
        assert_eq!(std::fs::read_to_string(copy).expect("the copy"), text);
        // The template that it came from says the same in YAML.
        let template = format!("{component}-pod-{revision}/configmaps/{component}-pod/pod.yaml");
        assert_eq!(yaml(&resources.join(template)), object);
    }
    let data = root.join("var/lib/etcd");
    assert_eq!(mode(&data), 0o700);
    assert!(
        data.join("member/snap/db").is_file(),
        "the live data is there"
    );
    assert_eq!(cluster.data_dir(1), data);

    // A shell sources etcd.env, as OpenShift's scripts do; what it names reaches the member.
    let script = r#". "$1/static-pod-resources/etcd-certs/configmaps/etcd-scripts/etcd.env"
        certs=/etc/kubernetes/static-pod-certs here="$1/static-pod-resources/etcd-certs"
        export ETCDCTL_CACERT="$here${ETCDCTL_CACERT#$certs}"
        export ETCDCTL_CERT="$here${ETCDCTL_CERT#$certs}" ETCDCTL_KEY="$here${ETCDCTL_KEY#$certs}"
        export ETCDCTL_ENDPOINTS="https://$NODE_master_1_IP:2379"
        "$2" endpoint status -w json"#;
    let output = Command::new("bash")
        .args(["-euc", script, "bash"])
        .arg(&kubernetes)
        .arg(&bins.etcdctl)
        .env("ETCDCTL_API", "3")
        .output()
        .expect("running bash");
    let status = testbench::process::expect_success("etcdctl with etcd.env", &output);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let revision: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.join("revision.json")).expect("revision.json"))
            .expect("JSON");
    let header = &status[0]["Status"]["header"];
    assert_eq!(header["cluster_id"], revision["clusterId"]);
    assert_eq!(
        header["member_id"],
        cluster.status(1)["header"]["member_id"]
    );
    assert_eq!(mode(&data.join("revision.json")), 0o644);
}

#[test]
fn nodes_of_every_layout_are_as_listed() {
    let lists = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/nodes");
    let mut lists: Vec<_> = std::fs::read_dir(lists)
        .expect("listing fixtures/nodes")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    lists.sort();
    assert!(lists.len() >= 7);
    let output = node::generator()
        .arg("--check")
        .args(&lists)
        .output()
        .expect("running python3");
    testbench::process::expect_success("make-node.py --check", &output);
}

#[test]
fn etcd_env_survives_a_shell_whatever_the_address_family() {
    let scratch = tempfile::tempdir().expect("a folder");
    let output = node::generator()
        .arg(scratch.path())
        .args(["--nodes", "master-0.ocp.example.com=fd00::10", "--node"])
        .args(["master-0.ocp.example.com", "--certs-layout", "4.6"])
        .output()
        .expect("running python3");
    testbench::process::expect_success("make-node.py", &output);
    let env = scratch
        .path()
        .join("etc/kubernetes/static-pod-resources/etcd-certs/configmaps/etcd-scripts/etcd.env");
    let text = std::fs::read_to_string(&env).expect("etcd.env");
    let names: Vec<_> = text.lines().map(|line| line.split('=').next()).collect();
    assert!(names.is_sorted());
    let output = Command::new("bash")
        .args([
            "-euc",
            r#". "$1"; echo "$NODE_master_0_ocp_example_com_IP $ETCDCTL_ENDPOINTS $ETCDCTL_CERT""#,
        ])
        .arg("bash")
        .arg(&env)
        .output()
        .expect("running bash");
    assert_eq!(
        testbench::process::expect_success("sourcing etcd.env", &output),
        "[fd00::10] https://[fd00::10]:2379 /etc/kubernetes/static-pod-certs/secrets/\
         etcd-all-peer/etcd-peer-master-0.ocp.example.com.crt\n"
    );
}

#[test]
fn a_kubeadm_node_names_the_live_member_in_its_flags() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    let root = node::make(&cluster, 0, &NodeOptions::kubeadm());
    let manifests = root.join("etc/kubernetes/manifests");
    assert_eq!(mode(&manifests), 0o700);
    let etcd = yaml(&manifests.join("etcd.yaml"));
    let command = etcd["spec"]["containers"][0]["command"]
        .as_array()
        .expect("a command");
    let listen = format!("--listen-client-urls={}", cluster.client_url(0));
    assert!(command.contains(&listen.into()), "{command:?}");
    let pki = root.join("etc/kubernetes/pki/etcd");
    assert_eq!(mode(&pki.join("healthcheck-client.key")), 0o600);
    let mut etcdctl = cluster.etcdctl_command();
    etcdctl
        .env("ETCDCTL_CACERT", pki.join("ca.crt"))
        .env("ETCDCTL_CERT", pki.join("healthcheck-client.crt"))
        .env("ETCDCTL_KEY", pki.join("healthcheck-client.key"))
        .args(["endpoint", "health"]);
    let output = etcdctl.output().expect("running etcdctl");
    testbench::process::expect_success("etcdctl with kubeadm's certificates", &output);
}
