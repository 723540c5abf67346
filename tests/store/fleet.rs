//! `list --fleet`: many clusters in several stores, in every state, by small objects alone.

use std::path::Path;

use serde_json::Value;

use crate::bench::{Bench, files_below, run};
use crate::wire::{Act, Wire, s3_error};
use testbench::s3::{BUCKET, S3, variables};

type Env = Vec<(&'static str, String)>;

/// A time some hours ago.
fn ago(hours: i64) -> String {
    let now = jiff::Timestamp::now();
    let then = now - jiff::SignedDuration::from_hours(hours);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A store of one node's backups, each of them so many hours old; the newest has the highest number.
fn node(cluster: &str, node: &str, hours: &[i64]) -> Bench {
    let bench = Bench::new();
    for (number, hours) in (1..).zip(hours) {
        let path = bench.set(number).join("backup.json");
        let bytes = std::fs::read(&path).expect("a Manifest");
        let mut manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
        manifest["created"] = ago(*hours).into();
        manifest["cluster"]["uuid"] = cluster.into();
        manifest["node"]["name"] = node.into();
        std::fs::write(&path, manifest.to_string()).expect("a Manifest");
    }
    bench
}

/// Copies a node's backups to a store.
fn share(bench: &Bench, url: &str, env: &Env) {
    let sets = std::fs::read_dir(bench.store()).expect("a store").count();
    for number in 1..=sets {
        bench
            .copy(&format!("backup-{number}"), url, &[], env)
            .expect(0);
    }
}

/// What a line shows, in short.
fn short(line: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let [cluster, node, state] = ["cluster", "node", "state"].map(|field| word(&line[field]));
    format!(
        "{cluster} {node} {state} {} {}",
        line["expected"], line["backups"]["good"]
    )
}

fn lines(document: &Value) -> Vec<String> {
    document["fleet"]
        .as_array()
        .expect("lines")
        .iter()
        .map(short)
        .collect()
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writing");
}

#[test]
fn each_cluster_has_a_line_and_what_is_old_or_absent_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let urls = [&one, &two].map(|path| {
        std::fs::create_dir(path).expect("a folder");
        format!("file://{}", path.display())
    });
    let none = Env::new();
    let fresh = node("c1", "m0", &[50, 26, 2]);
    share(&fresh, &urls[0], &none);
    share(&node("c1", "m1", &[90]), &urls[0], &none);
    share(&node("c2", "m0", &[400, 300]), &urls[1], &none);
    write(&one.join("Full-00000000-00009002-1518427675"), "x");
    let proven = format!("{}/c1/m0/backup-2", urls[0]);
    run(&["verify", &proven], &none).expect(0);

    // Two stores, and the first node's own directory: its backups are the same ones.
    let own = fresh.store().display().to_string();
    let fleet = |more: &[&str], status: i32| {
        let command = ["list", "--fleet", &urls[0], &urls[1], &own];
        run(&[&command[..], more].concat(), &none).expect(status)
    };
    let found = fleet(&["-o", "json"], 11);
    let document = found.json();
    let seen = [
        ". - stale false 0",
        "c1 m0 ok true 6",
        "c1 m1 stale true 1",
        "c2 m0 stale true 2",
    ];
    assert_eq!(lines(&document), seen, "{document:#}");
    let first = &document["fleet"][1];
    assert_eq!(first["newest"]["name"], "c1/m0/backup-3", "{first}");
    assert_eq!(first["verified"]["name"], "c1/m0/backup-2", "{first}");
    assert_eq!(
        first["history"].as_array().map(Vec::len),
        Some(3),
        "{first}"
    );
    assert_eq!(first["sizeChange"], 0.0, "{first}");
    assert_eq!(first["ageSeconds"].as_i64().expect("an age") / 3600, 2);
    for told in [
        "stale: c1/m1: the newest good backup, c1/m1/backup-1, is 3d 18h old; the limit is 25h",
        "stale: c2/m0: ",
    ] {
        assert!(
            found.stderr.contains(&told.replace("25h", "1d 1h")),
            "{found}"
        );
    }
    fleet(&["--stale-after", "500h"], 0);

    let expect = dir.path().join("expect");
    write(&expect, "c1 prod\nc3 gone # for good\n");
    let textfile = dir.path().join("fleet.prom");
    let options = [
        "--expect",
        expect.to_str().expect("UTF-8"),
        "--textfile",
        textfile.to_str().expect("UTF-8"),
    ];
    let found = fleet(&options, 11);
    assert!(found.stdout.contains("prod"), "{found}");
    assert!(
        found
            .stderr
            .contains("absent: gone: no store has a backup of it"),
        "{found}"
    );
    assert!(
        !found.stderr.contains("stale: "),
        "one recent backup of c1 is enough: {found}"
    );
    let metrics = std::fs::read_to_string(&textfile).expect("metrics");
    for line in [
        r#"etcd_dr_expected{cluster="c1",node="m0",name="prod"} 1.0"#,
        r#"etcd_dr_expected{cluster="c1",node="m1",name="prod"} 0.0"#,
        r#"etcd_dr_absent{cluster="c3",node="",name="gone"} 1.0"#,
        r#"etcd_dr_fleet_newest_timestamp_seconds{cluster="c3",node="",name="gone"} 0.0"#,
        r#"etcd_dr_fleet_backups{cluster="c2",node="m0",name=""} 2.0"#,
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line}: {metrics}"
        );
    }
    write(&expect, "c1/m0\n");
    fleet(&options, 0);
    write(&expect, "c1\nc1\n");
    let wrong = fleet(&options, 2);
    assert!(
        wrong.stderr.contains("line 2: c1 is listed twice"),
        "{wrong}"
    );

    // The page is one file, and shows names as text.
    write(&expect, "c9 <script>alert(1)</script>\n");
    let page = fleet(&[&options[..], &["-o", "html"]].concat(), 11).stdout;
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("<polyline"),
        "{page}"
    );
    assert!(
        !page.contains("<script") && !page.contains("http:") && !page.contains("src="),
        "{page}"
    );
}

