//! `copy`, `list`, `verify` and `prune` of stores away from the node, on real ones.

use crate::bench::{Bench, assert_same_set, files_below, listed, place, run};
use testbench::exfat::Exfat;
use testbench::s3::{BUCKET, S3, variables};

type Env = Vec<(&'static str, String)>;

/// There and back again, and what is between.
pub fn there_and_back(url: &str, env: &Env) {
    let bench = Bench::new();
    let sets: Vec<_> = (1..=3).map(|number| bench.set(number)).collect();
    std::fs::write(sets[0].join("pinned"), "").expect("a pin");
    for set in ["backup-1", "backup-2", "backup-3"] {
        let copied = bench.copy(set, url, &[], env).expect(0);
        assert!(
            copied.stdout.contains(&format!("{url}/{}/{set}", place())),
            "{copied}"
        );
    }
    let again = bench.copy("backup-2", url, &[], env).expect(0);
    assert!(again.stdout.contains("exists already"), "{again}");
    let name = |number: u32| format!("{}/backup-{number}", place());
    let good = |number: u32| (name(number), "good".to_owned());
    assert_eq!(listed(url, env), [good(1), good(2), good(3)]);

    let verified = run(
        &["verify", &format!("{url}/{}", name(2)), "-o", "json"],
        env,
    )
    .expect(0);
    assert_eq!(verified.json()["good"], true, "{verified}");
    let all = run(&["list", url, "-o", "json"], env).expect(0).json();
    assert_eq!(
        all["sets"][1]["verified"]["good"], true,
        "what was found is recorded there"
    );
    run(&["verify", &format!("{url}/{}/latest", place())], env).expect(0);
    run(&["verify", &format!("{url}/{}/backup-9", place())], env).expect(2);

    let back = bench.dir.path().join("back");
    let back_text = back.to_str().expect("UTF-8");
    run(&["copy", &format!("{url}/{}", name(3)), back_text], env).expect(0);
    assert_same_set(&back.join("backup-1"), &sets[2]);

    // The pinned one and the newest good one stay.
    let rule = ["prune", url, "--keep-last", "1"];
    let dry = run(&[&rule[..], &["--dry-run", "-o", "json"]].concat(), env).expect(0);
    assert_eq!(listed(url, env).len(), 3, "{dry}");
    run(&rule, env).expect(2);
    let done = run(&[&rule[..], &["--yes"]].concat(), env).expect(0);
    assert!(
        done.stdout.contains(&format!("removed {}", name(2))),
        "{done}"
    );
    assert_eq!(listed(url, env), [good(1), good(3)]);
    run(&["list", url, "--stale-after", "2h"], env).expect(11);

    // Another set of the same number is put next to it, and keeps its number from then on.
    let other = Bench::new();
    other.big_set(3, 1000);
    for _ in 0..2 {
        other.copy("backup-3", url, &[], env).expect(0);
        assert_eq!(listed(url, env), [good(1), good(3), good(4)]);
    }
}

#[test]
fn a_backup_is_copied_to_a_directory_and_back() {
    let dir = tempfile::tempdir().expect("a folder");
    there_and_back(&format!("file://{}", dir.path().display()), &Vec::new());
}

#[test]
fn a_backup_is_copied_to_a_bucket_and_back() {
    let Some(server) = S3::start() else { return };
    there_and_back(&format!("s3://{BUCKET}/etcd"), &variables(server.address));
}

#[test]
fn compressed_and_encrypted_copies_show_nothing_and_come_back_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", dir.path().display());
    let env = Vec::new();
    let bench = Bench::new();
    let set = bench.set(1);
    let x25519 = age::x25519::Identity::generate();
    let recipient = x25519.to_public().to_string();
    let identity = bench.dir.path().join("identity");
    let secret = age::secrecy::ExposeSecret::expose_secret(&x25519.to_string()).to_owned();
    std::fs::write(&identity, format!("# made for a test\n{secret}\n")).expect("an identity");
    let ssh = bench.dir.path().join("id_ed25519");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&ssh)
        .status();
    let ssh_made = made.is_ok_and(|status| status.success());
    let recipients = bench.dir.path().join("recipients");
    let public = if ssh_made {
        std::fs::read_to_string(ssh.with_extension("pub")).expect("a public key")
    } else {
        testbench::bins::skip("no ssh-keygen here: SSH recipients are not tried");
        String::new()
    };
    std::fs::write(&recipients, format!("# of the team\n{recipient}\n{public}")).expect("a file");

    let form = [
        "--compress",
        "--recipients-file",
        recipients.to_str().expect("UTF-8"),
    ];
    bench.copy("backup-1", &url, &form, &env).expect(0);
    let name = format!("{url}/{}/backup-1", place());
    assert_eq!(
        listed(&url, &env)[0].1,
        "good",
        "no identity is needed to list"
    );
    let refused = run(&["verify", &name], &env).expect(2);
    assert!(refused.stderr.contains("--identity FILE"), "{refused}");

    let mut keys = vec![&identity];
    keys.extend(ssh_made.then_some(&ssh));
    for key in keys {
        let key = key.to_str().expect("UTF-8");
        run(&["verify", &name, "--identity", key], &env).expect(0);
        let back = tempfile::tempdir().expect("a folder");
        let to = back.path().to_str().expect("UTF-8");
        run(&["copy", &name, to, "--identity", key], &env).expect(0);
        assert_same_set(&back.path().join("backup-1"), &set);
    }
    let stranger = bench.dir.path().join("stranger");
    let other = age::x25519::Identity::generate().to_string();
    std::fs::write(&stranger, age::secrecy::ExposeSecret::expose_secret(&other)).expect("a key");
    run(
        &[
            "verify",
            &name,
            "--identity",
            stranger.to_str().expect("UTF-8"),
        ],
        &env,
    )
    .expect(3);

    // No part of any file is in the store in the clear, but for the Manifest.
    let stored: Vec<Vec<u8>> = files_below(dir.path())
        .iter()
        .filter(|path| !path.ends_with("backup.json"))
        .map(|path| std::fs::read(path).expect("an object"))
        .collect();
    let manifest = std::fs::read(set.join("backup.json")).expect("the Manifest");
    let holds =
        |hay: &[u8], needle: &[u8]| hay.windows(needle.len()).any(|window| window == needle);
    let mut looked_for = 0;
    for path in files_below(&set)
        .iter()
        .filter(|path| !path.ends_with("backup.json"))
    {
        let plain = std::fs::read(path).expect("a file");
        for needle in plain.chunks_exact(48).step_by(plain.len() / 48 / 40 + 1) {
            let dull = needle.iter().all(|byte| *byte == needle[0]) || holds(&manifest, needle);
            if !dull {
                looked_for += 1;
                assert!(
                    !stored.iter().any(|object| holds(object, needle)),
                    "{path:?} in the clear"
                );
            }
        }
    }
    assert!(
        looked_for > 20,
        "only {looked_for} stretches were looked for"
    );
    assert!(!stored.iter().any(|object| holds(object, b"PRIVATE KEY")));
}

