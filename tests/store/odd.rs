//! One odd object, odd services, and endless answers: each costs a bounded amount of time and memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bench::{Bench, assert_same_set, listed, place, run};
use crate::wire::{Act, Request, Wire, s3_error};
use testbench::namespace;
use testbench::s3::{BUCKET, S3, variables};

/// Writes more than any of our small documents has.
fn oversized(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, vec![b' '; 5 << 20]).expect("a file");
}

/// What the commands make of a store in which one object of each kind is odd: the rest is listed,
/// found, pruned and copied to as usual, and nothing that cannot be read is removed.
fn the_rest_continues(dir: &Path) {
    let url = format!("file://{}", dir.display());
    let bench = Bench::new();
    let place = place();
    for number in 1..=4 {
        bench.set(number);
        let copied = ["--keep-last", "9"];
        bench
            .copy(&format!("backup-{number}"), &url, &copied, &[])
            .expect(0);
    }
    let set = |name: &str| dir.join(&place).join(name);
    // A Manifest that is too long, one that is a pipe, one that never ends, another cluster's.
    oversized(&set("backup-77/backup.json"));
    oversized(&dir.join("other/node/backup-1/backup.json"));
    let (at, pipe) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
    std::fs::create_dir(set("backup-78")).expect("a folder");
    rustix::fs::mknodat(at, set("backup-78/backup.json"), pipe, 0o600.into(), 0).expect("a pipe");
    std::fs::create_dir(set("backup-79")).expect("a folder");
    std::os::unix::fs::symlink("/dev/zero", set("backup-79/backup.json")).expect("a link");
    // A claim and a record of a verification that are too long, and an index.
    oversized(&set("backup-80/claim-0000000000000000.json"));
    oversized(&set("backup-1/verified.json"));
    oversized(&set("backup-2/remote.json"));

    let states = listed(&url, &[]);
    let state = |name: &str| {
        let name = format!("{place}/{name}");
        let found = states.iter().find(|(other, _)| *other == name);
        found.map(|(_, state)| state.as_str()).unwrap_or_default()
    };
    for (name, expected) in [
        ("backup-1", "good"),
        ("backup-2", "incomplete"),
        ("backup-3", "good"),
        ("backup-4", "good"),
        ("backup-77", "incomplete"),
        ("backup-78", "incomplete"),
        ("backup-79", "incomplete"),
        ("backup-80", "incomplete"),
    ] {
        assert_eq!(state(name), expected, "{name}: {states:?}");
    }
    assert_eq!(states.len(), 9, "{states:?}");

    let back = tempfile::tempdir().expect("a folder");
    let to = back.path().to_str().expect("UTF-8");
    run(&["copy", &format!("{url}/{place}/latest"), to], &[]).expect(0);
    assert_same_set(&back.path().join("backup-1"), &set_of(&bench, 4));

    let refused = run(&["verify", &format!("{url}/{place}/backup-77")], &[]).expect(3);
    assert!(refused.stderr.contains("at most"), "{refused}");
    let pruned = run(
        &["prune", &url, "--keep-last", "1", "--yes", "-o", "json"],
        &[],
    )
    .expect(0);
    let removed = pruned.json()["removed"].to_string();
    for (name, gone) in [("1", true), ("3", true), ("4", false)] {
        assert_eq!(
            removed.contains(&format!("/backup-{name}\"")),
            gone,
            "{pruned}"
        );
    }
    for name in ["77", "78", "79", "80"] {
        assert!(set(&format!("backup-{name}")).is_dir(), "{name}: {pruned}");
    }
    bench.set(5);
    let copied = bench.copy("backup-5", &url, &["--keep-last", "1"], &[]);
    copied.expect(0);
}

fn set_of(bench: &Bench, number: u32) -> std::path::PathBuf {
    bench.store().join(format!("backup-{number}"))
}

#[test]
fn one_odd_object_is_one_bad_set() {
    let dir = tempfile::tempdir().expect("a folder");
    the_rest_continues(dir.path());
}

#[test]
fn an_odd_set_of_the_nodes_own_store_is_one_bad_set() {
    let bench = Bench::new();
    bench.set(1);
    let (at, pipe) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
    for (number, name) in [(2, "backup.json"), (3, "verified.json"), (4, "shared.json")] {
        let path = bench.set(number).join(name);
        let _ = std::fs::remove_file(&path);
        rustix::fs::mknodat(at, path, pipe, 0o600.into(), 0).expect("a pipe");
    }
    let store = bench.store();
    let listed = run(&["list", store.to_str().expect("UTF-8"), "-o", "json"], &[]).expect(0);
    let json = listed.json();
    let sets = json["sets"].as_array().expect("sets");
    assert_eq!(
        (sets.len(), &sets[0]["state"]),
        (4, &"good".into()),
        "{listed}"
    );
    assert_eq!(sets[1]["state"], "incomplete", "{listed}");
    let problem = sets[2]["problems"].to_string();
    assert!(problem.contains("not a plain file"), "{listed}");
}