#[test]
fn a_fleet_costs_one_listing_a_cluster_and_one_read_a_node_and_needs_no_right_to_write() {
    let Some(server) = S3::start() else { return };
    let direct = variables(server.address);
    let url = format!("s3://{BUCKET}/etcd");
    let clusters = ["c1", "c2", "c3"];
    for cluster in clusters {
        share(&node(cluster, "m0", &[30, 20, 10, 1]), &url, &direct);
    }
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for file in files_below(&server.bucket()) {
        let file = std::fs::File::options().write(true).open(file);
        file.and_then(|file| file.set_modified(then))
            .expect("a file's time");
    }
    let reading = |request: crate::wire::Request| match request.method.as_str() {
        "GET" | "HEAD" => Act::Pass(request),
        _ => s3_error(403, "AccessDenied"),
    };
    let list = |env: &Env| {
        let listed = run(&["list", "--fleet", &url, "-o", "json"], env)
            .expect(0)
            .json();
        let mut lines = listed["fleet"].clone();
        for line in lines.as_array_mut().expect("lines") {
            line["ageSeconds"] = 0.into();
        }
        lines
    };
    let wire = Wire::start(server.address, reading);
    let env = variables(wire.address);
    let truth = list(&env);
    assert_eq!(truth.as_array().map(Vec::len), Some(3));
    // Whoever may write leaves catalogs, one a node.
    wire.seen();
    assert_eq!(list(&direct), truth);
    assert_eq!(list(&env), truth);
    let seen = wire.seen();
    let count = |kind: &str| seen.iter().filter(|other| **other == kind).count();
    assert_eq!(
        (count("list"), count("get"), seen.len()),
        (1 + 3, 3, 7),
        "{seen:?}"
    );

    // A proof needs no right to write either: the next run will not know of it.
    let before = files_below(&server.bucket());
    let scratch = tempfile::tempdir().expect("a folder");
    let scratch = scratch.path().to_str().expect("UTF-8");
    let prove = ["verify", "--fleet", &url, "--sample", "1", "-o", "json"];
    let proven = run(&[&prove[..], &["--scratch", scratch]].concat(), &env);
    let document = proven.expect(0).json();
    assert_eq!(document["proven"][0]["good"], true, "{document:#}");
    assert_eq!(document["left"], 2, "{document:#}");
    let refused = |kind: &&&str| ["put", "delete"].contains(*kind);
    let seen = wire.seen();
    assert!(seen.iter().any(|kind| refused(&kind)), "{seen:?}");
    let after = files_below(&server.bucket());
    assert_eq!((before.len(), list(&env)), (after.len(), truth));

    // A cluster that cannot be listed: what is missing may be there.
    let wire = Wire::start(server.address, |request| {
        match request.target.contains("c2") {
            true => s3_error(403, "AccessDenied"),
            false => Act::Pass(request),
        }
    });
    let found = run(
        &["list", "--fleet", &url, "-o", "json"],
        &variables(wire.address),
    )
    .expect(12);
    assert_eq!(
        found.json()["fleet"].as_array().map(Vec::len),
        Some(2),
        "{found}"
    );
    assert!(found.stderr.contains("etcd/c2: "), "{found}");
}

