//! What happened in a backup.

use serde_json::Value;

use crate::bench::{cluster, lease, object, save, text};
use testbench::bins::require_turn;
use testbench::bulk::block_on;
use testbench::golden;

/// 2026-01-02T03:04:05Z, in milliseconds.
const DAY: i64 = 1_767_323_045_000;

fn log(snapshot: &std::path::Path, more: &[&str]) -> Value {
    let snapshot = text(snapshot);
    let mut args = vec!["log", &snapshot, "-o", "json"];
    args.extend(more);
    golden::run(&args, &[]).expect(0).json()
}

/// Act, key, number and first revision of each group.
fn groups(document: &Value) -> Vec<(String, String, u64, i64)> {
    let of = |group: &Value| {
        (
            group["act"].as_str().unwrap().to_owned(),
            group["key"].as_str().unwrap().to_owned(),
            group["changes"].as_u64().unwrap(),
            group["firstRevision"].as_i64().unwrap(),
        )
    };
    document["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(of)
        .collect()
}

#[test]
fn changes_are_grouped_and_chosen() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        let (deleted, marked) = block_on(async {
            let mut kv = cluster.client().await.kv_client();
            for i in 0..20 {
                let pod = object("web", DAY, None);
                let key = format!("/registry/pods/prod/web-{i}");
                kv.put(key, pod, None).await.unwrap();
            }
            // A minute of renewals, and the deletion in its middle.
            let (mut deleted, mut marked) = (0, 0);
            for second in 0..60i64 {
                for node in 0..3 {
                    let key = format!("/registry/leases/kube-node-lease/n{node}");
                    let value = lease(DAY + second * 1000);
                    kv.put(key, value, None).await.unwrap();
                }
                if second == 30 {
                    let key = "/registry/pods/prod/";
                    let options = etcd_client::DeleteOptions::new().with_prefix();
                    let gone = kv.delete(key, Some(options)).await.unwrap();
                    deleted = gone.header().unwrap().revision();
                    let secret = kv.put("/registry/secrets/test/s", "x", None).await.unwrap();
                    marked = secret.header().unwrap().revision();
                }
            }
            (deleted, marked)
        });
        let snapshot = save(&cluster);
        let all = log(&snapshot, &[]);
        assert_eq!(all["reachable"]["clock"]["source"], "leases");
        let found = groups(&all);
        let own =
            |act: &str, key: &str, changes, first| (act.to_owned(), key.to_owned(), changes, first);
        assert_eq!(found[0], own("create", "/registry/pods/prod/", 20, 2));
        assert!(
            found.contains(&own("delete", "/registry/pods/prod/", 20, deleted)),
            "{found:?}"
        );
        let secret = own("create", "/registry/secrets/test/s", 1, marked);
        assert!(found.contains(&secret), "{found:?}");
        // All renewals are one line.
        let renewals = found
            .iter()
            .filter(|(act, key, ..)| act == "update" && key.contains("leases"));
        assert_eq!(renewals.map(|(_, _, changes, _)| changes).sum::<u64>(), 177);
        assert!(found.len() <= 6, "{found:?}");

        for args in [
            &["--deletes"] as &[&str],
            &["pods", "-n", "prod", "--deletes"],
            &[
                "--prefix",
                "/registry/pods/",
                "--deletes",
                "--since",
                "2026-01-02T03:04:25Z",
            ],
        ] {
            let deletes = groups(&log(&snapshot, args));
            assert_eq!(
                deletes,
                [own("delete", "/registry/pods/prod/", 20, deleted)],
                "{args:?}"
            );
        }
        assert_eq!(
            groups(&log(
                &snapshot,
                &["--since", "2026-01-02T03:04:55Z", "--deletes"]
            )),
            []
        );
        assert_eq!(groups(&log(&snapshot, &["secret", "-n", "test"])), [secret]);

        let shown = golden::run(&["log", &text(&snapshot), "--deletes"], &[])
            .expect(0)
            .stdout;
        let line = format!("Z revision {deleted}: 20 deletes under /registry/pods/prod\n");
        assert!(
            shown.contains("times by Leases (3 writers), within ") && shown.ends_with(&line),
            "{shown}"
        );
        let shown = golden::run(&["log", &text(&snapshot), "none"], &[])
            .expect(0)
            .stdout;
        assert!(shown.ends_with("no such change\n"), "{shown}");
    }
}

/// Without times there are revisions only.
#[test]
fn keys_of_others_have_no_times() {
    for bins in require_turn() {
        let cluster = cluster(bins, 1);
        cluster.etcdctl_ok(&["put", "plain", "1"]);
        cluster.etcdctl_ok(&["put", "plain", "2"]);
        cluster.etcdctl_ok(&["put", "other", "1"]);
        cluster.etcdctl_ok(&["del", "plain"]);
        let snapshot = save(&cluster);
        let shown = golden::run(&["log", &text(&snapshot)], &[])
            .expect(0)
            .stdout;
        let lines: Vec<&str> = shown.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "revision 2 to 4: 2 creates of keys without a slash",
                "revision 3: 1 update of plain",
                "revision 5: 1 delete of plain",
            ]
        );
        let run = golden::run(&["log", &text(&snapshot), "--since", "1h"], &[]);
        assert!(run.expect(5).stderr.contains("no times are known"));
    }
}
