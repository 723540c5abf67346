//! A client that holds a cache, as every controller and kubelet does, through a restore and back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, WatchOptions};

use super::node::{Node, etcd};
use testbench::bins::EtcdBins;
use testbench::bulk;
use testbench::cluster::Cluster;
use testbench::node::NodeOptions;
use testbench::node_bench::Lie;
use testbench::process::wait_for;

/// What it holds: each key's value and the revision that it was written at.
type Cache = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

/// How long it may hold what is not so: it looks for a lost connection every quarter of a second.
const SOON: Duration = Duration::from_secs(10);

/// Lists once, and then watches; it lists again only when it is told that what it has seen is
/// compacted. A lost connection makes it watch from where it was.
pub(crate) struct Watcher {
    cache: Arc<Mutex<Cache>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(cluster: &Cluster, member: usize) -> Self {
        let endpoint = cluster.client_url(member);
        let options = cluster.client_options();
        let cache = Arc::new(Mutex::new(Cache::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (held, stopped) = (Arc::clone(&cache), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("starting tokio");
            runtime.block_on(async {
                let mut from = 0;
                while !stopped.load(Ordering::SeqCst) {
                    let client = Client::connect([endpoint.clone()], Some(options.clone())).await;
                    if let Ok(client) = client {
                        // Whatever ends it, the next connection continues from there.
                        let _ = follow(client, &held, &mut from, &stopped).await;
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            });
        });
        Self {
            cache,
            stop,
            thread: Some(thread),
        }
    }

    /// Demands that it comes to hold what etcd has.
    #[track_caller]
    pub(crate) fn assert_knows(&self, cluster: &Cluster, member: usize, when: &str) {
        let held = wait_for(when, SOON, || {
            let there = listed(cluster, member);
            let held = self.cache.lock().expect("the cache").clone();
            match held == there {
                true => Ok(()),
                false => Err(difference(&held, &there)),
            }
        });
        held.unwrap_or_else(|error| {
            panic!("{when}: the watcher's cache is not what etcd has: {error}")
        });
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn difference(held: &Cache, there: &Cache) -> String {
    let only = |a: &Cache, b: &Cache| -> Vec<String> {
        let keys = a.iter().filter(|(key, value)| b.get(*key) != Some(value));
        keys.map(|(key, (_, at))| format!("{} at {at}", String::from_utf8_lossy(key)))
            .take(5)
            .collect()
    };
    format!(
        "it alone has {:?}, etcd alone {:?}",
        only(held, there),
        only(there, held)
    )
}

fn listed(cluster: &Cluster, member: usize) -> Cache {
    bulk::block_on(async {
        let url = cluster.client_url(member);
        let client = Client::connect([url], Some(cluster.client_options())).await;
        let Ok(mut client) = client else {
            return Cache::new();
        };
        list(&mut client)
            .await
            .map(|(cache, _)| cache)
            .unwrap_or_default()
    })
}

async fn list(client: &mut Client) -> Result<(Cache, i64), etcd_client::Error> {
    let all = GetOptions::new().with_all_keys();
    let got = client.get("", Some(all)).await?;
    let revision = got.header().map_or(0, |header| header.revision());
    let kvs = got.kvs().iter();
    let cache = kvs.map(|kv| (kv.key().to_vec(), (kv.value().to_vec(), kv.mod_revision())));
    Ok((cache.collect(), revision))
}

async fn follow(
    mut client: Client,
    held: &Mutex<Cache>,
    from: &mut i64,
    stopped: &AtomicBool,
) -> Result<(), etcd_client::Error> {
    if *from == 0 {
        let (cache, revision) = list(&mut client).await?;
        *held.lock().expect("the cache") = cache;
        *from = revision + 1;
    }
    let options = WatchOptions::new()
        .with_all_keys()
        .with_start_revision(*from);
    let mut stream = client.watch("", Some(options)).await?;
    while !stopped.load(Ordering::SeqCst) {
        let next = tokio::time::timeout(Duration::from_millis(250), stream.message()).await;
        let Ok(message) = next else { continue };
        let Some(response) = message? else {
            return Ok(());
        };
        if response.canceled() {
            if response.compact_revision() > 0 {
                // What it has seen is gone: it lists again.
                *from = 0;
            }
            return Ok(());
        }
        let mut cache = held.lock().expect("the cache");
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            match event.event_type() {
                EventType::Put => {
                    let value = (kv.value().to_vec(), kv.mod_revision());
                    cache.insert(kv.key().to_vec(), value);
                }
                EventType::Delete => {
                    cache.remove(kv.key());
                }
            }
            *from = (*from).max(kv.mod_revision() + 1);
        }
    }
    Ok(())
}

/// A node whose etcd is killed after a second: one with watchers takes seven to end.
fn hurried(bins: &EtcdBins) -> Node {
    Node::with(bins, &NodeOptions::default(), |spec| {
        spec.grace = Duration::from_secs(1);
    })
}

/// The number in a document's field.
fn number(document: &str, field: &str) -> i64 {
    let json: serde_json::Value = serde_json::from_str(document).expect("JSON");
    json[field]
        .as_i64()
        .unwrap_or_else(|| panic!("{field} in {document}"))
}

#[test]
fn a_client_notices_each_restore_and_each_rollback() {
    for (family, scope) in [("3.5", "control-plane"), ("3.4", "etcd")] {
        let Some(bins) = etcd(family) else { continue };
        let mut node = hurried(&bins);
        node.expect(0, &["backup"]);
        node.cluster.etcdctl_ok(&["put", "later", "1"]);
        let id = node.cluster.status(0)["header"]["cluster_id"].clone();
        let watcher = Watcher::start(&node.cluster, 0);
        watcher.assert_knows(&node.cluster, 0, "before");
        let restore = ["--scope", scope];

        node.restore(&restore);
        node.assert_backed_up_state();
        watcher.assert_knows(&node.cluster, 0, "restored");
        node.cluster.etcdctl_ok(&["put", "restored", "1"]);
        watcher.assert_knows(&node.cluster, 0, "restored and written to");

        let back = ["restore", "--rollback", "--yes", "-o", "json"];
        let (document, _) = node.expect(0, &back);
        let served = number(&document, "served");
        assert!(number(&document, "bumpedTo") > served);
        // It serves as soon as the command ends, and is the cluster that it was.
        assert!(node.cluster.revision(0) > served);
        assert_eq!(node.cluster.status(0)["header"]["cluster_id"], id);
        let later = node
            .cluster
            .etcdctl_ok(&["get", "later", "--print-value-only"]);
        assert_eq!(later.trim(), "1");
        let restored = node.cluster.etcdctl_ok(&["get", "restored"]);
        assert_eq!(restored.trim(), "");
        watcher.assert_knows(&node.cluster, 0, "rolled back");
        node.cluster.etcdctl_ok(&["put", "back", "1"]);
        watcher.assert_knows(&node.cluster, 0, "rolled back and written to");

        // What the first restore has served counts, with and without what it kept.
        node.expect(0, &["restore", "--commit", "--yes"]);
        node.restore(&restore);
        assert!(node.cluster.revision(0) > served);
        watcher.assert_knows(&node.cluster, 0, "restored once more");
    }
}

#[test]
fn a_client_notices_a_restore_that_fails_after_etcd_has_served() {
    let Some(bins) = etcd("3.5") else { return };
    let mut node = hurried(&bins);
    node.expect(0, &["backup"]);
    node.cluster.etcdctl_ok(&["put", "later", "1"]);
    let watcher = Watcher::start(&node.cluster, 0);
    watcher.assert_knows(&node.cluster, 0, "before");
    node.bench.faults(|faults| {
        faults.lie = Lie::Ended;
        faults.pods = vec!["openshift-kube-scheduler".to_owned()];
    });
    let failing = ["restore", "backup-1", "--yes", "--wait", "5s"];
    let (_, told) = node.expect(8, &failing);
    assert!(told.contains("revision is bumped to"), "{told}");
    node.bench.no_faults();
    node.cluster.wait_member(0);
    let later = node
        .cluster
        .etcdctl_ok(&["get", "later", "--print-value-only"]);
    assert_eq!(later.trim(), "1");
    watcher.assert_knows(&node.cluster, 0, "rolled back by itself");
}

#[test]
fn the_journal_of_a_rolled_back_restore_says_what_was_served() {
    let Some(bins) = etcd("3.5") else { return };
    let node = hurried(&bins);
    node.expect(0, &["backup"]);
    node.restore(&[]);
    let (document, _) = node.expect(0, &["restore", "--rollback", "--yes", "-o", "json"]);
    let bumped = number(&document, "bumpedTo");
    node.expect(0, &["restore", "--commit", "--yes"]);
    // The data that knows is lost as well.
    node.bench.take_out("etcd-pod.yaml");
    node.bench.settle();
    std::fs::remove_dir_all(node.path("var/lib/etcd/member")).expect("losing the data");
    let plan = node.expect(0, &["restore", "backup-1", "--dry-run"]).0;
    assert!(plan.contains(&format!("says {bumped}")), "{plan}");
    let small = ["restore", "backup-1", "--yes", "--bump-revision", "1000"];
    assert!(node.expect(5, &small).1.contains("bump-too-small"));
    node.restore(&[]);
    assert!(node.cluster.revision(0) > bumped);
}