#[test]
fn a_gap_between_recorded_changes_is_named_and_the_exit_status_is_not_its() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", dir.path().display());
    let none = Env::new();
    let bench = node("c1", "m0", &[3, 2]);
    let mut etcd = String::new();
    // The first backup at revision 10; the history of the second one, at 40, begins at 35.
    for (number, compacted, revision) in [(1, 5, 10), (2, 35, 40)] {
        let path = bench.store().join(format!("backup-{number}/backup.json"));
        let text = std::fs::read_to_string(&path).expect("a Manifest");
        let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
        manifest["database"]["kvRevision"] = revision.into();
        manifest["database"]["compactRevision"] = compacted.into();
        manifest["cluster"]["etcdId"]
            .as_str()
            .expect("an id")
            .clone_into(&mut etcd);
        write(&path, &manifest.to_string());
    }
    share(&bench, &url, &none);
    share(&node("c2", "m0", &[1]), &url, &none);
    let changes = dir.path().join("c1/m0/changes");
    std::fs::create_dir(&changes).expect("a folder");
    // Only their names are read.
    let segment = |first: i64, last: i64, ending: &str| {
        let name = format!("20261130T120000Z-{etcd}.{first:019}-{last:019}.changes{ending}");
        write(&changes.join(name), "sealed");
    };
    segment(11, 20, ".zst");
    segment(31, 60, ".zst.1f0c2a3b.age");
    let textfile = dir.path().join("fleet.prom");
    let command = [
        "list",
        "--fleet",
        &url,
        "--textfile",
        textfile.to_str().expect("UTF-8"),
    ];
    let fleet = |more: &[&str]| run(&[&command[..], more].concat(), &none).expect(0);
    let found = fleet(&["-o", "json"]);
    let document = found.json();
    let recorded = &document["fleet"][0]["recorded"];
    assert_eq!(
        (&recorded["from"], &recorded["to"], &recorded["gaps"]),
        (
            &11.into(),
            &60.into(),
            &serde_json::json!([{"from": 21, "to": 34}])
        ),
        "{document:#}"
    );
    assert_eq!(document["fleet"][1]["recorded"], Value::Null);
    let named = "gap: c1/m0: revisions 21 to 34 cannot be restored\n";
    assert!(found.stderr.contains(named), "{found}");
    let metrics = std::fs::read_to_string(&textfile).expect("metrics");
    let gaps = |count: &str| {
        format!("etcd_dr_fleet_gaps{{cluster=\"c1\",node=\"m0\",name=\"\"}} {count}\n")
    };
    assert!(metrics.contains(&gaps("1.0")), "{metrics}");
    assert!(
        !metrics.contains("etcd_dr_fleet_gaps{cluster=\"c2\""),
        "{metrics}"
    );
    let table = fleet(&[]).stdout;
    assert!(
        table.contains("RECORDED") && table.contains(", 1 gap"),
        "{table}"
    );
    let page = fleet(&["-o", "html"]).stdout;
    let marked = "<b class=\"removed\" title=\"gap: c1/m0: revisions 21 to 34";
    assert!(page.contains(marked), "{page}");

    segment(21, 30, ".zst");
    let whole = fleet(&["-o", "json"]);
    assert!(!whole.stderr.contains("gap: "), "{whole}");
    assert_eq!(
        whole.json()["fleet"][0]["recorded"]["gaps"],
        serde_json::json!([])
    );
    let metrics = std::fs::read_to_string(&textfile).expect("metrics");
    assert!(metrics.contains(&gaps("0.0")), "{metrics}");
}