#[test]
fn wrong_options_of_copies_are_refused() {
    let bench = Bench::new();
    bench.set(1);
    let env = Vec::new();
    for (url, form) in [
        ("ftp://host/x", &[] as &[&str]),
        ("s3://user:pass1234@bucket/x", &[]),
        ("/a/directory", &[]),
        ("file:///tmp", &["--recipient", "age1nonsense"]),
        ("file:///tmp", &["--recipients-file", "/nowhere"]),
    ] {
        let refused = bench.copy("backup-1", url, form, &env).expect(2);
        assert!(!refused.stderr.contains("pass1234"), "{refused}");
    }
    bench.copy("backup-7", "file:///tmp", &[], &env).expect(2);
    bench
        .copy("backup-1", "file:///nowhere/at/all", &[], &env)
        .expect(6);
    // A file that is not what the Manifest says is not copied.
    let dir = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", dir.path().display());
    std::fs::write(bench.set(2).join("SHA256SUMS"), [b'x'; 412]).expect("an alteration");
    let altered = bench.copy("backup-2", &url, &[], &env);
    assert!(altered.status == Some(3), "{altered}");
    assert!(
        listed(&url, &env)
            .iter()
            .all(|(_, state)| state == "incomplete")
    );
}

/// Every way to name recipients that results in none: nothing is sent.
#[test]
fn recipients_that_name_no_key_are_refused_and_nothing_is_sent() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", dir.path().display());
    let bench = Bench::new();
    bench.set(1);
    let comments = bench.dir.path().join("comments");
    std::fs::write(&comments, "# nobody\n\n").expect("a file");
    let comments = comments.to_str().expect("UTF-8");
    let age = age::x25519::Identity::generate().to_public().to_string();
    let ways: [&[&str]; 6] = [
        &["--recipient", ""],
        &["--recipient", "# a comment"],
        &["--recipient", &age, "--recipient", ""],
        &["--recipient=", "--recipients-file", comments],
        &["--recipients-file", comments],
        &["--recipients-file", "/dev/null"],
    ];
    for way in ways {
        let refused = bench.copy("backup-1", &url, way, &Vec::new()).expect(2);
        assert!(refused.stderr.contains("recipient"), "{refused}");
    }
    let empty = vec![("ETCD_DR_RECIPIENTS_FILE", String::new())];
    bench.copy("backup-1", &url, &[], &empty).expect(2);
    let config = bench.dir.path().join("config.toml");
    let config_text = config.to_str().expect("UTF-8").to_owned();
    for content in [
        "recipients = [\"\"]".to_owned(),
        "recipients = [\"# nobody\"]".to_owned(),
        "recipients-file = \"\"".to_owned(),
        format!("recipients-file = {comments:?}"),
        // One that is right, and is overridden by one that is not.
        format!("recipients = [{age:?}]"),
    ] {
        std::fs::write(&config, format!("[copy]\n{content}\n")).expect("a file");
        let overridden: &[&str] = match content.contains("age1") {
            true => &["--recipient", ""],
            false => &[],
        };
        let way = [&["--config", &config_text], overridden].concat();
        bench.copy("backup-1", &url, &way, &Vec::new()).expect(2);
    }
    assert!(files_below(dir.path()).is_empty());
    // Nor is anything copied if recipients would have no effect.
    bench.copy("backup-1", &url, &[], &Vec::new()).expect(0);
    let from = format!("{url}/{}/backup-1", place());
    let to = bench.dir.path().join("elsewhere");
    let to = to.to_str().expect("UTF-8");
    run(&["copy", &from, to, "--recipient", &age], &Vec::new()).expect(2);
}

