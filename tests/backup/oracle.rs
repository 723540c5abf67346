//! What a backup holds, compared with what etcd's own tools and the commands of OpenShift's scripts say.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::bench::{Node, assert_only_good, text};
use testbench::bins::{self, EtcdBins};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::folder::names;
use testbench::golden;
use testbench::kube::OpenShift;
use testbench::node::{NodeOptions, REVISIONS};
use testbench::process::expect_success;
use testbench::stock;

const KEYS: usize = 300;

#[test]
fn a_backup_of_one_member_is_what_etcdctl_saves_on_each_release() {
    for bins in bins::require_all() {
        eprintln!("with etcd {}", bins.version);
        let cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        whole(&cluster, 0);
    }
}

#[test]
fn a_backup_of_three_members_is_what_etcdctl_saves_on_each_release() {
    for bins in bins::require_all() {
        eprintln!("with etcd {}", bins.version);
        let cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        // The source need not lead.
        let leader = cluster.leader().expect("a healthy cluster has a leader");
        whole(&cluster, (leader + 1) % 3);
    }
}

fn whole(cluster: &Cluster, i: usize) {
    Bulk::new(KEYS, 700).write(cluster);
    // What was overwritten and compacted away must not confuse any count.
    Bulk::new(KEYS / 3, 700).seeded(1).write(cluster);
    let revision = cluster.revision(i);
    cluster.etcdctl_ok(&["compact", &(revision - 1).to_string()]);
    OpenShift::default().write(cluster);
    let node = Node::of(cluster, i, &NodeOptions::default());

    let run = node
        .run(&["backup", "--check-members", "-o", "json"])
        .expect(0);
    let result = run.json();
    let manifest = &result["manifest"];
    let store = node.root.join("etc/kubernetes/static-pod-backups");
    let dir = store.join("backup-1");
    assert_eq!(result["directory"], text(&dir), "{run}");
    assert_eq!(manifest["quality"]["state"], "good", "{run}");
    assert_eq!(
        std::fs::read_link(&store).expect("the default store is a link"),
        Path::new("../../var/lib/etcd-dr/static-pod-backups")
    );
    assert_eq!(
        std::fs::read_link(store.join("latest-backup")).expect("a link"),
        Path::new("backup-1")
    );

    files(&dir, manifest);
    environment(&dir);
    what_etcdctl_says(cluster, i, manifest);
    what_snapshot_status_says(cluster.bins(), &dir, manifest);
    what_the_stock_script_wants(&node, &dir);
    certificates(&node, &dir, manifest);
    the_same_from_list_and_verify(&node, &store, manifest);
    etcd_restores_it(cluster, i, &dir);
    assert_only_good(&store, &["backup-1"], &run);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    let meta =
        std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    meta.permissions().mode() & 0o7777
}