#[test]
fn each_run_proves_the_backup_whose_proof_is_the_oldest() {
    let dir = tempfile::tempdir().expect("a folder");
    let share_dir = dir.path().join("share");
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&share_dir).expect("a folder");
    std::fs::create_dir(&scratch).expect("a folder");
    let url = format!("file://{}", share_dir.display());
    let none = Env::new();
    for cluster in ["c1", "c2"] {
        share(&node(cluster, "m0", &[30, 2]), &url, &none);
    }
    // A node's own directory is a store as well.
    let own = node("c3", "m0", &[3]);
    let own_dir = own.store().display().to_string();
    let scratch_text = scratch.to_str().expect("UTF-8");
    let prove = |sample: &str, status: i32| {
        let command = ["verify", "--fleet", &url, &own_dir, "--sample", sample];
        run(
            &[&command[..], &["--scratch", scratch_text, "-o", "json"]].concat(),
            &none,
        )
        .expect(status)
        .json()
    };
    let proven = |document: &Value| -> Vec<String> {
        let all = document["proven"].as_array().expect("a sample").iter();
        all.map(|one| format!("{} {}", one["set"].as_str().expect("a name"), one["good"]))
            .collect()
    };
    let first = prove("2", 0);
    assert_eq!(
        proven(&first),
        ["c1/m0/backup-2 true", "c2/m0/backup-2 true"],
        "{first:#}"
    );
    assert_eq!(first["left"], 1);
    let manifest = share_dir.join("c1/m0/backup-2/backup.json");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(manifest).expect("a Manifest")).expect("JSON");
    assert_eq!(
        first["proven"][0]["restored"]["hashKv"],
        manifest["database"]["hashKv"]["hash"]
    );
    // The one that was never proved comes next, then the oldest.
    let second = prove("1", 0);
    assert_eq!(proven(&second), ["backup-1 true"], "{second:#}");
    assert!(own.store().join("backup-1/verified.json").is_file());

    // A Manifest that says another HashKV: every layer is sound, and the restore is not what was taken.
    let altered = node("c4", "m0", &[1]);
    let path = altered.store().join("backup-1/backup.json");
    let text = std::fs::read_to_string(&path).expect("a Manifest");
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    manifest["database"]["hashKv"]["hash"] = 7.into();
    write(&path, &manifest.to_string());
    share(&altered, &url, &none);
    let bad = prove("1", 3);
    assert_eq!(proven(&bad), ["c4/m0/backup-1 false"], "{bad:#}");
    let why = bad["proven"][0]["problems"][0].as_str().expect("why");
    assert!(why.contains("expected HashKV 7 at revision"), "{why}");
    let recorded = std::fs::read(share_dir.join("c4/m0/backup-1/verified.json")).expect("a record");
    let recorded: Value = serde_json::from_slice(&recorded).expect("JSON");
    assert_eq!(
        (&recorded["good"], &recorded["failed"][0]),
        (&false.into(), &"restore".into())
    );
    assert_eq!(std::fs::read_dir(&scratch).expect("a folder").count(), 0);
    run(&["verify", "--fleet", &url, "--sample", "0"], &none).expect(2);
}
