//! Data directories of real servers, read and compared with what the servers said of themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, MemberAddOptions, StatusResponse};
use etcd_dr::etcd::datadir::{self, DbFacts, Layout, LockState, Report};
use etcd_dr::etcd::ids::MemberId;
use etcd_dr::etcd::membership::Member;
use etcd_dr::etcd::wal::EndKind;
use etcd_dr::finding::Severity;

use crate::etcd::{PEER_PORT, Release, Server, Start, address, runtime};

/// The database's facts as the server reported them; reading the database is tested elsewhere.
async fn facts(client: &mut Client) -> (StatusResponse, DbFacts) {
    let members = client.member_list().await.unwrap();
    let members = members
        .members()
        .iter()
        .map(|member| Member {
            id: MemberId(member.id()),
            name: member.name().to_owned(),
            peer_urls: member.peer_urls().to_vec(),
            client_urls: member.client_urls().to_vec(),
            is_learner: member.is_learner(),
        })
        .collect();
    let status = client.status().await.unwrap();
    let facts = DbFacts {
        consistent_index: status.raft_applied_index(),
        term: Some(status.raft_term()),
        members,
        ..DbFacts::default()
    };
    (status, facts)
}

fn assert_agrees(report: &Report, status: &StatusResponse, what: &str) {
    assert_eq!(report.findings, [], "{what}");
    let header = status.header().unwrap();
    let metadata = report.wal.scan.metadata.unwrap();
    assert_eq!(metadata.node, header.member_id(), "{what}");
    assert_eq!(metadata.cluster, header.cluster_id(), "{what}");
    assert_eq!(report.wal.last_entry().index, status.raft_index(), "{what}");
    assert_eq!(report.wal.last_entry().term, status.raft_term(), "{what}");
    assert_eq!(report.wal.hard_state().term, status.raft_term(), "{what}");
    assert_eq!(report.wal.scan.end.unwrap().kind, EndKind::Clean, "{what}");
}

/// Small and large writes: several segments and several snapshots, stopped and killed.
#[test]
fn a_busy_member_is_read_as_it_described_itself() {
    for release in Release::all() {
        for clean in [true, false] {
            let what = format!("{} clean={clean}", release.version);
            let dir = tempfile::tempdir().unwrap();
            let args = ["--snapshot-count", "100", "--max-request-bytes", "4000000"];
            let server = Server::single(&release, &dir.path().join("data"), &args);
            let (status, facts) = runtime().block_on(async {
                let mut client = server.client().await;
                for i in 0..450 {
                    let key = format!("k{}", i % 70);
                    client.put(key, format!("value {i}"), None).await.unwrap();
                }
                for i in 0..36 {
                    let large = vec![b'x'; 1 << 21];
                    client
                        .put(format!("l{}", i % 3), large, None)
                        .await
                        .unwrap();
                }
                client.delete("k1", None).await.unwrap();
                facts(&mut client).await
            });
            let layout = Layout::new(&server.data_dir, None);
            let locks = layout.locks().unwrap();
            assert_eq!(locks.db, LockState::Held, "{what}");
            assert_eq!(locks.wal, LockState::Held, "{what}");
            if clean {
                server.stop();
            } else {
                server.kill();
            }
            let report = datadir::check(&layout, Some(&facts)).unwrap();
            assert_agrees(&report, &status, &what);
            assert!(!report.locks.any_held(), "{what}");
            assert!(report.wal.scan.segments.len() >= 2, "{what}");
            assert!(report.start.unwrap().index >= 400, "{what}");
            assert_eq!(
                report.start.unwrap(),
                report.snaps[0].snap.as_ref().unwrap().id
            );
            assert_eq!(report.raft_members.as_ref().unwrap().voters.len(), 1);
            let store = report.snaps[0].snap.as_ref().unwrap().store.as_ref();
            assert_eq!(store.unwrap().members, facts.members, "{what}");

            // As if the database had stopped ten entries earlier.
            let behind = DbFacts {
                consistent_index: facts.consistent_index - 10,
                ..facts
            };
            let report = datadir::check(&layout, Some(&behind)).unwrap();
            let beyond = report.beyond.unwrap();
            assert_eq!(beyond.tail.committed + beyond.tail.uncommitted, 10);
            assert_eq!(beyond.kinds["put"], 9, "{what}: {:?}", beyond.kinds);
            assert_eq!(beyond.kinds["delete range"], 1);
            assert_eq!(beyond.key_writes, 10);
        }
    }
}