/// The keys that another program, or an attacker, has put beside ours.
fn with_odd_keys(page: &str) -> String {
    let odd = [
        "c//n/backup-1/backup.json",
        "./",
        "../x",
        "a/&#1;/b",
        "x//",
        "a/./b",
    ];
    let entry = |key: &&str| {
        format!(
            "<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"x\"</ETag></Contents>"
        )
    };
    let odd: String = odd.iter().map(entry).collect();
    page.replacen(
        "</ListBucketResult>",
        &format!("{odd}</ListBucketResult>"),
        1,
    )
}

/// The keys of a bucket on disk as a page of S3's.
fn page(bucket: &Path, folder: &str, more: &str) -> String {
    let entries: String = crate::bench::files_below(&bucket.join(folder))
        .iter()
        .map(|path| {
            let key = path.strip_prefix(bucket).expect("below it").display().to_string();
            let size = path.metadata().expect("a file").len();
            format!(
                "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"x\"</ETag></Contents>"
            )
        })
        .collect();
    format!("<?xml version=\"1.0\"?><ListBucketResult>{entries}{more}</ListBucketResult>")
}

/// A fake answers the listings: what a real server on a file system cannot hold.
#[test]
fn keys_with_other_names_are_passed_over() {
    let Some(server) = S3::start() else { return };
    let bench = Bench::new();
    bench.set(1);
    let url = format!("s3://{BUCKET}/odd");
    bench
        .copy("backup-1", &url, &[], &variables(server.address))
        .expect(0);
    let bucket = server.bucket();
    let wire = Wire::start(server.address, move |request| match request.kind() {
        "list" => Act::Answer(200, with_odd_keys(&page(&bucket, "odd", ""))),
        _ => Act::Pass(request),
    });
    let env = variables(wire.address);
    let good = (format!("{}/backup-1", place()), "good".to_owned());
    assert_eq!(listed(&url, &env), [good]);
}

/// A fake answers with the same page for ever, and with a new token each time.
#[test]
fn a_listing_that_does_not_end_is_ended() {
    let Some(server) = S3::start() else { return };
    let empty = tempfile::tempdir().expect("a folder");
    let bucket = empty.path().to_owned();
    let (asked, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&asked);
    let wire = Wire::start(server.address, move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        // One token in three is a new one.
        let token = count.fetch_add(1, Ordering::SeqCst) % 3;
        let more = format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        );
        Act::Answer(200, page(&bucket, "", &more))
    });
    let url = format!("s3://{BUCKET}/x");
    let refused = run(&["list", &url], &variables(wire.address)).expect(6);
    assert!(refused.stderr.contains("does not end"), "{refused}");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "{refused}");
}

/// Longer than all the memory that the command may use.
#[test]
fn a_long_refusal_is_cut() {
    let Some(server) = S3::start() else { return };
    let long = "x".repeat(300 << 20);
    let wire = Wire::start(server.address, move |_| {
        Act::Answer(
            403,
            format!("<Error><Code>AccessDenied</Code><Message>{long}</Message></Error>"),
        )
    });
    let env = variables(wire.address);
    for format in ["text", "json"] {
        let refused = run(&["list", &format!("s3://{BUCKET}/x"), "-o", format], &env).expect(6);
        let said = refused.stdout.len() + refused.stderr.len();
        assert!(said < 24 << 10, "{format}: {said} bytes");
        assert!(refused.stdout.contains("bytes more") || refused.stderr.contains("bytes more"));
    }
}

/// A token would go along: no service needs a redirect to be followed.
#[test]
fn a_redirect_is_not_followed() {
    let Some(server) = S3::start() else { return };
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    other.set_nonblocking(true).expect("a listener");
    let to = format!("http://{}/x", other.local_addr().expect("an address"));
    let target = to.clone();
    let wire = Wire::start(server.address, move |_| Act::Redirect(target.clone()));
    let mut env = variables(wire.address);
    env.push(("AWS_SESSION_TOKEN", "a-token-of-the-session".to_owned()));
    let refused = run(&["list", &format!("s3://{BUCKET}/x")], &env).expect(6);
    assert!(refused.stderr.contains(&to), "{refused}");
    assert!(!refused.to_string().contains("a-token"), "{refused}");
    assert_eq!(wire.seen().len(), 1, "it is not asked again");
    let nobody = other.accept().map(drop).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// The signature goes with what it signed, so that the server is one that asks for none.
fn unsigned(mut request: Request) -> Request {
    request.take("authorization");
    request
}

/// A fake refuses, or takes away, what a service lacks; the rest is a real server's.
fn lacking(rule: impl Fn(Request) -> Act + Send + Sync + 'static) -> Option<(S3, Wire)> {
    let server = S3::anonymous()?;
    let wire = Wire::start(server.address, rule);
    Some((server, wire))
}

/// Copies a set of so many bytes there, brings it back, copies another, and prunes the first.
fn there_back_and_pruned(wire: &Wire, bytes: usize) {
    let bench = Bench::new();
    let set = bench.big_set(1, bytes);
    let url = format!("s3://{BUCKET}/x");
    let env = variables(wire.address);
    bench.copy("backup-1", &url, &[], &env).expect(0);
    let again = bench
        .copy("backup-1", &url, &["-o", "json"], &env)
        .expect(0);
    assert_eq!(again.json()["copy"]["alreadyThere"], true, "{again}");
    let back = tempfile::tempdir().expect("a folder");
    let to = back.path().to_str().expect("UTF-8");
    run(&["copy", &format!("{url}/{}/backup-1", place()), to], &env).expect(0);
    assert_same_set(&back.path().join("backup-1"), &set);
    bench.set(2);
    bench
        .copy("backup-2", &url, &["--keep-last", "1"], &env)
        .expect(0);
    let left = (format!("{}/backup-2", place()), "good".to_owned());
    assert_eq!(listed(&url, &env), [left]);
}

#[test]
fn a_service_without_conditional_writes() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let bench = lacking(move |mut request| {
        if request.take("if-none-match").is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            return s3_error(501, "NotImplemented");
        }
        Act::Pass(unsigned(request))
    });
    let Some((_server, wire)) = bench else { return };
    there_back_and_pruned(&wire, 50_000);
    // Each command learns it by one request, which is not tried again.
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked <= 3, "{asked} conditional writes");
}

