//! Several changes of one node, and backups of other nodes and addresses.

use std::path::PathBuf;

use serde_json::Value;

use super::node::{KEYS, Node, copy, etcd};
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::node::{self, NodeOptions};
use testbench::node_bench::NodeBench;

/// The stand-in listens where CRI-O does; a kubeadm node's kubelet names containerd.
pub(super) fn containerd(root: &std::path::Path) {
    std::fs::create_dir_all(root.join("run/containerd")).expect("a folder");
    let link = root.join("run/containerd/containerd.sock");
    std::os::unix::fs::symlink("../crio/crio.sock", link).expect("a link");
}

/// kubeadm's nodes, the first run by the stand-in kubelet; `change` may look at the roots first.
fn kubeadm(mut cluster: Cluster, change: impl FnOnce(&Cluster, &[PathBuf])) -> Node {
    Bulk::new(KEYS, 64).write(&cluster);
    let roots = node::make_all(&cluster, &NodeOptions::kubeadm());
    change(&cluster, &roots);
    let bench = NodeBench::adopt(&mut cluster, 0, |_| {});
    cluster.wait_member(0);
    containerd(&roots[0]);
    Node {
        bench,
        cluster,
        root: roots[0].clone(),
    }
}

pub(super) fn three(family: &str) -> Option<Node> {
    let cluster = Cluster::start(ClusterSpec::new(&etcd(family)?, 3).fast());
    Some(kubeadm(cluster, |_, _| {}))
}

fn single() -> Option<Node> {
    let cluster = Cluster::start(ClusterSpec::new(&etcd("3.5")?, 1).fast());
    Some(kubeadm(cluster, |_, _| {}))
}

