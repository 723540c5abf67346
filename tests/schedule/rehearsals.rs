//! Rehearsals next to the schedule.

use std::os::unix::fs::PermissionsExt;

use testbench::golden::Run;

use crate::bench::{Bench, path};

fn records(bench: &Bench) -> Run {
    bench
        .run(&["list", path(&bench.store), "-o", "json"])
        .expect(0)
}

#[test]
fn the_newest_backup_is_rehearsed_once_a_period() {
    let Some(bench) = Bench::new() else { return };
    let (scratch, textfile) = (
        bench.cluster.scratch().join("rehearsals"),
        bench.cluster.scratch().join("m.prom"),
    );
    std::fs::create_dir(&scratch).expect("a folder");
    let etcd = bench.cluster.bins().etcd.clone();
    let places = ["--scratch", path(&scratch), "--etcd", path(&etcd)];
    let asked = ["--rehearse", "7d", "--textfile", path(&textfile)];
    let mut scheduled = bench.schedule("@yearly", &[&places[..], &asked].concat());
    let line = scheduled.next();
    assert_eq!(
        (&line["result"], &line["status"]),
        (&"taken".into(), &0.into()),
        "{line}"
    );
    let rehearsed = serde_json::json!({"set": "backup-1", "good": true});
    assert_eq!(line["rehearsed"], rehearsed);
    let (status, _, stderr) = scheduled.stop();
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let listed = records(&bench).json();
    assert_eq!(listed["sets"][0]["rehearsed"]["good"], true);
    assert_eq!(
        listed["sets"][0]["rehearsed"]["etcdVersion"],
        bench.cluster.bins().version.as_str()
    );
    let metrics = std::fs::read_to_string(&textfile).expect("metrics");
    let has = |line: &str| metrics.lines().any(|other| other == line);
    assert!(
        has("etcd_dr_rehearsal_interval_seconds 604800.0"),
        "{metrics}"
    );
    assert!(has("etcd_dr_unservable_backups 0.0"), "{metrics}");
    assert!(
        !has("etcd_dr_last_rehearsed_timestamp_seconds 0.0"),
        "{metrics}"
    );

    // It was a moment ago, also for the next process and the next backup.
    let mut scheduled = bench.schedule("@every 3s", &[&places[..], &asked].concat());
    let line = scheduled.next();
    assert_eq!(line["result"], "taken");
    assert_eq!(line.get("rehearsed"), None, "{line}");
    // A rule that keeps only the newest keeps the rehearsed one, too.
    scheduled.stop();
    bench
        .run(&["prune", path(&bench.store), "--keep-last", "1", "--yes"])
        .expect(0);
    let listed = records(&bench).json();
    assert_eq!(listed["sets"][0]["name"], "backup-1");
}

#[test]
fn what_cannot_be_rehearsed_or_hangs_stops_no_backup() {
    let Some(bench) = Bench::new() else { return };
    let scratch = bench.cluster.scratch().join("rehearsals");
    std::fs::create_dir(&scratch).expect("a folder");
    let fake = bench.cluster.scratch().join("fake");
    let version = &bench.cluster.bins().version;
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'etcd Version: {version}' && exit\nexec sleep 600\n"
    );
    std::fs::write(&fake, script).expect("a script");
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("its mode");

    let asked = ["--rehearse", "7d", "--scratch", path(&scratch), "--etcd"];
    let mut scheduled = bench.schedule("@yearly", &[&asked[..], &["/bin/true"]].concat());
    let line = scheduled.next();
    assert_eq!(
        (&line["result"], &line["status"]),
        (&"taken".into(), &10.into()),
        "{line}"
    );
    let why = line["rehearsed"]["error"].as_str().expect("a reason");
    assert!(why.contains("/bin/true cannot be used"), "{why}");
    let (_, _, stderr) = scheduled.stop();
    assert!(stderr.contains("[etcd-unusable]"), "{stderr}");

    let mut scheduled = bench.schedule("@every 3s", &[&asked[..], &[path(&fake)]].concat());
    for _ in 0..3 {
        let line = scheduled.next();
        assert_eq!(
            (&line["result"], &line["status"]),
            (&"taken".into(), &0.into()),
            "{line}"
        );
        assert_eq!(line.get("rehearsed"), None, "{line}");
    }
    let (status, _, stderr) = scheduled.stop();
    assert_eq!(status, Some(0), "{stderr}");
    let left: Vec<_> = std::fs::read_dir(&scratch).expect("it").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(
        records(&bench).json()["sets"][0]["rehearsed"],
        serde_json::Value::Null
    );
}
