//! What can go wrong on the way: cuts, errors, refusals, a full disk, two at once. Whatever it is,
//! nothing half-uploaded is listed as a backup, and the next copy resumes.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::bench::{Bench, assert_none, assert_same_set, files_below, listed, place, run};
use crate::proxy::Proxy;
use testbench::s3::{BUCKET, S3, variables};
use testbench::tmpfs::Tmpfs;

/// Bytes of the snapshot in these tests: three parts.
const BIG: usize = (20 << 20) + 12_345;

#[test]
fn a_cut_at_every_part_is_never_a_backup_and_the_next_copy_resumes() {
    let Some(server) = S3::start() else { return };
    let bench = Bench::new();
    let set = bench.big_set(1, BIG);
    let direct = variables(server.address);
    let measured = {
        let proxy = Proxy::start(server.address);
        let env = variables(proxy.address);
        bench
            .copy("backup-1", &format!("s3://{BUCKET}/whole"), &[], &env)
            .expect(0);
        proxy.passed.load(Ordering::SeqCst)
    };
    let (mut cuts, mut resumed) = (0, 0);
    let mut at = 200;
    while at < measured {
        let url = format!("s3://{BUCKET}/cut-{at}");
        let proxy = Proxy::start(server.address);
        proxy.budget.store(at, Ordering::SeqCst);
        let mut hurried = variables(proxy.address);
        hurried.push(("ETCD_DR_STORE_PATIENCE", "300ms".to_owned()));
        let cut = bench.copy("backup-1", &url, &[], &hurried);
        cuts += 1;
        if cut.status == Some(0) {
            // All it needed had passed: the rest was tidying up.
            assert_eq!(listed(&url, &direct)[0].1, "good", "{cut}");
        } else {
            assert_eq!(cut.status, Some(6), "{cut}");
            // The answer to the last request may have been cut, and not what it did.
            let sets = listed(&url, &direct);
            let late = at + 6000 > measured;
            assert!(
                late || sets.iter().all(|(_, state)| state == "incomplete"),
                "{at}: {sets:?}"
            );
        }
        let next = bench
            .copy("backup-1", &url, &["-o", "json"], &direct)
            .expect(0);
        resumed += next.json()["copy"]["resumed"].as_u64().unwrap_or(0);
        let name = format!("{}/backup-1", place());
        assert_eq!(listed(&url, &direct), [(name.clone(), "good".to_owned())]);
        let back = tempfile::tempdir().expect("a folder");
        let to = back.path().to_str().expect("UTF-8");
        run(&["copy", &format!("{url}/{name}"), to], &direct).expect(0);
        assert_same_set(&back.path().join("backup-1"), &set);
        // Closely where many small requests are, widely within the parts.
        at = if (6000..measured - 14_000).contains(&at) {
            (at + (5 << 20)).min(measured - 14_000)
        } else {
            at + 1100
        };
    }
    println!("{measured} bytes, {cuts} cuts, {resumed} files needed no second transfer");
    assert!(cuts > 10 && resumed > 5, "{cuts} cuts, {resumed} resumed");
}

#[test]
fn refusals_are_explained_and_show_no_secret() {
    let Some(server) = S3::start() else { return };
    let bench = Bench::new();
    bench.set(1);
    let good = variables(server.address);
    let url = format!("s3://{BUCKET}/x");
    let with = |name: &'static str, value: &str| {
        let mut env = good.clone();
        env.retain(|(other, _)| *other != name);
        env.push((name, value.to_owned()));
        env
    };
    let wrong_secret = with("AWS_SECRET_ACCESS_KEY", "notthesecretatall");
    let wrong_key = with("AWS_ACCESS_KEY_ID", "AKIANOBODYNOBODYNOBO");
    for env in [&wrong_secret, &wrong_key] {
        for refused in [
            bench.copy("backup-1", &url, &["-v"], env).expect(6),
            run(&["list", &url, "-o", "json"], env).expect(6),
        ] {
            let said = format!("{}{}", refused.stdout, refused.stderr);
            assert!(
                !said.contains("notthesecret") && !said.contains("secretsecret"),
                "{said}"
            );
        }
    }
    let gone = bench
        .copy("backup-1", "s3://nobucket/x", &[], &good)
        .expect(6);
    assert!(gone.stderr.contains("bucket"), "{gone}");
    run(&["list", "s3://nobucket/x"], &good).expect(6);
    run(
        &["prune", "s3://nobucket/x", "--keep-last", "1", "--yes"],
        &good,
    )
    .expect(6);

    // Keys from a file, as the services' own tools have them.
    let home = tempfile::tempdir().expect("a home");
    std::fs::create_dir(home.path().join(".aws")).expect("a folder");
    let (key, secret) = (&good[1].1, &good[2].1);
    let text = format!(
        "[default]\naws_access_key_id=x\n[ops]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    );
    std::fs::write(home.path().join(".aws/credentials"), text).expect("a file");
    let mut env = good.clone();
    env.retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
    env.push(("HOME", home.path().display().to_string()));
    env.push(("AWS_PROFILE", "ops".to_owned()));
    bench.copy("backup-1", &url, &[], &env).expect(0);
    assert_eq!(listed(&url, &env).len(), 1);
}