/// The one word that a document of `restore --status` has for an operation.
pub(super) fn unsettled(node: &Node) -> Vec<(String, String)> {
    let output = node.run(&["restore", "--status", "-o", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    testbench::schema::check_output(&json);
    let all = json["unsettled"].as_array().expect("a list");
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    all.iter()
        .map(|one| (word(&one["id"]), word(&one["state"])))
        .collect()
}

#[test]
fn a_second_change_waits_until_the_first_is_committed_or_rolled_back() {
    let Some(mut node) = single() else { return };
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    node.restore(&[]);
    let data = node.path("var/lib/etcd").display().to_string();
    let changes: [&[&str]; 3] = [
        &["restore", "backup-1", "--yes"],
        &["restore", "--from-data-dir", &data, "--yes"],
        &["member-add", "--join", "--yes"],
    ];
    let (id, state) = unsettled(&node).pop().expect("the restore");
    assert_eq!(state, "completed");
    let listed = node.expect(0, &["list"]).1;
    assert!(
        listed.contains(&format!("{id} is not committed")),
        "{listed}"
    );
    for change in changes {
        let told = node.expect(7, change).1;
        assert!(told.contains(&format!("restore --commit {id}")), "{told}");
        assert!(told.contains(&format!("restore --rollback {id}")), "{told}");
    }
    node.expect(0, &["restore", "--rollback", "--yes"]);
    node.bench.settle();
    node.cluster.wait_member(0);
    let later = node
        .cluster
        .etcdctl_ok(&["get", "later", "--print-value-only"]);
    assert_eq!(later.trim(), "1");

    // What was written after the restore is kept and shown; a clean-up removes it.
    assert_eq!(unsettled(&node), [(id.clone(), "rolled-back".to_owned())]);
    let told = node.expect(0, &["restore", "--commit", &id, "--yes"]).0;
    assert!(
        told.contains("deleted what") && !told.contains("committed restore"),
        "{told}"
    );
    assert_eq!(unsettled(&node), []);
}

/// Journals of releases that let one restore follow another.
#[test]
fn a_stack_of_restores_is_rolled_back_to_its_first_state() {
    let Some(mut node) = single() else { return };
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "first", "1"]);
    node.restore(&[]);
    let first = unsettled(&node).pop().expect("a restore").0;
    node.cluster.wait_member(0);
    // As before the refusal: the first one's journal was no reason to wait.
    let folder = node.path("var/lib/etcd-dr").join(&first);
    let aside = node.cluster.scratch().join(&first);
    std::fs::rename(&folder, &aside).expect("hiding a journal");
    node.cluster.etcdctl_ok(&["put", "second", "2"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    node.restore(&["--allow", "cluster-mismatch"]);
    std::fs::rename(&aside, &folder).expect("the journal again");
    let ids: Vec<String> = unsettled(&node).into_iter().map(|(id, _)| id).collect();
    let [_, second] = ids.as_slice() else {
        panic!("{ids:?}");
    };

    // Each still holds its backup; the later one must be rolled back first.
    let pruned = node
        .expect(0, &["prune", "--keep-last", "1", "--dry-run", "--explain"])
        .0;
    assert!(pruned.contains("in-use"), "{pruned}");
    let told = node
        .expect(7, &["restore", "--rollback", &first, "--yes"])
        .1;
    assert!(told.contains(second.as_str()), "{told}");
    let told = node.expect(0, &["restore", "--rollback", "--yes"]).0;
    assert!(told.contains(&format!("also {first}: completed")), "{told}");
    node.expect(0, &["restore", "--rollback", "--yes"]);
    node.bench.settle();
    node.cluster.wait_member(0);
    for (key, value) in [("first", "1"), ("second", "")] {
        let found = node.cluster.etcdctl_ok(&["get", key, "--print-value-only"]);
        assert_eq!(found.trim(), value, "{key}");
    }
    node.expect(0, &["restore", "--commit", &first, "--yes"]);
    node.expect(0, &["restore", "--commit", "--yes"]);
    assert_eq!(unsettled(&node), []);
    let hidden = node.path("etc/kubernetes/.etcd-dr");
    assert!(!hidden.exists(), "nothing is left in {}", hidden.display());
}

#[test]
fn what_the_tool_itself_put_back_is_not_said_to_be_others_doing() {
    let Some(mut node) = single() else { return };
    node.expect(0, &["backup"]);
    node.expect(0, &["disable"]);
    node.restore(&[]);
    node.cluster.wait_member(0);
    let listed = node.expect(0, &["list"]).1;
    assert!(!listed.contains("disabled"), "{listed}");
    let told = node.expect(0, &["enable"]).0;
    assert!(
        told.contains("restore-") && !told.contains("others"),
        "{told}"
    );
    // Rolled back it is what it was before: disabled.
    node.expect(0, &["restore", "--rollback", "--yes"]);
    assert!(!node.bench.runs("etcd"));
    let listed = node.expect(0, &["list"]).1;
    assert!(listed.contains("etcd is disabled on this node"), "{listed}");
    node.expect(0, &["restore", "--commit", "--yes"]);
    node.restore(&[]);
    node.expect(0, &["restore", "--commit", "--yes"]);
    assert!(!node.path("etc/kubernetes/.etcd-dr").exists());
    let told = node.expect(0, &["enable"]).0;
    assert!(told.contains("not disabled"), "{told}");
}

/// The set's directory, for a test that takes a set apart.
fn set(node: &Node, name: &str) -> PathBuf {
    node.path("var/lib/etcd-dr/static-pod-backups").join(name)
}

fn snapshot_of(node: &Node, name: &str) -> String {
    let entries = std::fs::read_dir(set(node, name)).expect("a set");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut snapshots = paths.filter(|path| path.extension().is_some_and(|end| end == "db"));
    snapshots.next().expect("a snapshot").display().to_string()
}

fn edited(path: &std::path::Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("a file");
    assert!(text.contains(from), "{from} in {}", path.display());
    std::fs::write(path, text.replace(from, to)).expect("a file");
}

#[test]
fn a_rehearsal_on_a_healthy_cluster_shows_the_plan_and_what_is_refused() {
    let Some(node) = three("3.5") else { return };
    node.expect(0, &["backup"]);
    let (plan, told) = node.expect(5, &["restore", "backup-1", "--dry-run"]);
    assert!(
        plan.contains("Restoring backup-1 to master-0") && plan.contains("Steps"),
        "{plan}"
    );
    assert!(told.contains("other-members-running"), "{told}");
    // Whole commands, the safe one first.
    let (_, hints) = told.split_once("hint: ").expect("a hint");
    let (first, over) = hints.split_once('\n').expect("two");
    assert!(
        first.ends_with("master-1, master-2: etcd-dr disable"),
        "{told}"
    );
    assert!(
        over.contains("restore backup-1 --dry-run --allow other-members-running"),
        "{told}"
    );
    let output = node.run(&["restore", "backup-1", "--dry-run", "-o", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    testbench::schema::check_output(&json);
    assert_eq!(json["error"]["refusal"], "other-members-running");
    assert_eq!(json["plan"]["dryRun"], true);
}

#[test]
fn a_backup_of_another_node_or_address_restores_the_data_alone() {
    let Some(mut node) = single() else { return };
    let manifest = node.path("etc/kubernetes/manifests/etcd.yaml");
    let before = std::fs::read_to_string(&manifest).expect("a manifest");
    let own = format!("--listen-peer-urls={}", node.cluster.peer_url(0));
    // As it was taken: before the node moved, or on another one.
    edited(&manifest, &own, &format!("{own},https://192.0.2.9:2380"));
    node.bench.settle();
    node.cluster.wait_member(0);
    node.expect(0, &["backup"]);
    std::fs::write(&manifest, &before).expect("a manifest");
    node.bench.settle();
    node.cluster.wait_member(0);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let told = node.expect(5, &["restore", "backup-1", "--yes"]).1;
    assert!(
        told.contains("[address-not-local]") && told.contains("192.0.2.9"),
        "{told}"
    );
    assert!(
        told.contains("restore backup-1 --yes --scope etcd"),
        "{told}"
    );
    edited(
        &set(&node, "backup-1").join("backup.json"),
        "\"master-0\"",
        "\"master-7\"",
    );
    let told = node
        .expect(
            5,
            &["restore", "backup-1", "--yes", "--allow", "node-mismatch"],
        )
        .1;
    assert!(
        told.contains("[node-mismatch]") && !told.contains("override"),
        "{told}"
    );

    node.restore(&["--scope", "etcd"]);
    node.assert_backed_up_state();
    assert_eq!(
        std::fs::read_to_string(&manifest).expect("a manifest"),
        before
    );
}

#[test]
fn a_snapshot_alone_is_restored_while_etcd_is_disabled() {
    let Some(mut node) = single() else { return };
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let alone = node.cluster.scratch().join("my.db");
    copy(&PathBuf::from(snapshot_of(&node, "backup-1")), &alone);
    let alone = alone.display().to_string();
    let restore = [
        "restore", &alone, "--scope", "etcd", "--yes", "--wait", "60s",
    ];

    // Moved away by hand, as Kubernetes' documentation says.
    let manifest = node.path("etc/kubernetes/manifests/etcd.yaml");
    let aside = node.cluster.scratch().join("etcd.yaml");
    std::fs::rename(&manifest, &aside).expect("moving a manifest");
    node.bench.settle();
    let told = node.expect(2, &restore).1;
    assert!(
        told.contains("mv FILE") && told.contains("manifests/etcd.yaml"),
        "{told}"
    );
    std::fs::rename(&aside, &manifest).expect("moving it back");
    node.bench.settle();
    node.cluster.wait_member(0);

    node.expect(0, &["disable"]);
    node.expect(0, &restore);
    node.assert_backed_up_state();
}

/// Backups from before a restore are of the same cluster, though etcd's id is another.
#[test]
fn a_restored_cluster_is_the_same_to_its_older_backups() {
    let Some(mut node) = single() else { return };
    node.expect(0, &["backup"]);
    for _ in 0..2 {
        node.cluster.etcdctl_ok(&["put", "later", "1"]);
        node.restore(&[]);
        node.expect(0, &["restore", "--commit", "--yes"]);
        node.assert_backed_up_state();
    }
    node.expect(0, &["backup"]);
    let text = std::fs::read(set(&node, "backup-2").join("backup.json")).expect("a Manifest");
    let manifest: Value = serde_json::from_slice(&text).expect("JSON");
    let former = manifest["cluster"]["formerIds"].as_array().expect("ids");
    assert_eq!(former.len(), 2, "{manifest}");

    // Without a journal, the namespace that every cluster makes once identifies it.
    let uid = |uid: &str| {
        let object = format!(r#"{{"kind":"Namespace","metadata":{{"uid":"{uid}"}}}}"#);
        node.cluster
            .etcdctl_ok(&["put", "/registry/namespaces/kube-system", &object]);
    };
    let stranger = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).expect("a Manifest");
        let mut value: Value = serde_json::from_str(&text).expect("JSON");
        value["cluster"]["etcdId"] = "1234".into();
        value["cluster"]["formerIds"] = Value::Array(Vec::new());
        std::fs::write(path, value.to_string()).expect("a Manifest");
    };
    uid("u-1");
    node.expect(0, &["backup"]);
    stranger(&set(&node, "backup-3").join("backup.json"));
    node.expect(0, &["restore", "backup-3", "--dry-run"]);
    uid("u-2");
    let told = node.expect(5, &["restore", "backup-3", "--dry-run"]).1;
    assert!(told.contains("[cluster-mismatch]"), "{told}");
}

#[test]
fn a_journal_that_names_other_places_is_not_followed() {
    let Some(node) = single() else { return };
    node.expect(0, &["backup"]);
    node.restore(&[]);
    let victim = node.path("home_victim");
    std::fs::create_dir_all(&victim).expect("a folder");
    let id = unsettled(&node).pop().expect("a restore").0;
    let journal = node.path("var/lib/etcd-dr").join(&id).join("journal");
    let whole = std::fs::read(&journal).expect("a journal");
    rewritten(&journal, |number, record| {
        if number == 0 {
            record["about"]["safety"] = serde_json::json!(["/home_victim"]);
        }
    });
    for flag in ["--commit", "--rollback"] {
        let told = node.expect(5, &["restore", flag, "--yes"]).1;
        assert!(told.contains("[journal-out-of-bounds]"), "{told}");
    }
    assert!(victim.exists());
    std::fs::write(&journal, whole).expect("a journal");
    let status = std::process::Command::new("chmod")
        .arg("o+w")
        .arg(&journal)
        .status();
    assert!(status.expect("chmod").success());
    let told = node.expect(5, &["restore", "--commit", "--yes"]).1;
    assert!(told.contains("[state-not-trusted]"), "{told}");
    let told = node.expect(7, &["restore", "backup-1", "--yes"]).1;
    assert!(told.contains("cannot be trusted"), "{told}");
}

#[test]
fn what_the_plan_says_of_names_and_what_a_cluster_says_of_disable() {
    let Some(node) = single() else { return };
    let data = node.path("var/lib/etcd").display().to_string();
    let moved = ["--peer-urls", "https://192.0.2.9:2380"];
    let plan = ["restore", "--from-data-dir", &data, "--dry-run"];
    let told = node.expect(0, &[&plan[..], &moved].concat()).1;
    assert!(
        told.contains("certificate-lacks-name") && told.contains("192.0.2.9"),
        "{told}"
    );
    assert!(!node.expect(0, &plan).1.contains("certificate-lacks-name"));
    node.expect(0, &["disable"]);
    let told = node.expect(11, &["verify", "--cluster"]).1;
    assert!(told.contains("etcd is disabled on this node"), "{told}");
    // A path means the node's if this process has no such directory.
    let below = PathBuf::from(&data);
    std::fs::rename(&below, below.with_file_name("etcd-of-this-test")).expect("a name of its own");
    let files = node
        .expect(0, &["verify", "--data-dir", "/var/lib/etcd-of-this-test"])
        .0;
    assert!(files.contains("etcd-of-this-test"), "{files}");
}

/// If the manifest lacks it, each hint adds what is missing.
#[test]
fn an_etcd_behind_a_shell_is_restored_by_the_hints_alone() {
    let Some(node) = single() else { return };
    node.expect(0, &["backup"]);
    let manifest = node.path("etc/kubernetes/manifests/etcd.yaml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let flag = |line: &str| line.trim_start().starts_with("- --");
    let flags: Vec<&str> = text
        .lines()
        .filter(|line| flag(line))
        .map(|line| line.trim_start_matches([' ', '-']))
        .collect();
    let script = format!("exec etcd --{}", flags.join(" --"));
    let wrapped: Vec<String> = text
        .lines()
        .filter(|line| !flag(line))
        .map(|line| match line.trim_start() == "- etcd" {
            true => line.replace("- etcd", &format!("- sh\n    - -ec\n    - {script}")),
            false => line.to_owned(),
        })
        .collect();
    std::fs::write(&manifest, wrapped.join("\n") + "\n").expect("a manifest");
    node.bench.settle();
    let mut args: Vec<String> = ["--root", &node.root.display().to_string(), "restore"]
        .map(str::to_owned)
        .to_vec();
    args.extend(["backup-1", "--scope", "etcd", "--dry-run"].map(str::to_owned));
    for _ in 0..5 {
        let output = testbench::golden::etcd_dr().args(&args).output();
        let output = output.expect("running etcd-dr");
        let told = super::node::text(&output.stderr);
        if output.status.success() {
            return;
        }
        assert_eq!(output.status.code(), Some(2), "{told}");
        let (_, hint) = told.split_once(": etcd-dr ").expect("a whole command");
        let host = node.cluster.ip(0).to_string();
        let hint = hint
            .lines()
            .next()
            .unwrap_or_default()
            .replace("NAME", "master-0");
        let hint = hint.replace("ADDRESS", &host);
        args = hint.split(' ').map(str::to_owned).collect();
    }
    panic!("the hints lead nowhere: {args:?}");
}

/// Writes a journal again, each record changed.
pub(super) fn rewritten(journal: &std::path::Path, change: impl Fn(usize, &mut Value)) {
    let whole = std::fs::read_to_string(journal).expect("a journal");
    let record = |(number, line): (usize, &str)| {
        let (_, json) = line.split_once(' ').expect("a sum");
        let mut value: Value = serde_json::from_str(json).expect("JSON");
        change(number, &mut value);
        let json = value.to_string();
        format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
    };
    // Behind the records is the room that is kept for those to come.
    let records = whole.lines().filter(|line| line.contains(' '));
    let lines: Vec<String> = records.enumerate().map(record).collect();
    std::fs::write(journal, lines.concat()).expect("a journal");
}
