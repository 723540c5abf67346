//! Files of releases that no registry here has as programs: snapshots and killed members'
//! directories of etcd 3.6 and 3.7, with what those servers and their tools answered of them
//! (`fixtures/releases`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use etcd_dr::change::datadir;
use etcd_dr::change::dir_options::DirOptions;
use etcd_dr::etcd::bbolt::write::{Change, Changes, Edit, amend, small_bucket};
use etcd_dr::etcd::bbolt::{FileSource, Metas, Origin};
use etcd_dr::etcd::hashkv::At;
use etcd_dr::etcd::restore::Bump;
use etcd_dr::etcd::snapshot::{DatabaseFacts, Options, Report, hash_kv, inspect};
use etcd_dr::finding::Findings;
use serde_json::Value;

use crate::bench::{context, etcd_dr, make, request};

const SNAPSHOTS: [&str; 4] = ["3.6", "3.6-auth", "3.7", "3.7-auth"];
const DIRECTORIES: [&str; 2] = ["3.6", "3.7"];

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("fixtures/releases").join(name)
}

fn told(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

fn unpack(name: &str, to: &Path) {
    let packed = File::open(fixture(name)).unwrap();
    let mut file = File::create(to).unwrap();
    zstd::stream::copy_decode(packed, &mut file).unwrap();
}

fn read(path: &Path) -> (Report, DatabaseFacts) {
    let file = FileSource::open(path).unwrap();
    let report = inspect(&file, &Options::default(), &|_| {}).unwrap();
    assert_eq!(report.findings.listed(), [], "{}", path.display());
    let facts = report.facts.clone().unwrap();
    (report, facts)
}

fn bucket(path: &Path, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let file = FileSource::open(path).unwrap();
    let size = fs::metadata(path).unwrap().len();
    let origin = match size % 4096 {
        0 => Origin::File,
        _ => Origin::Streamed,
    };
    let metas = Metas::read(&file, size, origin, &mut Findings::default());
    let meta = metas.unwrap().unwrap().chosen;
    small_bucket(&file, size, &meta, name.as_bytes()).unwrap()
}

fn assert_hash(path: &Path, revision: i64, compact: i64, expected: &Value, what: &str) {
    let at = At {
        revision: Some(revision),
        compacted_at: Some(compact),
    };
    let hash = hash_kv(&FileSource::open(path).unwrap(), at)
        .unwrap()
        .unwrap();
    assert_eq!(Some(u64::from(hash.hash)), expected.as_u64(), "{what}");
}

/// Keys, leases, users and roles as the server listed them.
fn assert_content(path: &Path, told: &Value, what: &str) {
    let (_, facts) = read(path);
    let number = |name: &str| told[name].as_u64().unwrap();
    assert_eq!(facts.keys, number("keys"), "{what}");
    let leases = told["leases"].as_array().unwrap();
    assert_eq!(facts.leases, leases.len() as u64, "{what}");
    let attached = leases.iter().map(|lease| lease["keys"].as_u64().unwrap());
    assert_eq!(facts.leased_keys, attached.sum::<u64>(), "{what}");
    let mut ids: Vec<_> = leases.iter().map(|lease| lease["id"].as_u64()).collect();
    ids.sort();
    let stored = bucket(path, "lease").into_iter();
    let stored = stored.map(|(key, _)| key.try_into().ok().map(u64::from_be_bytes));
    assert_eq!(stored.collect::<Vec<_>>(), ids, "{what}");
    let Some(users) = told["users"].as_object() else {
        return;
    };
    let names = |of: &serde_json::Map<String, Value>| -> Vec<String> {
        let mut names: Vec<String> = of.keys().cloned().collect();
        names.sort();
        names
    };
    let stored = |name: &str| -> Vec<String> {
        let entries = bucket(path, name).into_iter();
        entries
            .map(|(key, _)| String::from_utf8(key).unwrap())
            .collect()
    };
    assert_eq!(stored("authUsers"), names(users), "{what}");
    let roles = told["roles"].as_object().unwrap();
    assert_eq!(stored("authRoles"), names(roles), "{what}");
    assert_eq!(Some(facts.auth.enabled), told["auth"].as_bool(), "{what}");
}

fn assert_members(facts: &DatabaseFacts, told: &Value, what: &str) {
    let told = told["members"].as_array().unwrap();
    let urls = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let told: Vec<_> = told
        .iter()
        .map(|member| {
            (
                member["ID"].as_u64().unwrap(),
                member["name"].as_str().unwrap().to_owned(),
                urls(&member["peerURLs"]),
                urls(&member["clientURLs"]),
            )
        })
        .collect();
    let mut stored: Vec<_> = facts
        .members
        .iter()
        .map(|m| {
            (
                m.id,
                m.name.clone(),
                m.peer_urls.clone(),
                m.client_urls.clone(),
            )
        })
        .collect();
    stored.sort();
    assert_eq!(stored, told, "{what}");
}

#[test]
fn snapshots_of_newer_releases_are_what_their_tools_say() {
    for version in SNAPSHOTS {
        let told = told(&format!("etcd-{version}.json"));
        let scratch = tempfile::tempdir().unwrap();
        let snapshot = scratch.path().join("snapshot.db");
        unpack(&format!("etcd-{version}.db.zst"), &snapshot);
        let (report, facts) = read(&snapshot);
        let (ours, theirs) = (report.status.unwrap(), &told["snapshotStatus"]);
        assert_eq!(
            Some(u64::from(ours.hash)),
            theirs["hash"].as_u64(),
            "{version}"
        );
        assert_eq!(
            Some(ours.revision),
            theirs["revision"].as_i64(),
            "{version}"
        );
        assert_eq!(
            Some(ours.total_keys),
            theirs["totalKey"].as_u64(),
            "{version}"
        );
        assert_eq!(
            Some(ours.total_size),
            theirs["totalSize"].as_u64(),
            "{version}"
        );
        assert_eq!(
            Some(ours.version.as_str()),
            theirs["version"].as_str(),
            "{version}"
        );
        assert_members(&facts, &told, version);
        assert_content(&snapshot, &told, version);
        hashes(&snapshot, &told, version);

        // A restore, read back whole: the members are new, and nothing else is.
        let made = scratch.path().join("made");
        let request = datadir::Request {
            options: DirOptions {
                data_dir: made.clone(),
                wal_dir: None,
                bump: Some(Bump::By(0)),
                mark_compacted: false,
                evidence: Vec::new(),
                allow: Vec::new(),
                random: 7,
            },
            snapshot: snapshot.clone(),
            name: "one".into(),
            initial_cluster: "one=http://127.0.0.1:2380".into(),
            advertise_peer_urls: "http://127.0.0.1:2380".into(),
            token: Some("T".into()),
            skip_hash_check: false,
            target: None,
            compact: false,
            authentication_off: false,
            to: None,
            roll_forward: None,
            recorded: None,
        };
        let outcome = datadir::run(&context(), &request).unwrap();
        assert_eq!(
            Some(outcome.revision),
            theirs["revision"].as_i64(),
            "{version}"
        );
        let db = made.join("member/snap/db");
        assert_content(&db, &told, version);
        hashes(&db, &told, version);
        let judged = etcd_dr(&["verify", "--data-dir", made.to_str().unwrap()]);
        assert_eq!(judged.status, Some(0), "{version}: {}", judged.stdout);
    }
}

/// HashKV at every revision that was named, by the server itself and by `etcdutl hashkv`.
fn hashes(database: &Path, told: &Value, what: &str) {
    let mut checked = 0;
    for (name, hash) in told["hashkv"].as_object().unwrap() {
        // One that the server remembers of the time of the compaction itself.
        let compact = hash["compact"].as_i64().unwrap();
        if compact > 0 {
            let revision = told["revisions"][name].as_i64().unwrap();
            assert_hash(
                database,
                revision,
                compact,
                &hash["hash"],
                &format!("{what} {name}"),
            );
            checked += 1;
        }
    }
    for (name, hash) in told["etcdutlHashkvAtRev"].as_object().unwrap() {
        let number = |field: &str| hash[field].as_i64().unwrap();
        let (revision, compact) = (number("hashRevision"), number("compactRevision"));
        assert_hash(
            database,
            revision,
            compact,
            &hash["hash"],
            &format!("{what} {name}"),
        );
        checked += 1;
    }
    assert!(checked >= 10, "{what}");
}

/// A member's directory as it was when the server was killed; holes are holes again.
fn directory(version: &str, to: &Path) -> Value {
    let told = told(&format!("datadir-{version}/told.json"));
    for dir in ["snap", "wal"] {
        fs::create_dir_all(to.join("member").join(dir)).unwrap();
    }
    let packed = fs::read_dir(fixture(&format!("datadir-{version}"))).unwrap();
    for entry in packed {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(own) = name.strip_suffix(".zst") else {
            continue;
        };
        let (dir, size) = match own {
            "db" => ("snap", told["databaseSize"].as_u64()),
            own if own.ends_with(".wal") => ("wal", Some(64_000_000)),
            _ => ("snap", None),
        };
        let path = to.join("member").join(dir).join(own);
        unpack(&format!("datadir-{version}/{name}"), &path);
        if let Some(size) = size {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(size).unwrap();
        }
    }
    told
}

/// What is made of the directory holds what the server held once it was started on it again.
fn assert_survives(source: &Path, told: &Value, what: &str) {
    let head = told["headRevision"].as_i64().unwrap();
    let made = source.with_file_name(format!("made-{}", what.replace(' ', "-")));
    let mut request = request(source, &made);
    request.options.bump = Some(Bump::By(1000));
    request.options.mark_compacted = true;
    let outcome = make(&request).unwrap_or_else(|failure| panic!("{what}: {failure}"));
    assert_eq!(outcome.applied_revision, Some(head), "{what}");
    assert_eq!(outcome.revision, head + 1000, "{what}");
    assert_content(&made.join("member/snap/db"), told, what);
    let judged = etcd_dr(&["verify", "--data-dir", made.to_str().unwrap()]);
    assert_eq!(judged.status, Some(0), "{what}: {}", judged.stdout);
    // All below the raised revision is marked as compacted: with the server's own mark instead, the
    // hashes compare.
    let compact = told["compactRevision"].as_i64().unwrap();
    let unmarked = made.with_extension("unmarked");
    fs::write(&unmarked, marked_at(&made.join("member/snap/db"), compact)).unwrap();
    for (revision, hash) in told["hashkv"].as_object().unwrap() {
        assert_eq!(hash["compact"].as_i64(), Some(compact), "{what}");
        let at = revision.parse().unwrap();
        assert_hash(
            &unmarked,
            at,
            compact,
            &hash["hash"],
            &format!("{what} at {revision}"),
        );
    }
}

fn marked_at(database: &Path, compact: i64) -> Vec<u8> {
    let mut bytes = fs::read(database).unwrap();
    let size = bytes.len() as u64;
    let metas = Metas::read(&bytes, size, Origin::File, &mut Findings::default());
    let meta = metas.unwrap().unwrap().chosen;
    let mut edit = Edit::default();
    let mark = [&compact.to_be_bytes()[..], b"_", &[0; 8]].concat();
    edit.put.insert(b"scheduledCompactRev".to_vec(), mark);
    let changes = Changes::from([(b"meta".to_vec(), Change::Edit(edit))]);
    let amendment = amend(&bytes, size, &meta, &changes).unwrap();
    bytes.truncate(amendment.offset as usize);
    bytes.extend_from_slice(&amendment.pages);
    for (page, meta_page) in amendment.metas.iter().enumerate() {
        let at = page * meta.page_size as usize;
        bytes[at..at + meta_page.len()].copy_from_slice(meta_page);
    }
    bytes
}

fn snap_files(source: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(source.join("member/snap")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "snap"));
    files.sort();
    files
}