#[test]
fn a_copy_counts_only_if_it_is_encrypted_to_these_recipients() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", dir.path().display());
    let env = Vec::new();
    let bench = Bench::new();
    bench.set(1);
    let mine = age::x25519::Identity::generate().to_public().to_string();
    let theirs = age::x25519::Identity::generate().to_public().to_string();
    let copied = |recipients: &[&str]| {
        let form = recipients.iter().flat_map(|one| ["--recipient", *one]);
        let form: Vec<_> = form.collect();
        let copied = bench.copy("backup-1", &url, &form, &env).expect(0);
        (copied.stdout.contains("exists already"), copied)
    };
    assert!(!copied(&[]).0);
    let (there, told) = copied(&[&mine]);
    assert!(!there && told.stderr.contains("is not encrypted"), "{told}");
    assert!(copied(&[&mine]).0, "the second one is found");
    let (there, told) = copied(&[&mine, &theirs]);
    assert!(!there && told.stderr.contains("other recipients"), "{told}");
    assert!(copied(&[&theirs, &mine]).0, "in whatever order");
    assert!(
        copied(&[]).0,
        "what is encrypted will do for who asks for less"
    );
    let names: Vec<_> = listed(&url, &env)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected = (1..=3).map(|number| format!("{}/backup-{number}", place()));
    assert_eq!(names, expected.collect::<Vec<_>>());
}