#[test]
fn a_full_disk_of_the_store_is_an_error() {
    let scratch = tempfile::tempdir().expect("a folder");
    let root = scratch.path().join("root");
    std::fs::create_dir(&root).expect("a mount point");
    let Some(small) = Tmpfs::mount(&root, "12m") else {
        return;
    };
    let bench = Bench::new();
    let set = bench.big_set(1, BIG);
    std::fs::create_dir(root.join("share")).expect("a share");
    let url = format!("file://{}/share", root.display());
    bench.copy("backup-1", &url, &[], &[]).expect(6);
    assert_none(&url, &[], "a full share");
    assert!(
        files_below(&root)
            .iter()
            .all(|path| !path.to_string_lossy().contains(".part-"))
    );
    std::fs::remove_dir_all(root.join("share")).expect("room");

    let Some(server) = S3::at(root.clone(), scratch) else {
        return;
    };
    let env = variables(server.address);
    let url = format!("s3://{BUCKET}/x");
    bench.copy("backup-1", &url, &[], &env).expect(6);
    assert_none(&url, &env, "a full bucket");
    small.remount("size=80m");
    bench.copy("backup-1", &url, &[], &env).expect(0);
    let back = tempfile::tempdir().expect("a folder");
    let name = format!("{url}/{}/backup-1", place());
    run(&["copy", &name, text(back.path())], &env).expect(0);
    assert_same_set(&back.path().join("backup-1"), &set);
}

#[test]
fn two_copies_of_one_backup_at_once_make_one() {
    let Some(server) = S3::start() else { return };
    let share = tempfile::tempdir().expect("a folder");
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    let key = share.path().join("key");
    std::fs::write(&key, secret).expect("a key");
    std::fs::create_dir(share.path().join("s")).expect("a share");
    for url in [
        format!("s3://{BUCKET}/two"),
        format!("file://{}/s", share.path().display()),
    ] {
        let env = variables(server.address);
        let bench = Bench::new();
        let set = bench.big_set(1, 9 << 20);
        let form = ["--recipient", recipient.as_str()];
        both(|| bench.copy("backup-1", &url, &form, &env));
        let name = format!("{}/backup-1", place());
        assert_eq!(listed(&url, &env), [(name.clone(), "good".to_owned())]);
        let back = bench.dir.path().join("back");
        let to = back.to_str().expect("UTF-8");
        run(
            &[
                "copy",
                &format!("{url}/{name}"),
                to,
                "--identity",
                text(&key),
            ],
            &env,
        )
        .expect(0);
        assert_same_set(&back.join("backup-1"), &set);

        // Two different sets that claim one number: both are there, or one says why it is not.
        let other = Bench::new();
        other.big_set(2, 5000);
        bench.big_set(2, 6000);
        let benches = [&bench, &other];
        let runs: Vec<_> = std::thread::scope(|scope| {
            let threads =
                benches.map(|bench| scope.spawn(|| bench.copy("backup-2", &url, &[], &env)));
            threads.map(|thread| thread.join().expect("a run")).into()
        });
        assert!(
            runs.iter().all(|run| matches!(run.status, Some(0 | 6 | 7))),
            "{runs:?}"
        );
        for (name, state) in listed(&url, &env) {
            if state == "good" {
                let back = tempfile::tempdir().expect("a folder");
                let to = text(back.path());
                let args = [
                    "copy",
                    &format!("{url}/{name}"),
                    to,
                    "--identity",
                    text(&key),
                ];
                run(&args, &env).expect(0);
            }
        }
    }
}

fn both(copy: impl Fn() -> testbench::golden::Run + Sync) {
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(&copy));
        for thread in threads {
            thread.join().expect("a run").expect(0);
        }
    });
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