/// A member that joins late gets a snapshot from the leader: its log has a gap before it.
#[test]
fn a_member_that_received_a_snapshot_is_sound() {
    for release in Release::all().into_iter().filter(|r| !r.is_3_4()) {
        let dir = tempfile::tempdir().unwrap();
        let args = [
            "--snapshot-count",
            "50",
            "--experimental-snapshot-catchup-entries",
            "10",
        ];
        let first = Server::single(&release, &dir.path().join("first"), &args);
        let runtime = runtime();
        let second_address = address();
        let peer = format!("http://{second_address}:{PEER_PORT}");
        runtime.block_on(async {
            let mut client = first.client().await;
            for i in 0..300 {
                client.put("k", i.to_string(), None).await.unwrap();
            }
            let learner = MemberAddOptions::new().with_is_learner();
            client
                .member_add([peer.clone()], Some(learner))
                .await
                .unwrap();
        });
        let cluster = format!("default=http://{}:{PEER_PORT},second={peer}", first.address);
        let join = [
            "--initial-cluster",
            &cluster,
            "--initial-cluster-state",
            "existing",
        ];
        let mut second = Server::spawn(
            &release,
            &dir.path().join("second"),
            "second",
            &second_address,
            &[&args[..], &join[..]].concat(),
        );
        let start = second.wait(Duration::from_secs(90));
        assert_eq!(start, Start::Serves, "{}", second.log());
        let (status, mut facts) = runtime.block_on(async {
            let mut client = first.client().await;
            let mut learner = second.client().await;
            for i in 0..60 {
                client.put("k", i.to_string(), None).await.unwrap();
            }
            // The learner answers nothing but questions for its own status.
            let until = Instant::now() + Duration::from_secs(60);
            loop {
                let leads = client.status().await.unwrap().raft_index();
                let follows = learner.status().await.unwrap();
                if follows.raft_applied_index() >= leads {
                    break;
                }
                assert!(Instant::now() < until, "the learner lags");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let status = learner.status().await.unwrap();
            (status, facts(&mut client).await.1)
        });
        facts.consistent_index = status.raft_applied_index();
        second.kill();
        let layout = Layout::new(&dir.path().join("second"), None);
        let report = datadir::check(&layout, Some(&facts)).unwrap();
        assert_agrees(&report, &status, &release.version);
        assert!(report.start.unwrap().index > 300);
        let members = report.raft_members.unwrap();
        assert_eq!((members.voters.len(), members.learners.len()), (1, 1));
    }
}

/// Three members under load, all killed: each disk is sound, as is what `--force-new-cluster`
/// makes of one of them.
#[test]
fn killed_members_and_a_forced_cluster_are_sound() {
    for release in Release::all() {
        let what = &release.version;
        let dir = tempfile::tempdir().unwrap();
        let members: Vec<(String, String)> =
            (1..=3).map(|i| (format!("m{i}"), address())).collect();
        let cluster: Vec<String> = members
            .iter()
            .map(|(name, address)| format!("{name}=http://{address}:{PEER_PORT}"))
            .collect();
        let cluster = cluster.join(",");
        let args = ["--initial-cluster", &cluster, "--snapshot-count", "100"];
        let mut servers: Vec<Server> = members
            .iter()
            .map(|(name, address)| {
                Server::spawn(&release, &dir.path().join(name), name, address, &args)
            })
            .collect();
        for server in &mut servers {
            let start = server.wait(Duration::from_secs(90));
            assert_eq!(start, Start::Serves, "{}", server.log());
        }
        let runtime = runtime();
        runtime.block_on(async {
            let written = Arc::new(AtomicU64::new(0));
            let mut writers = tokio::task::JoinSet::new();
            for (i, server) in servers.iter().enumerate() {
                let mut client = server.client().await;
                let counter = Arc::clone(&written);
                writers.spawn(async move {
                    for n in 0.. {
                        let put = client.put(format!("k{i}"), n.to_string(), None);
                        if put.await.is_ok() {
                            counter.fetch_add(1, Ordering::Relaxed);
                        } else {
                            // There may be no leader yet, or no longer.
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                });
            }
            let until = Instant::now() + Duration::from_secs(180);
            while written.load(Ordering::Relaxed) < 600 {
                assert!(Instant::now() < until, "{what}: too slow");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            servers.drain(..).for_each(Server::kill);
        });
        let reports: Vec<Report> = members
            .iter()
            .map(|(name, _)| {
                datadir::check(&Layout::new(&dir.path().join(name), None), None).unwrap()
            })
            .collect();
        for report in &reports {
            assert!(!has_error(report), "{what}: {:?}", report.findings);
            assert!(report.start.unwrap().index >= 100, "{what}");
            assert_eq!(report.raft_members.as_ref().unwrap().voters.len(), 3);
            assert_eq!(
                report.wal.hard_state().term,
                reports[0].wal.hard_state().term
            );
        }

        let (name, address) = &members[1];
        let data_dir = dir.path().join(name);
        let force = ["--force-new-cluster", "--snapshot-count", "100"];
        let mut server = Server::spawn(&release, &data_dir, name, address, &force);
        let start = server.wait(Duration::from_secs(90));
        assert_eq!(start, Start::Serves, "{}", server.log());
        let (status, facts) = runtime.block_on(async {
            let mut client = server.client().await;
            client.put("after", "force", None).await.unwrap();
            facts(&mut client).await
        });
        server.stop();
        let report = datadir::check(&Layout::new(&data_dir, None), Some(&facts)).unwrap();
        assert_agrees(&report, &status, what);
        assert_eq!(report.raft_members.unwrap().voters.len(), 1, "{what}");
    }
}

fn has_error(report: &Report) -> bool {
    let mut severities = report.findings.iter().map(|finding| finding.severity);
    severities.any(|severity| severity == Severity::Error)
}
