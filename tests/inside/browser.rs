//! The page of `diff -o html` in a real browser (scripts/browser.py): narrow and wide, light and dark, with nothing fetched
//! and no error. Asked for by itself, with `ETCD_DR_BROWSER=1`, as `make test-browser` does.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testbench::bins::skip;
use testbench::golden::run;
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

#[test]
fn the_page_is_readable_everywhere_and_asks_for_nothing() {
    if std::env::var_os("ETCD_DR_BROWSER").is_none_or(|value| value != "1") {
        eprintln!("SKIPPED inside: the browser is asked for by itself, with make test-browser");
        return;
    }
    if Command::new("chromium").arg("--version").output().is_err() {
        return skip("there is no chromium");
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
    let found = shown(&page);
    for field in ["requests", "problems"] {
        let all = found[field].as_array().expect("a list");
        assert!(all.is_empty(), "{field}: {all:?}");
    }
    let views = found["views"].as_array().expect("views");
    assert_eq!(views.len(), 4);
    for view in views {
        let title = view["title"].as_str().expect("a title");
        assert!(title.contains("snapshot.db to "), "{view}");
        assert_eq!(view["overflows"], false, "{view}");
        assert!(view["contrast"].as_f64() >= Some(CONTRAST), "{view}");
    }
}
