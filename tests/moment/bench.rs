//! Random requests to a real server, what it says of its past, and stored objects of Kubernetes.

use std::path::{Path, PathBuf};

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, LeaseGrantOptions, PutOptions,
    Txn, TxnOp,
};
use serde_json::Value;

use testbench::bins::EtcdBins;
use testbench::bulk::block_on;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{self, Run};
use testbench::loopback::Loopback;
use testbench::process::expect_success;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn key(random: &mut Random) -> String {
    let folder = ["a", "b", "c"][random.below(3) as usize];
    format!("/registry/pods/{folder}/{}", random.below(30))
}

fn value(random: &mut Random) -> Vec<u8> {
    let len = [0, 1, 40, 700, 9000][random.below(5) as usize];
    (0..len).map(|_| random.next() as u8).collect()
}

/// One request at random; leases come and go.
async fn request(client: &Client, random: &mut Random, leases: &mut Vec<i64>) {
    let mut kv = client.kv_client();
    match random.below(20) {
        0 => {
            let options = LeaseGrantOptions::new();
            let granted = client.lease_client().grant(36_000, Some(options)).await;
            leases.push(granted.expect("granting a lease").id());
        }
        1 if leases.len() > 1 => {
            let at = random.below(leases.len() as u64) as usize;
            let lease = leases.swap_remove(at);
            let revoked = client.lease_client().revoke(lease).await;
            revoked.expect("revoking a lease");
        }
        2 | 3 => {
            let options = DeleteOptions::new().with_prefix();
            let deleted = kv.delete(key(random), Some(options)).await;
            deleted.expect("deleting a range");
        }
        4 | 5 => {
            kv.delete(key(random), None).await.expect("deleting a key");
        }
        9 => {
            let options = PutOptions::new();
            let (value, options) = match random.below(2) {
                0 => (Vec::new(), options.with_ignore_value()),
                _ => (value(random), options.with_ignore_lease()),
            };
            // Refused if there is no such key.
            let _ = kv.put(key(random), value, Some(options)).await;
        }
        6..=8 => {
            let holds = match random.below(4) {
                0 => Compare::value(key(random), CompareOp::Less, value(random)),
                1 => Compare::version("/registry/pods/a/", CompareOp::Less, 4).with_prefix(),
                _ => Compare::version(key(random), CompareOp::Greater, random.below(3) as i64),
            };
            let several = |random: &mut Random| -> Vec<TxnOp> {
                let first = random.below(30);
                (0..random.below(5))
                    .map(|i| format!("/registry/configmaps/x/{}", (first + i) % 30))
                    .map(|key| match random.below(3) {
                        0 => TxnOp::delete(key, None),
                        _ => TxnOp::put(key, value(random), None::<PutOptions>),
                    })
                    .collect()
            };
            let txn = Txn::new().when([holds]);
            let txn = txn.and_then(several(random)).or_else(several(random));
            kv.txn(txn).await.expect("a transaction");
        }
        _ => {
            let lease = leases.last().filter(|_| random.below(3) == 0);
            let options = lease.map(|lease| PutOptions::new().with_lease(*lease));
            let put = kv.put(key(random), value(random), options).await;
            put.expect("putting a key");
        }
    }
}

/// So many random requests, with a compaction before the last `after` of them.
pub(crate) fn work(cluster: &Cluster, random: &mut Random, before: u64, after: u64) {
    block_on(async {
        let client = cluster.client().await;
        let mut leases = Vec::new();
        for _ in 0..before {
            request(&client, random, &mut leases).await;
        }
        let got = client.kv_client().get("x", None).await.expect("a read");
        let now = got.header().expect("a header").revision();
        let options = CompactionOptions::new().with_physical();
        let compacted = client.kv_client().compact(now - 5, Some(options)).await;
        compacted.expect("a compaction");
        for _ in 0..after {
            request(&client, random, &mut leases).await;
        }
    });
}

/// So many random requests, and no compaction.
pub(crate) fn requests(cluster: &Cluster, random: &mut Random, count: u64) {
    block_on(async {
        let client = cluster.client().await;
        let mut leases = Vec::new();
        for _ in 0..count {
            request(&client, random, &mut leases).await;
        }
    });
}

/// What a server has at a revision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Past {
    pub(crate) kvs: Value,
    pub(crate) hash: u64,
}

