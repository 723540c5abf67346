//! Chains of compare-and-swap, copies of data directories, and servers on what was made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp};
use etcd_dr::change::dir_options::DirOptions;
use etcd_dr::change::survivor::{Outcome, Request, run as restore};
use etcd_dr::context::{Cancel, Context};
use etcd_dr::error::Result;
use etcd_dr::etcd::restore::Bump;
use etcd_dr::event::Silent;
use jiff::Timestamp;

use testbench::bins::EtcdBins;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{Run, run};
use testbench::loopback::Loopback;

/// Pseudo-random numbers (xorshift), so that a round can be told by its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What is known of one chain: a head that counts its links, and the links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The last link that was acknowledged.
    pub(crate) acknowledged: u64,
    /// The last link that was asked for.
    pub(crate) attempted: u64,
}

pub(crate) type Chains = Arc<Mutex<BTreeMap<String, Chain>>>;

fn head(chain: &str) -> String {
    format!("/chains/{chain}/head")
}

fn link(chain: &str, number: u64) -> String {
    format!("/chains/{chain}/links/{number:08}")
}

/// Lengthens a chain until asked to stop, or until no member answers.
pub(crate) async fn lengthen(
    mut client: Client,
    name: String,
    chains: Chains,
    stop: Arc<AtomicBool>,
) {
    let key = head(&name);
    let Ok(Ok(now)) = timeout(client.get(key.clone(), None)).await else {
        return;
    };
    let (mut number, mut revision) = match now.kvs().first() {
        Some(kv) => (kv.value_str().unwrap().parse().unwrap(), kv.mod_revision()),
        None => (0, 0),
    };
    while !stop.load(Ordering::Relaxed) {
        let next: u64 = number + 1;
        chains
            .lock()
            .unwrap()
            .entry(name.clone())
            .or_default()
            .attempted = next;
        let txn = Txn::new()
            .when([Compare::mod_revision(
                key.clone(),
                CompareOp::Equal,
                revision,
            )])
            .and_then([
                TxnOp::put(key.clone(), next.to_string(), None),
                TxnOp::put(link(&name, next), format!("after {number}"), None),
            ]);
        // A request without an answer may have been applied; the next round looks.
        let Ok(Ok(answer)) = timeout(client.txn(txn)).await else {
            return;
        };
        assert!(answer.succeeded(), "{name}: somebody else wrote the head");
        revision = answer.header().unwrap().revision();
        number = next;
        chains
            .lock()
            .unwrap()
            .entry(name.clone())
            .or_default()
            .acknowledged = number;
    }
}

async fn timeout<T>(work: impl Future<Output = T>) -> std::result::Result<T, ()> {
    tokio::time::timeout(Duration::from_secs(4), work)
        .await
        .map_err(|_| ())
}

/// What a server has of the chains: the heads; every chain must be whole.
pub(crate) async fn heads(client: &mut Client) -> BTreeMap<String, u64> {
    let all = client
        .get("/chains/", Some(GetOptions::new().with_prefix()))
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let keys: BTreeMap<String, String> = all
        .kvs()
        .iter()
        .map(|kv| (text(kv.key()), text(kv.value())))
        .collect();
    let mut heads = BTreeMap::new();
    let mut links = 0;
    for (key, value) in &keys {
        let Some(name) = key
            .strip_prefix("/chains/")
            .and_then(|key| key.strip_suffix("/head"))
        else {
            continue;
        };
        let count: u64 = value.parse().unwrap();
        for number in 1..=count {
            let expected = format!("after {}", number - 1);
            let found = keys.get(&link(name, number));
            assert_eq!(found, Some(&expected), "{name}: link {number} of {count}");
        }
        links += count as usize;
        heads.insert(name.to_owned(), count);
    }
    assert_eq!(keys.len(), links + heads.len(), "a link without its head");
    heads
}

/// How many acknowledged writes are missing; what was never asked for must not be there.
pub(crate) fn lost(chains: &BTreeMap<String, Chain>, heads: &BTreeMap<String, u64>) -> u64 {
    let mut lost = 0;
    for (name, chain) in chains {
        let there = heads.get(name).copied().unwrap_or(0);
        assert!(there <= chain.attempted, "{name}: {there} of {chain:?}");
        lost += chain.acknowledged.saturating_sub(there);
    }
    lost
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A client of one member.
pub(crate) async fn client(cluster: &Cluster, i: usize) -> Client {
    Client::connect([cluster.client_url(i)], None)
        .await
        .unwrap()
}

pub(crate) fn context() -> Context {
    Context {
        observer: Arc::new(Silent),
        now: Timestamp::now(),
        cancel: Cancel::default(),
    }
}

pub(crate) fn request(from: &Path, data_dir: &Path) -> Request {
    Request {
        options: DirOptions {
            data_dir: data_dir.to_owned(),
            wal_dir: None,
            bump: Some(Bump::By(0)),
            mark_compacted: false,
            evidence: Vec::new(),
            allow: Vec::new(),
            random: 0x0123_4567_89ab_cdef_7777_0000_0000_0007,
        },
        from: from.to_owned(),
        from_wal: None,
        name: None,
        peer_urls: None,
        cluster_id: None,
    }
}

pub(crate) fn make(request: &Request) -> Result<Outcome> {
    restore(&context(), request)
}

/// Copies a data directory, holes as holes.
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .args(["-r", "--sparse=always", "--preserve=mode,timestamps"])
        .arg(from)
        .arg(to)
        .status();
    assert!(status.unwrap().success());
}

/// Starts a single member on a directory; it must serve.
pub(crate) fn serve(bins: &EtcdBins, name: &str, data_dir: &Path, args: &[&str]) -> Cluster {
    serve_on(Loopback::reserve(), bins, name, data_dir, args)
}

pub(crate) fn serve_on(
    network: Loopback,
    bins: &EtcdBins,
    name: &str,
    data_dir: &Path,
    args: &[&str],
) -> Cluster {
    let mut spec = ClusterSpec::new(bins, 1).plain().fast();
    spec.names = vec![name.to_owned()];
    spec.data_dirs = vec![data_dir.to_owned()];
    spec.network = Some(network);
    spec.extra_args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Cluster::start(spec)
}

/// Runs etcd-dr without looking at this machine.
pub(crate) fn etcd_dr(args: &[&str]) -> Run {
    let mut all = vec!["--profile", "bare", "--progress", "never"];
    all.extend(args);
    run(&all, &[])
}

/// The member ids that a running server lists, and its cluster's id.
pub(crate) fn members(cluster: &Cluster) -> (Vec<u64>, u64) {
    let json: serde_json::Value =
        serde_json::from_str(&cluster.etcdctl_ok(&["member", "list", "-w", "json"])).unwrap();
    let ids = json["members"].as_array().unwrap().iter();
    let mut ids: Vec<u64> = ids.map(|member| member["ID"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    (ids, json["header"]["cluster_id"].as_u64().unwrap())
}

/// Everything a data directory holds, to tell whether anything changed.
pub(crate) fn fingerprint(
    dir: &Path,
) -> BTreeMap<PathBuf, (u64, u32, Option<std::time::SystemTime>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                left.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let sum = crc32c::crc32c(&bytes);
            found.insert(path, (metadata.len(), sum, metadata.modified().ok()));
        }
    }
    found
}
