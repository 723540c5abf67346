//! The pages of `diff -o html` and `list --fleet -o html` in a real browser (scripts/browser.py): narrow and wide, light and dark, with nothing fetched
//! and no error. Asked for by itself, with `ETCD_DR_BROWSER=1`, as `make test-browser` does.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testbench::bins::skip;
use testbench::golden::{run, run_within};
use testbench::process::expect_success;

use super::Unpacked;

/// The contrast that texts must have: WCAG 2.1, 1.4.3.
const CONTRAST: f64 = 4.5;

fn shown(page: &Path) -> Value {
    let folder = page.parent().expect("a folder");
    let script = testbench::project().join("scripts/browser.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(page)
        .arg(folder)
        .output();
    let text = expect_success("browser.py", &output.expect("running python3"));
    serde_json::from_str(&text).expect("JSON")
}

/// Whether a browser is asked for, and there.
fn asked_for() -> bool {
    if std::env::var_os("ETCD_DR_BROWSER").is_none_or(|value| value != "1") {
        eprintln!("SKIPPED inside: the browser is asked for by itself, with make test-browser");
        return false;
    }
    let there = Command::new("chromium").arg("--version").output().is_ok();
    if !there {
        skip("there is no chromium");
    }
    there
}

/// Nothing is fetched, nothing is wrong, and everything can be read, in all four views.
#[track_caller]
fn is_readable(page: &Path, titled: &str) {
    let found = shown(page);
    for field in ["requests", "problems"] {
        let all = found[field].as_array().expect("a list");
        assert!(all.is_empty(), "{field}: {all:?}");
    }
    let views = found["views"].as_array().expect("views");
    assert_eq!(views.len(), 4);
    for view in views {
        let title = view["title"].as_str().expect("a title");
        assert!(title.contains(titled), "{view}");
        assert_eq!(view["overflows"], false, "{view}");
        assert!(view["contrast"].as_f64() >= Some(CONTRAST), "{view}");
    }
}

#[test]
fn the_page_of_a_diff_is_readable_everywhere_and_asks_for_nothing() {
    if !asked_for() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    // The test finds such faults.
    let bad = dir.path().join("bad.html");
    let text = "<!DOCTYPE html><p style='color:#ccc'>pale</p><img src='http://127.0.0.1:9/x.png'><script>none()</script><div style='width:2000px'>wide</div>";
    std::fs::write(&bad, text).expect("a page");
    let found = shown(&bad);
    for field in ["requests", "problems"] {
        let all = found[field].as_array().expect("a list");
        assert!(!all.is_empty(), "{field}: {found}");
    }
    let view = &found["views"][0];
    assert_eq!(view["overflows"], true, "{found}");
    assert!(view["contrast"].as_f64() < Some(CONTRAST), "{found}");
    let (first, second) = (Unpacked::of("objects"), Unpacked::of("encodings"));
    let page = dir.path().join("diff.html");
    let (first, second) = (first.path(), second.path());
    let args = ["diff", &first, &second, "--objects", "-o", "html"];
    std::fs::write(&page, run(&args, &[]).expect(11).stdout).expect("a page");
    is_readable(&page, "snapshot.db to ");
}

/// A fleet in every state, made by scripts/fleet-store.py.
#[test]
fn the_page_of_a_fleet_is_readable_everywhere_and_asks_for_nothing() {
    if !asked_for() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("bucket-000");
    let make = |more: &[&str]| {
        let script = testbench::project().join("scripts/fleet-store.py");
        let output = Command::new("python3")
            .arg(script)
            .arg(dir.path())
            .args(["--buckets", "1", "--backups", "30"])
            .args(more)
            .output();
        expect_success("fleet-store.py", &output.expect("running python3"));
    };
    make(&["--clusters", "9"]);
    make(&["--clusters", "2", "--first", "9", "--age", "60"]);
    let cluster = |number: u32| format!("00000000-0000-4000-8000-{number:012}");
    let changes = store.join(cluster(1)).join("master-0/changes");
    std::fs::create_dir(&changes).expect("a folder");
    for name in [
        "0000000000000000011-0000000000000000020",
        "0000000000000000031-0000000000000000040",
    ] {
        // The cluster of the fixture, as etcd calls it.
        let name = format!("20261130T120000Z-d9c0f1bf9ca3d83d.{name}.changes");
        std::fs::write(changes.join(name), "sealed").expect("a segment");
    }
    let other = jiff::Timestamp::now().as_second() - 3600;
    std::fs::create_dir(store.join("gardener")).expect("a folder");
    std::fs::write(
        store.join(format!("gardener/Full-00000000-00009002-{other}.Z")),
        "x",
    )
    .expect("writing");
    let expect = dir.path().join("expect");
    let lines = format!(
        "{} prod-eu-1\n{} stage\ngone-for-good shop-us\n",
        cluster(0),
        cluster(9)
    );
    std::fs::write(&expect, lines).expect("a file");
    let url = format!("file://{}", store.display());
    let expect = expect.to_str().expect("UTF-8");
    let args = ["list", "--fleet", &url, "--expect", expect, "-o", "html"];
    // A directory is read by a thread for each backup, 128 at a time, with a stack of 2 MiB each.
    let shown = run_within(&args, &[], 1 << 30).expect(11).stdout;
    for state in ["ok", "stale", "absent", "foreign"] {
        assert!(
            shown.contains(&format!("\">{state}</b>")),
            "{state}: {shown}"
        );
    }
    assert!(shown.contains(", 1 gap</b>"), "{shown}");
    let page = dir.path().join("fleet.html");
    std::fs::write(&page, shown).expect("a page");
    is_readable(&page, "Backups of etcd");
}
