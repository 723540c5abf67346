//! `diff`.

use std::collections::BTreeMap;

use etcd_client::{Client, DeleteOptions};
use serde_json::{Value, json};
use testbench::bins::require;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::database::writer::Random;
use testbench::golden::{Run, run};

use super::{Unpacked, fixture};

fn diff(args: &[&str]) -> Run {
    run(&[&["diff"], args].concat(), &[])
}

#[test]
fn a_database_equals_itself() {
    let set = Unpacked::of("objects");
    let path = set.path();
    for more in [
        &[][..],
        &["--all"],
        &["po"],
        &["-n", "kube-system", "--names"],
    ] {
        let shown = diff(&[&[path.as_str(), path.as_str(), "-o", "json"], more].concat());
        let document = shown.expect(0).json();
        assert_eq!(document["same"], true, "{more:?}");
    }
    let text = diff(&[&path, &path]).expect(0).stdout;
    assert!(text.contains(": the same, "), "{text}");
}

#[test]
fn backups_that_recorded_the_same_hash_are_not_read() {
    let set = format!("{}/fixtures/store/backup-1", env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("backup-1");
    std::fs::create_dir(&copy).expect("a folder");
    for file in std::fs::read_dir(&set).expect("the fixture").flatten() {
        std::fs::copy(file.path(), copy.join(file.file_name())).expect("copying");
    }
    let copy = copy.display().to_string();
    let shown = diff(&[&set, &copy, "-o", "json"]).expect(0).json();
    assert_eq!(shown["same"], true);
    assert!(shown["hashKv"].is_u64());
}

/// Re-encrypted values differ, and their objects do not.
#[test]
fn secrets_are_compared_in_the_clear_and_shown_masked() {
    let (plain, set) = (Unpacked::of("objects"), Unpacked::of("encrypted-aescbc"));
    let config = fixture("encrypted-aescbc-config.json")
        .display()
        .to_string();
    let args = [
        &plain.path(),
        &set.path(),
        "secrets",
        "--objects",
        "--encryption-config",
        &config,
    ];
    let shown = diff(&args).expect(11);
    let values = set
        .answers
        .iter()
        .filter(|answer| answer["object"]["kind"] == "Secret");
    let values = values.filter_map(|answer| answer["object"]["data"].as_object());
    let mut seen = 0;
    for value in values
        .flat_map(|data| data.values())
        .filter_map(Value::as_str)
        .filter(|value| value.len() > 8)
    {
        assert!(!shown.stdout.contains(value), "{value}");
        seen += 1;
    }
    assert!(seen > 10 && shown.stdout.contains("***"));
    let without = diff(&[&plain.path(), &set.path(), "secrets"]).expect(11);
    assert!(without.stdout.contains("from "), "{without}");
}

#[test]
fn a_page_needs_nothing_else() {
    let (first, second) = (Unpacked::of("objects"), Unpacked::of("encodings"));
    let page = diff(&[&first.path(), &second.path(), "--names", "-o", "html"])
        .expect(11)
        .stdout;
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for outside in ["src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// What the test believes the cluster to hold: uid and content by namespace and name.
type Model = BTreeMap<(String, String), (u64, u64)>;

/// Random creations, changes, deletions and recreations.
struct Workload {
    random: Random,
    client: Client,
    model: Model,
    uid: u64,
}

impl Workload {
    async fn step(&mut self) {
        let namespace = format!("ns-{}", self.random.below(5));
        let name = format!("cm-{}", self.random.below(60));
        let (key, id) = (
            format!("/registry/configmaps/{namespace}/{name}"),
            (namespace, name),
        );
        match (self.random.below(10), self.model.get(&id).copied()) {
            (0..3, Some(_)) => {
                let deleted = self.client.delete(key, None::<DeleteOptions>).await;
                deleted.expect("a deletion");
                self.model.remove(&id);
            }
            // Another object of that name, in one revision or two.
            (3, Some(_)) => {
                self.uid += 1;
                self.put(key, &id, self.uid, 0).await;
            }
            (_, Some((uid, _))) => {
                let content = self.random.below(4);
                self.put(key, &id, uid, content).await;
            }
            (_, None) => {
                self.uid += 1;
                self.put(key, &id, self.uid, 0).await;
            }
        }
        // What changes all the time is not looked at.
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"n": self.random.next_u64()}});
        let lease = lease.to_string();
        self.client
            .put("/registry/leases/kube-system/l", lease, None)
            .await
            .expect("a put");
    }

    async fn put(&mut self, key: String, id: &(String, String), uid: u64, content: u64) {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": id.0, "name": id.1, "uid": uid.to_string()}, "data": {"n": content.to_string()}});
        self.client
            .put(key, object.to_string(), None)
            .await
            .expect("a put");
        self.model.insert(id.clone(), (uid, content));
    }
}

fn expected(before: &Model, after: &Model) -> BTreeMap<(String, String), &'static str> {
    let mut found = BTreeMap::new();
    for (id, (uid, content)) in before {
        let difference = match after.get(id) {
            None => "removed",
            Some((other, _)) if other != uid => "replaced",
            Some((_, other)) if other != content => "changed",
            Some(_) => continue,
        };
        found.insert(id.clone(), difference);
    }
    for id in after.keys().filter(|id| !before.contains_key(*id)) {
        found.insert(id.clone(), "added");
    }
    found
}

