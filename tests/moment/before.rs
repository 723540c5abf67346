//! Back to before an object was deleted, or last changed.

use crate::bench::{cluster, kvs, object, restore, save};
use testbench::bins::require_turn;
use testbench::bulk::put_all;
use testbench::cluster::Cluster;

const DAY: i64 = 1_767_323_045_000;

fn put(cluster: &Cluster, key: &str, value: Vec<u8>) -> i64 {
    put_all(cluster, [(key, value)]);
    cluster.revision(0)
}

/// As the API server deletes a namespace: it is marked, its objects go, then it goes itself.
fn delete_namespace(cluster: &Cluster, name: &str) -> i64 {
    let key = format!("/registry/namespaces/{name}");
    let marked = put(cluster, &key, object(name, DAY, Some(DAY + 5000)));
    cluster.etcdctl_ok(&["del", "--prefix", &format!("/registry/pods/{name}/")]);
    cluster.etcdctl_ok(&[
        "del",
        "--prefix",
        &format!("/registry/services/specs/{name}/"),
    ]);
    put(cluster, &key, object(name, DAY, Some(DAY + 5000)));
    cluster.etcdctl_ok(&["del", &key]);
    marked
}

fn fill(cluster: &Cluster) {
    for name in ["prod", "test"] {
        put(
            cluster,
            &format!("/registry/namespaces/{name}"),
            object(name, DAY, None),
        );
        for i in 0..5 {
            let pod = format!("web-{i}");
            put(
                cluster,
                &format!("/registry/pods/{name}/{pod}"),
                object(&pod, DAY, None),
            );
        }
        let service = format!("/registry/services/specs/{name}/web");
        put(cluster, &service, object("web", DAY, None));
    }
}

#[test]
fn a_namespace_comes_back_with_its_contents() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        fill(&cluster);
        let whole = kvs(&cluster, None);
        let before = cluster.revision(0);
        let marked = delete_namespace(&cluster, "prod");
        assert_eq!(marked, before + 1);
        put(
            &cluster,
            "/registry/pods/test/web-9",
            object("web-9", DAY, None),
        );
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        for (i, word) in [
            "namespace/prod",
            "ns/prod",
            "namespaces/prod",
            "/registry/namespaces/prod",
        ]
        .iter()
        .enumerate()
        {
            let data_dir = dir.path().join(format!("d{i}"));
            let args = ["--to-before", word, "--bump-revision", "0"];
            let made = restore(&snapshot, &data_dir, &args).expect(0).json();
            let moment = &made["moment"];
            assert_eq!(moment["revision"], before, "{word}: {moment}");
            let reason = moment["reason"].as_str().unwrap();
            let wanted = format!(
                "before the deletion of namespaces/prod was requested, at revision {marked}; it was gone at revision {}",
                marked + 4
            );
            assert_eq!(reason, wanted);
            assert_eq!(made["keys"], whole.as_array().unwrap().len());
            let undone = &moment["undone"];
            assert_eq!(
                (&undone["deleted"], &undone["created"]),
                (&7.into(), &1.into())
            );
            let pods = &undone["groups"][0];
            assert_eq!(
                (&pods["resource"], &pods["namespace"]),
                (&"pods".into(), &"prod".into())
            );
            assert_eq!(pods["deleted"], 5);
        }
    }
}

#[test]
fn one_object_by_kind_and_name() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        fill(&cluster);
        let before = cluster.revision(0);
        cluster.etcdctl_ok(&["del", "/registry/services/specs/prod/web"]);
        put(
            &cluster,
            "/registry/pods/test/web-1",
            object("web-1", DAY, None),
        );
        put(&cluster, "plain", b"1".to_vec());
        put(&cluster, "plain", b"2".to_vec());
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        let to = |word: &str| {
            let data_dir = dir.path().join(word.replace('/', "-"));
            let args = ["--to-before", word, "--bump-revision", "0"];
            let made = restore(&snapshot, &data_dir, &args).expect(0).json();
            let moment = &made["moment"];
            let reason = moment["reason"].as_str().unwrap().to_owned();
            (moment["revision"].as_i64().unwrap(), reason)
        };
        let (revision, reason) = to("svc/prod/web");
        assert_eq!(revision, before);
        let at = before + 1;
        assert_eq!(
            reason,
            format!("before services/prod/web was deleted, at revision {at}")
        );
        let (revision, reason) = to("pod/test/web-1");
        assert_eq!(revision, before + 1);
        assert!(reason.contains("was last changed") && reason.ends_with("it was not deleted"));
        let (revision, _) = to("plain");
        assert_eq!(revision, before + 3);
        let (revision, reason) = to("pods/prod/web-3");
        assert!(
            revision < before && reason.contains("was created"),
            "{reason}"
        );
    }
}

/// The deletion began before the compaction: then what is left of the namespace is not enough.
#[test]
fn a_deletion_that_began_before_the_history_is_refused() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        fill(&cluster);
        let key = "/registry/namespaces/prod";
        let marked = put(&cluster, key, object("prod", DAY, Some(DAY + 5000)));
        cluster.etcdctl_ok(&["del", "--prefix", "/registry/pods/prod/"]);
        let now = cluster.revision(0);
        cluster.etcdctl_ok(&["compact", "--physical", &now.to_string()]);
        cluster.etcdctl_ok(&["del", key]);
        let snapshot = save(&cluster);
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("d");
        let refused = restore(&snapshot, &data_dir, &["--to-before", "namespace/prod"]).expect(5);
        let error = refused.json()["error"].clone();
        assert_eq!(error["refusal"], "unreachable-target");
        let message = error["message"].as_str().unwrap();
        let wanted = format!("was requested at revision {marked} or before, which is compacted");
        assert!(message.contains(&wanted), "{message}");
        assert!(!data_dir.exists());
    }
}
