//! Data in quantity: deterministic keys and values, written fast.

use std::time::Duration;

use etcd_client::{PutOptions, Txn, TxnOp};

use crate::cluster::Cluster;

/// A server takes at most so many operations in a transaction (`--max-txn-ops`).
const MAX_OPERATIONS: usize = 128;
/// A server takes requests of at most 1.5 MiB (`--max-request-bytes`); room is left for keys.
const MAX_BYTES: usize = 1 << 20;
/// Transactions under way at once.
const CONCURRENCY: usize = 8;

/// So many keys with values of such a size.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// How many keys.
    pub keys: usize,
    /// Bytes of each value.
    pub value_size: usize,
    /// Distinguishes one content from another for the same keys.
    pub seed: u64,
}

impl Bulk {
    /// With seed 0.
    pub fn new(keys: usize, value_size: usize) -> Self {
        Self {
            keys,
            value_size,
            seed: 0,
        }
    }

    /// The same keys, other values.
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The key of entry `i`, like a ConfigMap's of a hundred to a namespace.
    pub fn key(i: usize) -> String {
        format!(
            "/kubernetes.io/configmaps/project-{:05}/data-{i:07}",
            i / 100
        )
    }

    /// The value of entry `i`: the magic that Kubernetes puts before protobuf, then bytes that do
    /// not compress.
    pub fn value(&self, i: usize) -> Vec<u8> {
        let mut value = b"k8s\0".to_vec();
        // SplitMix64: each state gives eight well-mixed bytes.
        let mut state = self.seed ^ ((i as u64) << 20);
        while value.len() < self.value_size {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            value.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        value.truncate(self.value_size);
        value
    }

    /// Puts all of it. The order in which entries get their revisions varies, and a batch is put
    /// again where a change of leader leaves open whether it was.
    pub fn write(&self, cluster: &Cluster) {
        let batch = (MAX_BYTES / (self.value_size + 128)).clamp(1, MAX_OPERATIONS);
        block_on(async {
            let client = cluster.client().await;
            let mut running = tokio::task::JoinSet::new();
            for start in (0..self.keys).step_by(batch) {
                if running.len() >= CONCURRENCY {
                    running.join_next().await.map(Result::unwrap);
                }
                let bulk = self.clone();
                let mut kv = client.kv_client();
                running.spawn(async move {
                    let end = (start + batch).min(bulk.keys);
                    for tries_left in (0..10).rev() {
                        let puts = (start..end).map(|i| put(Self::key(i), bulk.value(i)));
                        let txn = Txn::new().and_then(puts.collect::<Vec<_>>());
                        match kv.txn(txn).await {
                            Ok(_) => break,
                            Err(error) => assert!(tries_left > 0, "writing keys: {error}"),
                        }
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                });
            }
            while let Some(result) = running.join_next().await {
                result.expect("a batch is written");
            }
        });
    }

    /// How many of the entries a cluster holds exactly; a linearizable read of each.
    pub fn count_present(&self, cluster: &Cluster) -> usize {
        block_on(async {
            let mut kv = cluster.client().await.kv_client();
            let mut present = 0;
            for i in 0..self.keys {
                let got = kv.get(Self::key(i), None).await.expect("reading a key");
                present += usize::from(
                    got.kvs()
                        .first()
                        .is_some_and(|kv| kv.value() == self.value(i)),
                );
            }
            present
        })
    }
}

/// Puts a few keys, in order, one revision each.
pub fn put_all<'a>(cluster: &Cluster, pairs: impl IntoIterator<Item = (&'a str, Vec<u8>)>) {
    let pairs: Vec<_> = pairs.into_iter().collect();
    block_on(async {
        let mut kv = cluster.client().await.kv_client();
        for (key, value) in pairs {
            kv.put(key, value, None).await.expect("writing a key");
        }
    });
}

fn put(key: String, value: Vec<u8>) -> TxnOp {
    TxnOp::put(key, value, None::<PutOptions>)
}

/// Runs a future to its end on its own runtime; on its own thread too, as the caller
/// may be inside another runtime.
pub fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .expect("starting a runtime")
                    .block_on(future)
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