#[test]
fn random_operations_on_a_real_etcd_differ_as_the_model_does() {
    let Some(bins) = require("3.5") else { return };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    let dir = tempfile::tempdir().expect("a folder");
    let save = |name: &str| {
        let path = dir.path().join(name).display().to_string();
        cluster.etcdctl_ok(&["snapshot", "save", &path]);
        path
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime
        .block_on(Client::connect([cluster.client_url(0)], None))
        .expect("a client");
    let mut workload = Workload {
        random: Random(20),
        client,
        model: Model::new(),
        uid: 0,
    };
    let mut saved: Vec<(String, Model)> = Vec::new();
    for round in 0..5 {
        runtime.block_on(async {
            for _ in 0..400 {
                workload.step().await;
            }
        });
        saved.push((save(&format!("{round}.db")), workload.model.clone()));
    }
    for (before, after) in [(0, 1), (1, 2), (0, 4), (4, 0), (3, 3)] {
        let ((first, before), (second, after)) = (&saved[before], &saved[after]);
        let expected = expected(before, after);
        let status = if expected.is_empty() { 0 } else { 11 };
        let shown = diff(&[first, second, "--names", "-o", "json"])
            .expect(status)
            .json();
        let found: BTreeMap<(String, String), &str> = shown["objects"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| {
                let of = |field: &str| entry[field].as_str().expect("text");
                assert_eq!(of("kind"), "configmaps");
                (
                    (of("namespace").to_owned(), of("name").to_owned()),
                    of("difference"),
                )
            })
            .collect();
        assert_eq!(found, expected);
        let all = diff(&[first, second, "--all", "-o", "json"]);
        let leases = &all.json()["kinds"]["leases.coordination.k8s.io"];
        assert_eq!(leases.is_object(), first != second);
    }
}

#[test]
fn what_a_restore_would_lose_is_named() {
    let Some(bins) = require("3.5") else { return };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).plain());
    let dir = tempfile::tempdir().expect("a folder");
    let save = |name: &str| {
        let path = dir.path().join(name).display().to_string();
        cluster.etcdctl_ok(&["snapshot", "save", &path]);
        path
    };
    let put = |key: &str, api_version: &str, kind: &str, rest: Value| {
        let parts: Vec<&str> = key.split('/').collect();
        let mut object = json!({"apiVersion": api_version, "kind": kind,
            "metadata": {"name": parts[parts.len() - 1], "uid": key}});
        for (field, value) in rest.as_object().expect("fields") {
            object[field] = value.clone();
        }
        cluster.etcdctl_ok(&["put", key, &object.to_string()]);
    };
    put(
        "/registry/secrets/shop/token",
        "v1",
        "Secret",
        json!({"data": {"a": "b2xk"}}),
    );
    put(
        "/registry/pods/shop/old",
        "v1",
        "Pod",
        json!({"spec": {"nodeName": "n1"}}),
    );
    let before = save("before.db");
    put(
        "/registry/secrets/shop/token",
        "v1",
        "Secret",
        json!({"data": {"a": "bmV3"}}),
    );
    put(
        "/registry/pods/shop/new",
        "v1",
        "Pod",
        json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}),
    );
    put(
        "/registry/pods/shop/ended",
        "v1",
        "Pod",
        json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Succeeded"}}),
    );
    put(
        "/registry/pods/shop/waits",
        "v1",
        "Pod",
        json!({"spec": {}}),
    );
    put(
        "/registry/persistentvolumes/pv-1",
        "v1",
        "PersistentVolume",
        json!({}),
    );
    put(
        "/registry/services/specs/shop/web",
        "v1",
        "Service",
        json!({"spec": {"type": "LoadBalancer"}}),
    );
    put(
        "/registry/services/specs/shop/inner",
        "v1",
        "Service",
        json!({"spec": {"type": "ClusterIP"}}),
    );
    put("/registry/minions/n9", "v1", "Node", json!({}));
    put(
        "/registry/machine.openshift.io/machines/ns/m9",
        "machine.openshift.io/v1",
        "Machine",
        json!({}),
    );
    let names = json!({"plural": "widgets", "kind": "Widget"});
    let definition = "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com";
    let spec = json!({"spec": {"group": "example.com", "scope": "Namespaced", "names": names}});
    put(
        definition,
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        spec,
    );
    for name in ["a", "b"] {
        put(
            &format!("/registry/example.com/widgets/shop/{name}"),
            "example.com/v1",
            "Widget",
            json!({}),
        );
    }
    for number in [7, 8] {
        put(
            &format!("/registry/configmaps/openshift-etcd/revision-status-{number}"),
            "v1",
            "ConfigMap",
            json!({}),
        );
    }
    let after = save("after.db");
    let shown = diff(&[&before, &after, "-o", "json"]).expect(11).json();
    let of = |names: &[&str]| json!({"count": names.len(), "names": names});
    let expected = json!({
        "phantomPods": {"n1": of(&["shop/new"])},
        "volumes": of(&["persistentvolumes pv-1"]),
        "loadBalancers": of(&["shop/web"]),
        // Without its definition, the kind of a key is its path.
        "machines": of(&["machine.openshift.io/machines ns/m9", "nodes n9"]),
        "definitions": {"widgets.example.com": 2},
        "changedSecrets": of(&["shop/token"]),
        "staticPodRevisions": {"openshift-etcd": 8},
    });
    assert_eq!(shown["loss"], expected);
    let text = diff(&[&before, &after]).expect(11).stdout;
    assert!(
        text.contains("1 pod runs on n1") && text.contains("restart its kubelet"),
        "{text}"
    );
    assert!(
        text.contains("widgets.example.com would vanish with its 2 objects"),
        "{text}"
    );
    let back = diff(&[&after, &before, "-o", "json"]).expect(11).json();
    assert_eq!(back["loss"]["phantomPods"], json!({}));
}
