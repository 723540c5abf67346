//! A lost member replaced while clients write.
//!
//! A write may fail only by a change of leaders, and is then tried again: a put of the same key
//! and value may be repeated. Of etcd's errors those that a change of leaders makes are
//! `etcdserver: leader changed`, `no leader`, and `request timed out` in its forms ("possibly due to
//! previous leader failure" and others). Anything else fails the test, and so does any failed write
//! once a new leader is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use crate::assert_same_data;
use crate::replace::replace;
use testbench::bins::require_turn;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::process::wait_for;

/// Writes to one member until asked to stop.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

fn is_leader_change(error: &etcd_client::Error) -> bool {
    let said = error.to_string();
    ["leader changed", "no leader", "request timed out"]
        .iter()
        .any(|words| said.contains(words))
}

fn options(cluster: &Cluster) -> ConnectOptions {
    let options = ConnectOptions::new().with_timeout(Duration::from_secs(30));
    let Some(certs) = cluster.certs() else {
        return options;
    };
    let read = |path: std::path::PathBuf| std::fs::read(path).expect("reading a certificate");
    let peer = certs.peer(cluster.name(0));
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read(certs.ca_file())))
        .identity(Identity::from_pem(read(peer.cert), read(peer.key)));
    options.with_tls(tls)
}

impl Writer {
    pub(crate) fn start(cluster: &Cluster, member: usize) -> Self {
        let (stop, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let done = Arc::<AtomicUsize>::default();
        let (endpoint, options) = (cluster.client_url(member), options(cluster));
        let watched = (stop.clone(), failed.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(write(endpoint, options, member, watched))
        });
        Self {
            stop,
            failed,
            done,
            thread,
        }
    }

    /// The keys whose writes were acknowledged.
    pub(crate) fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer ends well")
    }
}

async fn write(
    endpoint: String,
    options: ConnectOptions,
    member: usize,
    (stop, failed, done): (Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>),
) -> Vec<String> {
    let mut kv = Client::connect([endpoint], Some(options))
        .await
        .expect("connecting")
        .kv_client();
    let mut written = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let key = format!("/load/{member}/{:06}", written.len());
        while let Err(error) = kv.put(key.clone(), key.clone(), None).await {
            assert!(
                is_leader_change(&error),
                "a write failed otherwise: {error}"
            );
            failed.fetch_add(1, Ordering::SeqCst);
        }
        done.fetch_add(1, Ordering::SeqCst);
        written.push(key);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    written
}

#[test]
fn no_write_fails_but_by_a_change_of_leaders() {
    for bins in require_turn() {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        // The worst of them: the leader is lost.
        let lost = cluster.leader().expect("a leader");
        let writers: Vec<Writer> = (0..3)
            .filter(|i| *i != lost)
            .map(|i| Writer::start(&cluster, i))
            .collect();
        let failed = || {
            writers
                .iter()
                .map(|w| w.failed.load(Ordering::SeqCst))
                .sum::<usize>()
        };
        let done = || {
            writers
                .iter()
                .map(|w| w.done.load(Ordering::SeqCst))
                .min()
                .unwrap_or(0)
        };
        std::thread::sleep(Duration::from_millis(500));
        cluster.kill(lost);
        cluster.wipe(lost);
        let elected = wait_for("a new leader", Duration::from_secs(90), || {
            cluster.leader().ok_or("none")
        });
        elected.unwrap_or_else(|error| panic!("{error}"));
        let mark = done() + 20;
        wait_for("writes after the election", Duration::from_secs(60), || {
            if done() >= mark { Ok(()) } else { Err(done()) }
        })
        .unwrap_or_else(|error| panic!("{error}"));
        let by_the_election = failed();
        replace(&mut cluster, lost);
        assert_eq!(
            failed(),
            by_the_election,
            "writes failed while the member was replaced"
        );
        let written: usize = writers
            .into_iter()
            .map(|writer| {
                let keys = writer.end();
                let member = keys.first().expect("some").clone();
                let prefix = member.rsplit_once('/').expect("a path").0;
                let found = cluster.etcdctl_ok(&["get", "--prefix", prefix, "--keys-only"]);
                for key in &keys {
                    assert!(
                        found.contains(key.as_str()),
                        "{key} was acknowledged, and is lost"
                    );
                }
                keys.len()
            })
            .sum();
        assert_same_data(&cluster);
        println!(
            "etcd {}: {written} writes, {by_the_election} tried again",
            bins.version
        );
    }
}