/// Who can put objects and remove none: what they put makes no honest prune remove more.
#[test]
fn whoever_can_only_put_objects_cannot_cause_a_removal() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", dir.path().display());
    let env = Vec::new();
    let bench = Bench::new();
    for number in 1..=3 {
        bench.set(number);
        let set = format!("backup-{number}");
        bench.copy(&set, &url, &[], &env).expect(0);
    }
    let record = |number: u32, content: &str| {
        let path = dir.path().join(place()).join(format!("backup-{number}"));
        std::fs::write(path.join("verified.json"), content).expect("a record");
    };
    let bad = r#"{"schemaVersion":1,"time":"2025-06-09T00:00:00Z","good":false,"toolVersion":"0"}"#;
    let good = r#"{"schemaVersion":1,"time":"2125-06-09T00:00:00Z","good":true,"toolVersion":"0"}"#;
    let prune = |rules: &[&str]| {
        let run = run(&[&["prune", &url, "--dry-run"], rules].concat(), &env).expect(0);
        let removed = run.stdout.lines().filter(|line| line.starts_with("remove"));
        removed.count()
    };
    for (content, rules) in [
        (bad, ["--keep-last", "3"]),
        (bad, ["--keep-last", "2"]),
        (good, ["--keep-last", "2"]),
    ] {
        for number in 1..=3 {
            record(number, content);
        }
        let wanted = rules[1].parse::<usize>().expect("a number");
        assert!(prune(&rules) <= 3 - wanted, "{content} {rules:?}");
    }
}

#[test]
fn a_copy_of_another_form_stays_and_a_new_one_is_made_beside_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", dir.path().display());
    let bench = Bench::new();
    bench.set(1);
    let env = Vec::new();
    bench.copy("backup-1", &url, &[], &env).expect(0);
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let again = bench.copy("backup-1", &url, &["--recipient", &recipient], &env);
    let again = again.expect(0);
    assert!(again.stderr.contains("[copy-of-another-form]"), "{again}");
    assert_eq!(listed(&url, &env).len(), 2);
    // What is encrypted to the same is this one.
    bench
        .copy("backup-1", &url, &["--recipient", &recipient], &env)
        .expect(0);
    assert_eq!(listed(&url, &env).len(), 2);
}

/// A stick or a share that everybody can read: said once for each copy, and the copy is as good.
#[test]
fn a_file_system_that_keeps_no_modes_is_warned_of() {
    if !rustix::process::geteuid().is_root() {
        return testbench::bins::skip("only root can mount exFAT");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let Some(stick) = Exfat::mount(&dir.path().join("stick")) else {
        return;
    };
    let bench = Bench::new();
    bench.set(1);
    let env = Vec::new();
    let url = format!("file://{}", stick.path().display());
    let copied = bench.copy("backup-1", &url, &[], &env).expect(0);
    assert!(copied.stderr.contains("[modes-not-kept]"), "{copied}");
    assert!(
        copied.stderr.contains("mount it with umask=077"),
        "{copied}"
    );
    run(&["verify", &format!("{url}/{}/backup-1", place())], &env).expect(0);
    // Where modes are kept there is nothing to say.
    let kept = dir.path().join("kept");
    std::fs::create_dir(&kept).expect("a folder");
    let url = format!("file://{}", kept.display());
    let copied = bench.copy("backup-1", &url, &[], &env).expect(0);
    assert!(!copied.stderr.contains("modes-not-kept"), "{copied}");
}
