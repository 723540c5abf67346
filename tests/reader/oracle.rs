//! Real programs as oracles: what a server answered, and what etcd's tools say of the same files.

use std::fs;
use std::path::Path;

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, ConnectOptions, DeleteOptions,
    LeaseGrantOptions, MemberAddOptions, Permission, PutOptions, Txn, TxnOp,
};
use etcd_dr::etcd::bbolt::FileSource;
use etcd_dr::etcd::hashkv::At;
use etcd_dr::etcd::snapshot::{LayerState, Options, Report, Trailer, hash_kv, inspect};
use etcd_dr::finding::Layer;

use crate::etcd::{Member, Release, releases_or_skip, snapshot};
use testbench::database::writer::Random;

fn look(file: &[u8]) -> Report {
    inspect(&file, &Options::default(), &|_| {}).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// The same question to the server and to its snapshot.
async fn hashes_agree(client: &mut Client, file: &[u8], report: &Report, step: i64) -> u32 {
    let facts = report.facts.as_ref().unwrap();
    let compact = facts.compact_revision.unwrap_or(-1);
    let mut compared = 0;
    let mut revision = compact.max(1);
    while revision <= facts.revision {
        // At the compaction itself 3.4 refuses, and others may answer from before it.
        if let Ok(live) = client.hash_kv(revision).await
            && live.compact_version() == compact
        {
            let at = At {
                revision: Some(revision),
                compacted_at: None,
            };
            let ours = hash_kv(&file, at).unwrap().unwrap();
            assert_eq!(
                ours.hash,
                live.hash(),
                "revision {revision} of {}",
                facts.revision
            );
            assert_eq!(ours.compact_revision, compact);
            compared += 1;
        }
        revision += step;
    }
    if let Ok(live) = client.hash_kv(facts.revision).await
        && live.compact_version() == compact
    {
        assert_eq!(report.hash_kv.unwrap().hash, live.hash());
        compared += 1;
    }
    compared
}

/// What every tool says of a file, on a copy.
fn status_agrees(releases: &[Release], file: &[u8], report: &Report) {
    let dir = tempfile::tempdir().unwrap();
    let ours = report.status.as_ref().unwrap();
    for release in releases {
        let path = dir.path().join(&release.version);
        fs::write(&path, file).unwrap();
        let theirs = release.status(&path).unwrap();
        let number = |name: &str| theirs[name].as_i64().unwrap();
        assert_eq!(number("hash"), i64::from(ours.hash), "{}", release.version);
        assert_eq!(number("revision"), ours.revision);
        assert_eq!(number("totalSize"), ours.total_size as i64);
        // 3.4 and 3.5 count the entries of all buckets.
        assert!(!release.at_least(6, 0));
        assert_eq!(number("totalKey"), ours.total_entries as i64);
    }
}

fn is_clean(report: &Report) {
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert!(matches!(report.trailer, Trailer::Ok { .. }));
}

async fn random_work(client: &mut Client, random: &mut Random, txns: u32, keys: u64, lease: i64) {
    for _ in 0..txns {
        let key = format!("/registry/pods/k{:03}", random.below(keys));
        match random.below(10) {
            0 | 1 => drop(client.delete(key, None).await.unwrap()),
            2 => {
                let end = format!("{key}9");
                let options = DeleteOptions::new().with_range(end);
                client.delete(key, Some(options)).await.unwrap();
            }
            3 => {
                let options = PutOptions::new().with_lease(lease);
                client.put(key, "leased", Some(options)).await.unwrap();
            }
            4 => {
                let ops = (0..1 + random.below(5))
                    .map(|n| TxnOp::put(format!("/registry/events/{n}"), key.clone(), None))
                    .collect::<Vec<_>>();
                client.txn(Txn::new().and_then(ops)).await.unwrap();
            }
            _ => {
                let value = vec![b'v'; random.below(300) as usize];
                client.put(key, value, None).await.unwrap();
            }
        }
    }
}

/// What is alive, as the server counts it.
async fn alive(client: &mut Client) -> u64 {
    let all = etcd_client::GetOptions::new()
        .with_all_keys()
        .with_count_only();
    client.get("", Some(all)).await.unwrap().count() as u64
}

async fn physical(client: &mut Client, revision: i64) {
    let options = CompactionOptions::new().with_physical();
    client.compact(revision, Some(options)).await.unwrap();
}

#[test]
fn hashes_and_counts_equal_etcds_as_a_store_grows() {
    let releases = releases_or_skip("hashes_and_counts_equal_etcds_as_a_store_grows");
    for release in &releases {
        runtime().block_on(async {
            let member = Member::start(release);
            let mut client = member.client().await;
            let fresh = snapshot(&mut client).await;
            is_clean(&look(&fresh));
            status_agrees(&releases, &fresh, &look(&fresh));
            let mut random = Random(42);
            let lease = client.lease_grant(3600, None).await.unwrap().id();
            let mut compared = 0;
            for stage in 0..6i64 {
                random_work(&mut client, &mut random, 60, 25, lease).await;
                if stage > 0 {
                    let now = client.get("x", None).await.unwrap();
                    let now = now.header().unwrap().revision();
                    physical(&mut client, now - (stage * 7) % 40).await;
                }
                let file = snapshot(&mut client).await;
                let report = look(&file);
                is_clean(&report);
                let facts = report.facts.as_ref().unwrap();
                assert_eq!(facts.keys, alive(&mut client).await);
                assert_eq!(facts.leases, 1);
                status_agrees(&releases, &file, &report);
                compared += hashes_agree(&mut client, &file, &report, 2).await;
            }
            println!("{}: {compared} hashes compared", release.version);
            assert!(compared > 60);
        });
    }
}

#[test]
fn a_store_without_live_keys_is_read_as_etcd_reads_it() {
    let releases = releases_or_skip("a_store_without_live_keys_is_read_as_etcd_reads_it");
    for release in &releases {
        runtime().block_on(async {
            let member = Member::start(release);
            let mut client = member.client().await;
            random_work(&mut client, &mut Random(3), 40, 5, 0).await;
            client
                .delete("", Some(DeleteOptions::new().with_all_keys()))
                .await
                .unwrap();
            let file = snapshot(&mut client).await;
            let report = look(&file);
            is_clean(&report);
            assert_eq!(report.facts.as_ref().unwrap().keys, 0);
            let mut compared = hashes_agree(&mut client, &file, &report, 1).await;
            let revision = report.facts.as_ref().unwrap().revision;
            for at in [revision - 2, revision] {
                physical(&mut client, at).await;
                let file = snapshot(&mut client).await;
                let report = look(&file);
                is_clean(&report);
                status_agrees(&releases, &file, &report);
                compared += hashes_agree(&mut client, &file, &report, 1).await;
            }
            // The store is empty, and its revision continues.
            client.put("again", "1", None).await.unwrap();
            let file = snapshot(&mut client).await;
            let report = look(&file);
            is_clean(&report);
            assert_eq!(report.facts.as_ref().unwrap().revision, revision + 1);
            compared += hashes_agree(&mut client, &file, &report, 1).await;
            println!("{}: {compared} hashes compared", release.version);
            assert!(compared > 20);
        });
    }
}

#[test]
fn authentication_alarms_and_members_are_read() {
    let releases = releases_or_skip("authentication_alarms_and_members_are_read");
    for release in &releases {
        runtime().block_on(async {
            let member = Member::start(release);
            let mut client = member.client().await;
            let lease = LeaseGrantOptions::new().with_id(0x7b);
            client.lease_grant(600, Some(lease)).await.unwrap();
            let leased = PutOptions::new().with_lease(0x7b);
            client.put("/a", "1", Some(leased)).await.unwrap();
            let learner = MemberAddOptions::new().with_is_learner();
            let added = client
                .member_add(["http://127.0.0.9:2380"], Some(learner))
                .await
                .unwrap();
            let added = added.member().unwrap().id();
            let report = look(&snapshot(&mut client).await);
            is_clean(&report);
            let facts = report.facts.unwrap();
            assert!(facts.members.iter().any(|m| m.id == added && m.is_learner));
            client.member_remove(added).await.unwrap();
            client
                .alarm(AlarmAction::Activate, AlarmType::Nospace, None)
                .await
                .unwrap();
            client
                .alarm(AlarmAction::Deactivate, AlarmType::Nospace, None)
                .await
                .unwrap();
            client
                .alarm(AlarmAction::Activate, AlarmType::Corrupt, None)
                .await
                .unwrap();
            client.role_add("root").await.unwrap();
            client.role_add("reader").await.unwrap();
            client
                .role_grant_permission("reader", Permission::read("/a"))
                .await
                .unwrap();
            for user in ["root", "someone"] {
                client.user_add(user, "secret", None).await.unwrap();
            }
            client.user_grant_role("root", "root").await.unwrap();
            client.user_grant_role("someone", "reader").await.unwrap();
            client.auth_enable().await.unwrap();
            let as_root = ConnectOptions::new().with_user("root", "secret");
            let mut client = Client::connect([&member.endpoint], Some(as_root))
                .await
                .unwrap();
            let file = snapshot(&mut client).await;
            let report = look(&file);
            is_clean(&report);
            status_agrees(&releases, &file, &report);
            let facts = report.facts.unwrap();
            assert_eq!(facts.members_removed, [format!("{added:x}")]);
            assert_eq!(facts.members.len(), 1);
            assert!(facts.auth.enabled);
            assert_eq!((facts.auth.users, facts.auth.roles), (2, 2));
            let alarms: Vec<_> = facts.alarms.iter().map(|a| a.alarm.as_str()).collect();
            assert_eq!(alarms, ["CORRUPT"]);
            assert_eq!((facts.leases, facts.leased_keys), (1, 1));
        });
    }
}

/// Many keys, big values, and the member's own file after it stopped.
#[test]
fn a_larger_store_and_its_own_file_are_read() {
    let releases = releases_or_skip("a_larger_store_and_its_own_file_are_read");
    for release in &releases {
        let dir = runtime().block_on(async {
            let member = Member::start(release);
            let mut client = member.client().await;
            for batch in 0..12 {
                let puts: Vec<_> = (0..1000)
                    .map(|n| {
                        let key = format!("/registry/pods/ns{}/pod-{batch}-{n}", n % 7);
                        TxnOp::put(key, vec![b'x'; (n * 37) % 900], None)
                    })
                    .collect();
                client.txn(Txn::new().and_then(puts)).await.unwrap();
            }
            for n in 0..4 {
                let big = vec![b'b'; 1_200_000 + n * 1000];
                client.put(format!("/big/{n}"), big, None).await.unwrap();
            }
            random_work(&mut client, &mut Random(8), 60, 9, 0).await;
            let file = snapshot(&mut client).await;
            let report = look(&file);
            is_clean(&report);
            assert_eq!(
                report.facts.as_ref().unwrap().keys,
                alive(&mut client).await
            );
            status_agrees(&releases, &file, &report);
            assert!(hashes_agree(&mut client, &file, &report, 11).await > 5);
            client.defragment().await.unwrap();
            let file = snapshot(&mut client).await;
            let report = look(&file);
            is_clean(&report);
            status_agrees(&releases, &file, &report);
            member.stop()
        });
        let database = dir.path().join("data/member/snap/db");
        let file = fs::read(&database).unwrap();
        let source = FileSource::open(&database).unwrap();
        let report = inspect(&source, &Options::default(), &|_| {}).unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        assert_eq!(report.trailer, Trailer::Unsealed);
        assert_eq!(report.layer(Layer::Trailer), Some(&LayerState::Unsealed));
        status_agrees(&releases, &file, &report);
    }
}

/// A restore that raises the revision leaves a mark, and a server started on it agrees.
#[test]
fn a_bumped_revision_is_read() {
    let releases = releases_or_skip("a_bumped_revision_is_read");
    for release in releases.iter().filter(|r| r.at_least(5, 10)) {
        runtime().block_on(async {
            let member = Member::start(release);
            let mut client = member.client().await;
            random_work(&mut client, &mut Random(5), 50, 9, 0).await;
            let file = snapshot(&mut client).await;
            let before = look(&file).facts.unwrap();
            drop(member);
            let dir = restore(release, &file);
            let bare = look(&fs::read(dir.path().join("data/member/snap/db")).unwrap());
            let errors: Vec<_> = bare.findings.listed().iter().collect();
            assert_eq!(bare.findings.errors(), 0, "{errors:#?}");
            let facts = bare.facts.unwrap();
            assert!(facts.bumped);
            assert_eq!(facts.revision, before.last_entry_revision + 1000);
            assert_eq!(facts.compact_revision, Some(facts.revision));
            // The mark is not a client's key, though the status of 3.6 and later counts it.
            assert_eq!(facts.keys, before.keys);
            let status = bare.status.expect("a status");
            assert_eq!(status.total_keys, before.keys + 1);
            let member = Member::start_in(release, dir);
            let mut client = member.client().await;
            for round in 0..2 {
                random_work(&mut client, &mut Random(round), 20, 9, 0).await;
                let file = snapshot(&mut client).await;
                let report = look(&file);
                is_clean(&report);
                status_agrees(&releases, &file, &report);
                assert!(hashes_agree(&mut client, &file, &report, 1).await > 5);
                physical(&mut client, report.facts.unwrap().revision - 3).await;
            }
        });
    }
}

fn restore(release: &Release, file: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    fs::write(&path, file).unwrap();
    let status = release
        .utl()
        .args([
            "snapshot",
            "restore",
            "--bump-revision",
            "1000",
            "--mark-compacted",
        ])
        .args([
            "--name",
            "m",
            "--initial-cluster",
            "m=http://127.0.0.1:2380",
        ])
        .args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .arg(Path::new(&path))
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    dir
}