impl Past {
    pub(crate) fn of(cluster: &Cluster, revision: i64) -> Self {
        Self {
            kvs: kvs(cluster, Some(revision)),
            hash: hash_kv(cluster, revision),
        }
    }

    /// The leases that keys name.
    pub(crate) fn leases(&self) -> Vec<i64> {
        let kvs = self.kvs.as_array().into_iter().flatten();
        let mut leases: Vec<i64> = kvs.filter_map(|kv| kv["lease"].as_i64()).collect();
        leases.sort_unstable();
        leases.dedup();
        leases
    }
}

/// All keys with values, revisions and leases.
pub(crate) fn kvs(cluster: &Cluster, revision: Option<i64>) -> Value {
    let revision = revision.unwrap_or(0).to_string();
    let text = cluster.etcdctl_ok(&["get", "", "--prefix", "--rev", &revision, "-w", "json"]);
    let answer: Value = serde_json::from_str(&text).expect("etcdctl's JSON");
    answer["kvs"].clone()
}

/// HashKV of the first member at a revision.
pub(crate) fn hash_kv(cluster: &Cluster, revision: i64) -> u64 {
    let revision = revision.to_string();
    let output = cluster.etcdctl_on(0, &["endpoint", "hashkv", "--rev", &revision, "-w", "json"]);
    let text = expect_success("asking for HashKV", &output);
    let json: Value = serde_json::from_str(&text).expect("etcdctl's JSON");
    json[0]["HashKV"]["hash"].as_u64().expect("a hash")
}

/// A cluster without TLS that does not wait for the disk.
pub(crate) fn cluster(bins: &EtcdBins, members: usize) -> Cluster {
    Cluster::start(ClusterSpec::new(bins, members).plain().fast())
}

/// Takes a snapshot through etcdctl.
pub(crate) fn save(cluster: &Cluster) -> PathBuf {
    let to = cluster.scratch().join("snapshot.db");
    let mut command = cluster.etcdctl_command();
    command.env("ETCDCTL_ENDPOINTS", cluster.client_url(0));
    command.args(["snapshot", "save"]).arg(&to);
    expect_success("saving a snapshot", &command.output().expect("etcdctl"));
    to
}

/// Runs `restore` of a snapshot file with JSON output.
pub(crate) fn restore(snapshot: &Path, data_dir: &Path, more: &[&str]) -> Run {
    let (snapshot, data_dir) = (text(snapshot), text(data_dir));
    let mut args = vec!["restore", &snapshot, "--data-dir", &data_dir, "-o", "json"];
    args.extend(more);
    golden::run(&args, &[])
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Starts etcd on data directories made for these names.
pub(crate) fn serve(bins: &EtcdBins, network: Loopback, dirs: &[(String, PathBuf)]) -> Cluster {
    let mut spec = ClusterSpec::new(bins, dirs.len()).plain().fast();
    spec.names = dirs.iter().map(|(name, _)| name.clone()).collect();
    spec.data_dirs = dirs.iter().map(|(_, dir)| dir.clone()).collect();
    spec.network = Some(network);
    Cluster::start(spec)
}

// ---- stored objects of Kubernetes --------------------------------------------------------------

fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::from(number) << 3 | 2);
    bytes.extend(varint(body.len() as u64));
    bytes.extend(body);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A `Time` or a `MicroTime`.
fn time(millis: i64) -> Vec<u8> {
    let mut bytes = vec![0x08];
    bytes.extend(varint((millis / 1000).cast_unsigned()));
    bytes.push(0x10);
    bytes.extend(varint((millis % 1000 * 1_000_000).cast_unsigned()));
    bytes
}

/// An object as the API server stores it: `k8s\0`, then `runtime.Unknown` with the object's bytes.
fn stored(object: &[u8]) -> Vec<u8> {
    [b"k8s\0".to_vec(), field(2, object)].concat()
}

/// A node's Lease that was renewed at a time.
pub(crate) fn lease(millis: i64) -> Vec<u8> {
    let metadata = field(1, &field(1, b"node"));
    stored(&[metadata, field(2, &field(4, &time(millis)))].concat())
}

/// An object that was created at a time, and whose deletion has been requested or not.
pub(crate) fn object(name: &str, created: i64, deleting: Option<i64>) -> Vec<u8> {
    let mut metadata = field(1, name.as_bytes());
    metadata.extend(field(8, &time(created / 1000 * 1000)));
    if let Some(millis) = deleting {
        metadata.extend(field(9, &time(millis)));
    }
    stored(&field(1, &metadata))
}