/// The set's files: those and no others, private, of the sizes and digests that are told twice.
fn files(dir: &Path, manifest: &Value) {
    let there = names(dir);
    let created: jiff::Timestamp = manifest["created"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("RFC 3339");
    let stamp = created.strftime("%Y-%m-%d_%H%M%S");
    let mut expected = [
        "SHA256SUMS".to_owned(),
        "backup.env".to_owned(),
        "backup.json".to_owned(),
        format!("snapshot_{stamp}.db"),
        format!("static_certs_{stamp}.tar.gz"),
        format!("static_kuberesources_{stamp}.tar.gz"),
    ];
    expected.sort();
    assert_eq!(there, expected);
    assert_eq!(mode(dir), 0o700);
    for name in &there {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    let on_disk: Value =
        serde_json::from_slice(&std::fs::read(dir.join("backup.json")).expect("backup.json"))
            .expect("JSON");
    assert_eq!(&on_disk, manifest);
    for file in manifest["files"].as_array().expect("files") {
        let name = file["name"].as_str().expect("a name");
        let size = std::fs::metadata(dir.join(name)).expect("a file").len();
        assert_eq!(file["size"], size, "{name}");
        assert_eq!(file["mode"], "0600", "{name}");
    }
    let output = Command::new("sha256sum")
        .args(["-c", "--strict", "SHA256SUMS"])
        .current_dir(dir)
        .output()
        .expect("running sha256sum");
    let checked = expect_success("sha256sum -c", &output);
    assert_eq!(checked.lines().count(), 4, "{checked}");
}

/// A shell that sources the summary has the names that scripts ask for.
fn environment(dir: &Path) {
    let script = r#". ./backup.env
        echo "$OCP_VERSION $ETCD_REVISION $APISERVER_REVISION $CONTROLLER_MANAGER_REVISION $SCHEDULER_REVISION"
        date -u -d "$CREATED" +%s"#;
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .output();
    let said = expect_success("sourcing backup.env", &output.expect("running sh"));
    let revision = |name: &str| {
        let found = REVISIONS.iter().find(|(component, _)| *component == name);
        found.expect("a component").1
    };
    let expected = format!(
        "4.17.12 {} {} {} {}",
        revision("etcd"),
        revision("kube-apiserver"),
        revision("kube-controller-manager"),
        revision("kube-scheduler")
    );
    assert_eq!(said.lines().next(), Some(expected.as_str()));
    let created: u64 = said
        .lines()
        .nth(1)
        .expect("a time")
        .parse()
        .expect("seconds");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    assert!(created <= now && now - created < 300, "{created} {now}");
}

/// Ids as etcdctl prints them in its simple form: hexadecimal.
fn hex(value: &Value) -> String {
    format!("{:x}", value.as_u64().expect("an id"))
}

fn what_etcdctl_says(cluster: &Cluster, i: usize, manifest: &Value) {
    let status = cluster.status(i);
    let header = &status["header"];
    let member = &manifest["member"];
    assert_eq!(member["id"], hex(&header["member_id"]).as_str());
    assert_eq!(
        manifest["cluster"]["etcdId"],
        hex(&header["cluster_id"]).as_str()
    );
    assert_eq!(member["name"], cluster.name(i));
    assert_eq!(member["endpoint"], cluster.client_url(i).as_str());
    assert_eq!(member["etcdVersion"], status["version"]);
    assert_eq!(member["etcdVersion"], cluster.bins().version.as_str());
    assert_eq!(member["raftTerm"], status["raftTerm"]);
    let leads = status["leader"] == header["member_id"];
    assert_eq!(member["leader"], leads);
    assert_eq!(member["learner"], false);
    // etcd writes of its own accord too (the cluster's version, consistent reads write nothing).
    let index = |value: &Value| value.as_u64().expect("an index");
    assert!(index(&member["raftIndex"]) <= index(&status["raftIndex"]));
    assert!(index(&status["raftIndex"]) - index(&member["raftIndex"]) < 100);
    let database = &manifest["database"];
    assert_eq!(database["kvRevision"], header["revision"]);

    // HashKV of the running member, at the very revision.
    let revision = header["revision"].to_string();
    let output = cluster.etcdctl_on(i, &["endpoint", "hashkv", "--rev", &revision, "-w", "json"]);
    let answer: Value =
        serde_json::from_str(&expect_success("etcdctl endpoint hashkv", &output)).expect("JSON");
    let hash = &answer[0]["HashKV"];
    assert_eq!(database["hashKv"]["hash"], hash["hash"], "{answer}");
    assert_eq!(
        database["hashKv"]["compactRevision"], hash["compact_revision"],
        "{answer}"
    );
    assert_eq!(database["compactRevision"], hash["compact_revision"]);

    let count = cluster.etcdctl_ok(&["get", "", "--prefix", "--keys-only", "--consistency=s"]);
    let keys = count.lines().filter(|line| !line.is_empty()).count();
    assert_eq!(database["keys"], keys);
    let cluster_version = OpenShift::default();
    assert_eq!(
        manifest["cluster"]["uuid"],
        cluster_version.cluster_id.as_str()
    );
    assert_eq!(
        manifest["cluster"]["ocpVersion"],
        cluster_version.version.as_str()
    );
    let checks = manifest["checks"].as_array().expect("checks");
    let disagree = checks
        .iter()
        .find(|check| check["name"] == "hashkv-mismatch");
    assert_eq!(disagree.expect("it was asked for")["result"], "ok");
}

fn snapshot(dir: &Path) -> String {
    text(&stock::pick(dir, "snapshot*.db")).to_owned()
}

fn what_snapshot_status_says(bins: &EtcdBins, dir: &Path, manifest: &Value) {
    let output = Command::new(bins.snapshot_tool())
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "status", &snapshot(dir), "-w", "json"])
        .output()
        .expect("running the snapshot tool");
    let status: Value =
        serde_json::from_str(&expect_success("snapshot status", &output)).expect("JSON");
    let database = &manifest["database"];
    assert_eq!(
        database["statusHash"],
        hex(&status["hash"]).as_str(),
        "{status}"
    );
    assert_eq!(database["kvRevision"], status["revision"], "{status}");
    // The file is the database and 32 bytes of trailer; the tool counts the pages.
    assert_eq!(database["size"], status["totalSize"], "{status}");
    let size = std::fs::metadata(snapshot(dir))
        .expect("the snapshot")
        .len();
    assert_eq!(database["size"].as_u64(), Some(size - 32));
}

/// What `cluster-restore.sh` does with a backup directory.
fn what_the_stock_script_wants(node: &Node, dir: &Path) {
    let restored = stock::assert_stock_restorable(dir);
    assert_eq!(text(&restored.snapshot), snapshot(dir));
    for (component, number) in REVISIONS {
        let name = format!("static-pod-resources/{component}-pod-{number}");
        let live = node.root.join("etc/kubernetes").join(&name);
        same_trees(&live, &restored.kubernetes.path().join(&name));
    }
}