#[test]
fn a_service_without_bulk_deletes() {
    let bench = lacking(|request| match request.method.as_str() {
        "POST" if request.target.contains("?delete") => s3_error(501, "NotImplemented"),
        _ => Act::Pass(unsigned(request)),
    });
    let Some((_server, wire)) = bench else { return };
    there_back_and_pruned(&wire, 50_000);
}

#[test]
fn a_service_that_sends_no_etag_for_what_was_put() {
    let bench = lacking(|request| match request.kind() {
        "put" | "claim" | "manifest" | "index" | "record" => {
            Act::Without(unsigned(request), "etag")
        }
        _ => Act::Pass(unsigned(request)),
    });
    let Some((_server, wire)) = bench else { return };
    there_back_and_pruned(&wire, 50_000);
}

#[test]
fn a_service_that_sends_no_etag_for_a_part_is_named_as_such() {
    let bench = lacking(|request| match request.kind() {
        "part" => Act::Without(unsigned(request), "etag"),
        _ => Act::Pass(unsigned(request)),
    });
    let Some((_server, wire)) = bench else { return };
    let bench = Bench::new();
    bench.big_set(1, 9 << 20);
    let url = format!("s3://{BUCKET}/x");
    let failed = bench.copy("backup-1", &url, &[], &variables(wire.address));
    let failed = failed.expect(6);
    assert!(failed.stderr.contains("no ETag for a part"), "{failed}");
}

#[test]
fn a_service_that_ignores_ranges() {
    let bench = lacking(|mut request| {
        request.take("range");
        Act::Pass(unsigned(request))
    });
    let Some((_server, wire)) = bench else { return };
    there_back_and_pruned(&wire, (9 << 20) + 5);
}

#[test]
fn without_credentials_one_sentence_says_where_they_were_looked_for() {
    let Some(space) =
        namespace::enter("odd::without_credentials_one_sentence_says_where_they_were_looked_for")
    else {
        return;
    };
    // Nothing listens where the clouds' metadata service would be, and no proxy is asked.
    space.add_address(std::net::Ipv4Addr::new(169, 254, 169, 254).into());
    let proxy = Wire::start(([127, 0, 0, 1], 1).into(), |_| s3_error(502, "Proxy"));
    let home = tempfile::tempdir().expect("a folder");
    let bare = |more: &[(&'static str, &str)]| {
        let mut env = vec![
            ("HOME", home.path().display().to_string()),
            ("http_proxy", format!("http://{}", proxy.address)),
            ("ETCD_DR_STORE_PATIENCE", "60s".to_owned()),
        ];
        env.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        env
    };
    let refused = run(&["list", "s3://bucket/x"], &bare(&[])).expect(6);
    for word in [
        "no credentials",
        "AWS_ACCESS_KEY_ID",
        ".aws/credentials",
        "metadata",
    ] {
        assert!(refused.stderr.contains(word), "{word}: {refused}");
    }
    assert_eq!(
        refused.stderr.matches("169.254.169.254").count(),
        0,
        "{refused}"
    );
    assert_eq!(proxy.seen(), [""; 0], "the proxy was asked for credentials");

    std::fs::create_dir(home.path().join(".aws")).expect("a folder");
    let file = home.path().join(".aws/credentials");
    std::fs::write(&file, "[default]\naws_access_key_id = A\n[ops]\n").expect("a file");
    let named = run(
        &["list", "s3://bucket/x"],
        &bare(&[("AWS_PROFILE", "bakcup")]),
    )
    .expect(2);
    for word in ["bakcup", "default, ops", ".aws/credentials"] {
        assert!(named.stderr.contains(word), "{word}: {named}");
    }
    for url in ["gs://bucket/x", "az://bucket/x"] {
        let env = bare(&[("AZURE_STORAGE_ACCOUNT_NAME", "account")]);
        let refused = run(&["list", url], &env).expect(6);
        assert!(
            refused.stderr.contains("no credentials"),
            "{url}: {refused}"
        );
    }
}