#[test]
fn directories_of_killed_members_of_newer_releases_lead_where_the_server_got() {
    for version in DIRECTORIES {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("source");
        let told = directory(version, &source);
        let db = source.join("member/snap/db");
        let (report, facts) = read(&db);
        let number = |name: &str| told[name].as_i64().unwrap();
        let status = report.status.unwrap();
        assert_eq!(i64::from(status.hash), number("backendHash"), "{version}");
        assert_eq!(facts.revision, number("backendRevision"), "{version}");
        assert_eq!(status.total_keys as i64, number("totalKey"), "{version}");
        assert_members(&facts, &told, version);
        let looked = etcd_dr(&[
            "verify",
            "--data-dir",
            source.to_str().unwrap(),
            "-o",
            "json",
        ]);
        assert_eq!(looked.status, Some(0), "{version}: {}", looked.stdout);
        let looked = looked.json();
        let at_most = looked["revisions"]["atMost"].as_i64().unwrap();
        assert!(at_most >= number("headRevision"), "{version}: {at_most}");
        assert_survives(&source, &told, version);
    }
}

#[test]
fn a_kill_while_a_snap_file_was_written_keeps_nothing_back() {
    for version in DIRECTORIES {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("source");
        let told = directory(version, &source);
        let newest = snap_files(&source).pop().unwrap();
        let whole = fs::read(&newest).unwrap();
        let next = source.join("member/snap/0000000000000002-0000000000ffffff.snap");
        for (what, cut) in [("empty", 0), ("cut", 4096)] {
            fs::write(&next, &whole[..cut]).unwrap();
            let looked = etcd_dr(&["verify", "--data-dir", source.to_str().unwrap()]);
            assert_eq!(looked.status, Some(0), "{}", looked.stdout);
            assert!(looked.stdout.contains("ffffff.snap: "), "{}", looked.stdout);
            assert_survives(&source, &told, &format!("{version} {what}"));
        }
        fs::remove_file(&next).unwrap();
        // The newest that the log knows is damaged: 3.6 takes the one before, 3.7 reads none.
        fs::write(&newest, &whole[..4096]).unwrap();
        let looked = etcd_dr(&["verify", "--data-dir", source.to_str().unwrap()]);
        let expected = if version == "3.6" { 3 } else { 0 };
        assert_eq!(
            looked.status,
            Some(expected),
            "{version}: {}",
            looked.stdout
        );
        assert_survives(&source, &told, &format!("{version} damaged"));
        // None at all, as later releases leave it.
        for file in snap_files(&source) {
            fs::remove_file(file).unwrap();
        }
        assert_survives(&source, &told, &format!("{version} none"));
        // The log's beginning is gone, too: its record of the snapshot and the database are the start.
        let wal = source.join("member/wal");
        let first = wal.join("0000000000000000-0000000000000000.wal");
        fs::rename(first, wal.join("0000000000000001-0000000000000001.wal")).unwrap();
        assert_survives(&source, &told, &format!("{version} purged"));
        let looked = etcd_dr(&["verify", "--data-dir", source.to_str().unwrap()]);
        assert_eq!(
            looked.status,
            Some(expected),
            "{version}: {}",
            looked.stdout
        );
        // Whose tail etcd is to apply, up to 3.6 it cannot start without such a file.
        let left = make(&request(&source, &scratch.path().join("left")));
        match (version, left) {
            ("3.6", Err(failure)) => assert_eq!(failure.refusal(), Some("damaged-survivor")),
            (_, left) => assert!(version == "3.7" && left.is_ok(), "{version}: {left:?}"),
        }
    }
}

