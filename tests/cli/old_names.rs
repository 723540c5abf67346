//! Names that were renamed: the old ones are accepted wherever the new ones are, and the page says so.

use etcd_dr::error::names::RENAMED;

use crate::sample_stores::Shelf;
use testbench::golden::{Run, run};

/// What a run says, whichever of the two names was typed.
fn said(run: &Run, old: &str, new: &str) -> (Option<i32>, String, String) {
    let plain = |text: &str| text.replace(old, new);
    (run.status, plain(&run.stdout), plain(&run.stderr))
}

#[test]
fn an_old_name_is_allowed_wherever_the_new_one_is() {
    let shelf = Shelf::new();
    let store = shelf.store_text();
    let root = shelf.dir().to_str().expect("UTF-8").to_owned();
    let data = format!("{root}/data");
    let peer = "https://10.0.0.9:2380";
    let commands: [&[&str]; 5] = [
        &["backup", &store],
        &["restore", "latest", "--store", &store, "--dry-run"],
        &["restore", "latest", "--store", &store, "--data-dir", &data],
        &["member-add", "m9", "--peer-urls", peer],
        &["member-add", "--join", "--dry-run"],
    ];
    let mut accepted = 0;
    for (old, new) in RENAMED {
        for command in commands {
            let with = |name: &str| {
                let _ = std::fs::remove_dir_all(&data);
                let args = [&["--root", &root], command, &["--allow", name]].concat();
                run(&args, &[])
            };
            let (before, now) = (with(old), with(new));
            assert_eq!(
                said(&before, old, new),
                said(&now, old, new),
                "{before}\n{now}"
            );
            let unknown = now.stderr.contains("unknown ") && now.status == Some(2);
            accepted += usize::from(!unknown);
        }
    }
    // Eight names of restores, two of them of data directories too, four checks, one of joins.
    assert!(accepted >= 13, "{accepted}");
}

#[test]
fn the_configuration_may_use_an_old_name() {
    let shelf = Shelf::new();
    let config = shelf.dir().join("config.toml");
    let root = shelf.dir().to_str().expect("UTF-8");
    let with = |name: &str| {
        std::fs::write(&config, format!("[backup]\nallow = [\"{name}\"]\n")).expect("written");
        let config = config.to_str().expect("UTF-8");
        run(
            &[
                "--root",
                root,
                "--config",
                config,
                "backup",
                &shelf.store_text(),
            ],
            &[],
        )
    };
    assert!(with("no-such-check").stderr.contains("unknown check"));
    for (old, new) in RENAMED {
        let (before, now) = (with(old), with(new));
        assert_eq!(
            said(&before, old, new),
            said(&now, old, new),
            "{before}\n{now}"
        );
    }
    let rollout = with("rollout-in-between");
    assert!(!rollout.stderr.contains("unknown check"), "{rollout}");
}

#[test]
fn every_renamed_name_is_on_the_page_and_in_the_changelog() {
    let read = |file: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{file}: {e}"))
    };
    let (page, log) = (read("docs/interface.md"), read("CHANGELOG.md"));
    let (_, table) = page.split_once("## Renamed").expect("its section");
    let table = table.split("\n## ").next().unwrap_or_default();
    for (old, new) in RENAMED {
        assert!(table.contains(&format!("| `{old}` | `{new}` |")), "{old}");
        let elsewhere = page.replace(table, "");
        assert!(elsewhere.contains(&format!("`{new}`")), "{new}");
        assert!(!elsewhere.contains(&format!("`{old}`")), "{old}");
        assert!(log.contains(&format!("`{old}`")), "{old} in CHANGELOG.md");
    }
}