/// Names, kinds, modes, owners, contents and link targets are the same.
fn same_trees(a: &Path, b: &Path) {
    let listing = |dir: &Path| {
        let script = r#"cd "$1" && find . -printf '%P %y %m %U %G %l %T@\n' | LC_ALL=C sort"#;
        let output = Command::new("bash")
            .args(["-euc", script, "bash", text(dir)])
            .output();
        let listed = expect_success("find", &output.expect("running bash"));
        // A directory's own time is set when it is left, to whole seconds by tar.
        listed
            .lines()
            .map(|line| {
                line.rsplit_once('.')
                    .map_or(line, |(line, _)| line)
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(listing(a), listing(b));
    let output = Command::new("diff").arg("-r").arg(a).arg(b).output();
    expect_success("diff -r", &output.expect("running diff"));
}

fn certificates(node: &Node, dir: &Path, manifest: &Value) {
    let archive = stock::pick(dir, "static_certs*.tar.gz");
    let into = tempfile::tempdir().expect("a folder");
    let output = Command::new("tar")
        .args(["-C", text(into.path()), "-xzf", text(&archive)])
        .output();
    expect_success("tar -xzf", &output.expect("running tar"));
    let name = "static-pod-resources/etcd-certs";
    same_trees(
        &node.root.join("etc/kubernetes").join(name),
        &into.path().join(name),
    );

    // The first leaf to expire, by openssl's reading of every certificate in both archives.
    let expiry = &manifest["earliestCertificateExpiry"];
    let path = expiry["path"].as_str().expect("a path");
    let file = into.path().join(path);
    let file = if file.exists() {
        file
    } else {
        node.root.join("etc/kubernetes").join(path)
    };
    let output = Command::new("openssl")
        .args([
            "x509",
            "-noout",
            "-enddate",
            "-dateopt",
            "iso_8601",
            "-in",
            text(&file),
        ])
        .output();
    if let Ok(output) = output
        && output.status.success()
    {
        let said = String::from_utf8_lossy(&output.stdout).replace(' ', "T");
        let time = expiry["time"].as_str().expect("a time");
        assert_eq!(said.trim(), format!("notAfter={time}"), "{file:?}");
    }
}

fn the_same_from_list_and_verify(node: &Node, store: &Path, manifest: &Value) {
    let listed = node.run(&["list", "-o", "json"]).expect(0).json();
    assert_eq!(listed["schemaVersion"], 1);
    assert_eq!(listed["newestGood"], "backup-1");
    assert_eq!(listed["latest"], "backup-1");
    let set = &listed["sets"][0];
    assert_eq!(set["state"], "good");
    assert_eq!(&set["manifest"], manifest);
    assert_eq!(set["verified"], Value::Null);
    let table = node.run(&["list"]).expect(0).stdout;
    assert_eq!(table.lines().count(), 2, "{table}");
    for word in ["backup-1 *", "4.17.12", "good"] {
        assert!(table.contains(word), "{word}: {table}");
    }

    let verified = node.run(&["verify", "latest", "-o", "json"]).expect(0);
    let report = &verified.json()["sets"][0];
    assert_eq!(report["good"], true, "{verified}");
    assert_eq!(report["findings"], serde_json::json!([]), "{verified}");
    assert_eq!(report["recorded"], true, "{verified}");
    for layer in report["layers"].as_array().expect("layers") {
        assert_eq!(layer["state"], "ok", "{layer}");
    }
    let set = &node.run(&["list", "-o", "json"]).expect(0).json()["sets"][0];
    assert_eq!(set["verified"]["good"], true, "{set}");
    assert_eq!(set["verified"]["failed"], serde_json::json!([]), "{set}");
    // By number, by its directory, all of them: it is the same set.
    let dir = store.join("backup-1");
    for word in ["1", "backup-1", text(&dir)] {
        node.run(&["verify", word]).expect(0);
    }
    node.run(&["verify", "--all"]).expect(0);
    std::fs::remove_file(dir.join("verified.json")).expect("removing what was learnt");
}

/// The release's own tool restores the snapshot, and a server runs on what it made.
fn etcd_restores_it(cluster: &Cluster, i: usize, dir: &Path) {
    if cluster.size() > 1 {
        return;
    }
    let data_dir = cluster.scratch().join("restored");
    let output = Command::new(cluster.bins().snapshot_tool())
        .env("ETCDCTL_API", "3")
        .args([
            "snapshot",
            "restore",
            &snapshot(dir),
            "--data-dir",
            text(&data_dir),
        ])
        .args(["--name", cluster.name(i)])
        .args([
            "--initial-cluster",
            &format!("{}=http://localhost:2380", cluster.name(i)),
        ])
        .output()
        .expect("running the snapshot tool");
    expect_success("snapshot restore", &output);
    let restored = Cluster::start_on(cluster.bins(), cluster.name(i), &data_dir);
    let present = Bulk::new(KEYS / 3, 700).seeded(1).count_present(&restored);
    assert_eq!(present, KEYS / 3);
    let original = golden::run(&["verify", "-o", "json", &snapshot(dir)], &[])
        .expect(0)
        .json();
    let layers = original["sets"][0]["layers"].as_array().expect("layers");
    assert!(layers.iter().any(|layer| layer["state"] == "not-checked"));
}