/// As podman-etcd saves it, and people copy it: a database's own file has no hash, and a stream that
/// has lost its hash is another thing.
#[test]
fn a_copy_of_a_database_file_is_restored_without_a_hash_it_never_had() {
    let scratch = tempfile::tempdir().unwrap();
    let told = directory("3.6", &scratch.path().join("source"));
    let raw = scratch.path().join("source/member/snap/db");
    let restore = |snapshot: &Path, to: &str| {
        let data_dir = scratch.path().join(to);
        let args = ["restore", snapshot.to_str().unwrap(), "--data-dir"];
        etcd_dr(&[&args[..], &[data_dir.to_str().unwrap(), "-o", "json"]].concat())
    };
    let run = restore(&raw, "made").expect(0);
    assert!(run.stderr.contains("it has no integrity hash"), "{run}");
    assert_eq!(
        run.json()["snapshotRevision"],
        told["backendRevision"],
        "{run}"
    );
    let judged = etcd_dr(&[
        "verify",
        "--data-dir",
        scratch.path().join("made").to_str().unwrap(),
    ]);
    assert_eq!(judged.status, Some(0), "{}", judged.stdout);

    let stripped = scratch.path().join("stripped.db");
    unpack("etcd-3.6.db.zst", &stripped);
    let file = File::options().write(true).open(&stripped).unwrap();
    file.set_len(file.metadata().unwrap().len() - 32).unwrap();
    let run = restore(&stripped, "other").expect(5);
    assert_eq!(run.json()["error"]["refusal"], "no-integrity-hash", "{run}");

    // A changed byte that a hash would have shown is found in pages and keys.
    let mut bytes = fs::read(&raw).unwrap();
    let at = bytes.len() / 3 / 4096 * 4096 % 600_000;
    bytes[at] ^= 1;
    let damaged = scratch.path().join("damaged.db");
    fs::write(&damaged, bytes).unwrap();
    restore(&damaged, "bad").expect(3);
}
