//! Random requests through a real server, whose database is copied every few of them: from each
//! copy, the log up to each later one gives just that later one.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions, Compare, CompareOp,
    DeleteOptions, GetOptions, LeaseGrantOptions, MemberAddOptions, PutOptions, Txn, TxnOp,
};
use etcd_dr::etcd::apply::{Applied, Base, Collected, Spill, apply};
use etcd_dr::etcd::bbolt::write::{amend, digests, small_bucket};
use etcd_dr::etcd::bbolt::{Meta, Metas, Origin};
use etcd_dr::etcd::hashkv::At;
use etcd_dr::etcd::snapshot::{DatabaseFacts, Options, hash_kv, inspect};
use etcd_dr::etcd::wal::{Log, SnapshotId, Wal};
use etcd_dr::finding::Findings;

use crate::bench::{Random, client, runtime};
use testbench::bins::{EtcdBins, require_turn};
use testbench::cluster::{Cluster, ClusterSpec};

/// Copies of the database a server; each pair is its own log.
const COPIES: usize = 48;
/// Requests between two copies at most.
const REQUESTS: u64 = 14;

fn key(random: &mut Random) -> Vec<u8> {
    let folder = ["/a/", "/b/", "/c"][random.below(3) as usize];
    format!("{folder}{}", random.below(7)).into_bytes()
}

/// The end of a range that begins at a key: behind it, before it, or everything.
fn end(random: &mut Random) -> Vec<u8> {
    match random.below(5) {
        0 => vec![0],
        1 => b"/b".to_vec(),
        2 => b"/a0".to_vec(),
        _ => key(random),
    }
}

fn value(random: &mut Random) -> Vec<u8> {
    let len = [0, 1, 10, 300, 3000][random.below(5) as usize];
    (0..len).map(|_| random.next() as u8).collect()
}

/// What the requests are made of besides chance.
struct World {
    leases: Vec<i64>,
    learners: Vec<u64>,
    revision: i64,
    number: u64,
    /// Whether NOSPACE is raised.
    full: bool,
}

/// How deep transactions are nested.
const DEPTH: u64 = 2;

fn put_options(random: &mut Random, world: &World) -> PutOptions {
    let mut options = PutOptions::new();
    match random.below(8) {
        0 => options = options.with_ignore_value(),
        1 => options = options.with_ignore_lease(),
        2 | 3 if !world.leases.is_empty() => {
            options =
                options.with_lease(world.leases[random.below(world.leases.len() as u64) as usize]);
        }
        4 => options = options.with_prev_key(),
        _ => {}
    }
    options
}

fn delete_options(random: &mut Random) -> DeleteOptions {
    match random.below(3) {
        0 => DeleteOptions::new(),
        1 => DeleteOptions::new().with_prev_key(),
        _ => DeleteOptions::new().with_range(end(random)),
    }
}

fn compare(random: &mut Random, world: &World) -> Compare {
    let op = [
        CompareOp::Equal,
        CompareOp::Greater,
        CompareOp::Less,
        CompareOp::NotEqual,
    ][random.below(4) as usize];
    let near = world.revision - random.below(6) as i64;
    let compare = match random.below(5) {
        0 => Compare::version(key(random), op, random.below(4) as i64),
        1 => Compare::create_revision(key(random), op, near * random.below(2) as i64),
        2 => Compare::mod_revision(key(random), op, near * random.below(2) as i64),
        3 => Compare::value(key(random), op, value(random)),
        _ => {
            let lease = world.leases.first().copied().unwrap_or(0);
            Compare::lease(key(random), op, lease * random.below(2) as i64)
        }
    };
    match random.below(4) {
        0 => compare.with_range(end(random)),
        _ => compare,
    }
}

fn ops(random: &mut Random, world: &World, depth: u64) -> Vec<TxnOp> {
    // What releases do differently is left to its own test: puts within while NOSPACE is
    // raised, and ranges of the outermost transaction at revisions that are not there.
    let outermost = depth == DEPTH;
    // No key may be put twice in a transaction; a server refuses that before it is logged.
    let mut seen = BTreeSet::new();
    let mut ops = Vec::new();
    for _ in 0..random.below(4) {
        match random.below(7) {
            0..=2 if outermost || !world.full => {
                let key = key(random);
                if seen.insert(key.clone()) {
                    let value = value(random);
                    let options = put_options(random, world);
                    ops.push(TxnOp::put(key, value, Some(options)));
                }
            }
            3 => {
                let key = [b"/z".to_vec(), key(random)].concat();
                ops.push(TxnOp::delete(key, Some(delete_options(random))));
            }
            4 => {
                let revision = match random.below(3) {
                    0 => 0,
                    _ if outermost => 0,
                    _ => world.revision + 2 - random.below(8) as i64,
                };
                let options = GetOptions::new().with_revision(revision.max(0));
                ops.push(TxnOp::get(key(random), Some(options)));
            }
            5 if depth > 0 => ops.push(TxnOp::txn(txn(random, world, depth - 1))),
            _ => {
                if seen.is_empty() {
                    ops.push(TxnOp::delete(key(random), None));
                    return ops;
                }
            }
        }
    }
    ops
}

fn txn(random: &mut Random, world: &World, depth: u64) -> Txn {
    let compares: Vec<_> = (0..random.below(3))
        .map(|_| compare(random, world))
        .collect();
    Txn::new()
        .when(compares)
        .and_then(ops(random, world, depth))
        .or_else(ops(random, world, depth))
}

/// Sends one request; errors are answers too. Says what it was.
async fn send(client: &mut Client, random: &mut Random, world: &mut World) -> &'static str {
    world.number += 1;
    match random.below(40) {
        0..=11 => {
            let (key, value) = (key(random), value(random));
            let options = put_options(random, world);
            let ignores = client.put(key, value, Some(options)).await;
            if let Ok(answer) = ignores {
                world.revision = answer.header().unwrap().revision();
            }
            "put"
        }
        12..=17 => {
            let options = delete_options(random);
            let _ = client.delete(key(random), Some(options)).await;
            "delete"
        }
        18..=30 => {
            let txn = txn(random, world, DEPTH);
            if let Ok(answer) = client.txn(txn).await {
                world.revision = answer.header().unwrap().revision();
            }
            "txn"
        }
        31 | 32 => {
            let id = 1000 + world.number as i64;
            let options = LeaseGrantOptions::new().with_id(id);
            let granted = client.lease_grant(50_000, Some(options)).await;
            world.leases.extend(granted.ok().map(|lease| lease.id()));
            "grant"
        }
        33 | 34 if !world.leases.is_empty() => {
            let which = random.below(world.leases.len() as u64) as usize;
            let lease = world.leases.swap_remove(which);
            let _ = client.lease_revoke(lease).await;
            "revoke"
        }
        35 => {
            let at = (world.revision - random.below(20) as i64).max(1);
            let physical = CompactionOptions::new().with_physical();
            let _ = client.compact(at, Some(physical)).await;
            "compact"
        }
        36 => {
            let member = AlarmOptions::new();
            let action = [
                AlarmAction::Activate,
                AlarmAction::Deactivate,
                AlarmAction::Deactivate,
            ];
            let action = action[random.below(3) as usize];
            world.full = matches!(action, AlarmAction::Activate);
            let _ = client.alarm(action, AlarmType::Nospace, Some(member)).await;
            "alarm"
        }
        37 => {
            let url = format!("http://127.0.0.{}:1", 1 + world.number % 250);
            let options = MemberAddOptions::new().with_is_learner();
            if let Ok(answer) = client.member_add([url], Some(options)).await {
                world.learners.push(answer.member().unwrap().id());
            }
            "member add"
        }
        38 if !world.learners.is_empty() => {
            let url = format!("http://127.0.1.{}:1", 1 + world.number % 250);
            let _ = client.member_update(world.learners[0], [url]).await;
            "member update"
        }
        39 if !world.learners.is_empty() => {
            let _ = client.member_remove(world.learners.remove(0)).await;
            "member remove"
        }
        _ => {
            let _ = client.get(key(random), None).await;
            "range"
        }
    }
}

/// A database at one moment.
struct Copy {
    bytes: Vec<u8>,
    meta: Meta,
    facts: DatabaseFacts,
}

impl Copy {
    fn of(bytes: Vec<u8>) -> Self {
        let report = inspect(&bytes, &Options::default(), &|_| {}).unwrap();
        assert_eq!(
            report.findings.errors(),
            0,
            "{:?}",
            report.findings.listed()
        );
        let meta = meta(&bytes);
        Self {
            facts: report.facts.unwrap(),
            bytes,
            meta,
        }
    }

    fn index(&self) -> u64 {
        self.facts.consistent_index.unwrap()
    }

    fn bucket(&self, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let size = self.bytes.len() as u64;
        let entries = small_bucket(&self.bytes, size, &self.meta, name.as_bytes()).unwrap();
        entries.into_iter().collect()
    }

    fn hash(&self) -> (u32, i64, i64) {
        let hash = hash_kv(&self.bytes, At::default()).unwrap().unwrap();
        (hash.hash, hash.revision, hash.compact_revision)
    }
}

fn meta(bytes: &Vec<u8>) -> Meta {
    let size = bytes.len() as u64;
    let metas = Metas::read(bytes, size, Origin::File, &mut Findings::default());
    metas.unwrap().unwrap().chosen
}

async fn snapshot(client: &mut Client) -> Vec<u8> {
    let mut stream = client.snapshot().await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        bytes.extend_from_slice(piece.blob());
    }
    bytes.truncate(bytes.len() - 32);
    bytes
}

/// A log that ends at an index.
fn cut(log: &Log, end: u64) -> Log {
    let mut log = log.clone();
    log.runs.retain(|run| run.first <= end);
    if let Some(run) = log.runs.last_mut() {
        run.last = run.last.min(end);
    }
    log.changes.retain(|change| change.index <= end);
    log.last = log.last.min(end);
    log
}

/// Applies the log to one copy, up to another one's index: in memory, and in so little that all goes through files.
fn applied(from: &Copy, to: &Copy, wal: &Wal, log: &Log) -> Copy {
    let log = cut(log, to.index());
    let folder = tempfile::tempdir().unwrap();
    let (dir, room) = (folder.path(), 500);
    let [little, all] = [Some(Spill { dir, room }), None].map(|scratch| {
        let base = Base {
            scratch,
            ..base(from)
        };
        let mut written = Collected::default();
        let mut applied = apply(&base, wal, &log, &mut written).unwrap();
        written.add_to(&mut applied.changes);
        applied
    });
    assert_eq!(little, all);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    made_of(from, to, &all)
}

fn base(from: &Copy) -> Base<'_> {
    Base {
        database: &from.bytes,
        meta: &from.meta,
        facts: &from.facts,
        members: &[],
        removed: &[],
        conf_state: None,
        scratch: None,
        stop: &|| Ok(()),
        settled: false,
    }
}

fn made_of(from: &Copy, to: &Copy, applied: &Applied) -> Copy {
    assert_eq!(applied.index, to.index());
    let size = from.bytes.len() as u64;
    let amendment = amend(&from.bytes, size, &from.meta, &applied.changes).unwrap();
    let mut bytes = from.bytes.clone();
    bytes.truncate(amendment.offset as usize);
    bytes.extend_from_slice(&amendment.pages);
    for (page, meta) in amendment.metas.iter().enumerate() {
        let at = page * from.meta.page_size as usize;
        bytes[at..at + meta.len()].copy_from_slice(meta);
    }
    let made = Copy::of(bytes);
    assert_eq!(made.facts.revision, applied.revision);
    made
}

/// Releases from 3.5.1 to before 3.5.20 write a member to the database once and never again, so that its
/// later names and URLs are in the v2 store only; what is made here has them, as later ones do.
fn assert_same_members(made: &Copy, real: &Copy, forgets: bool, what: &str) {
    let (made, real) = (made.bucket("members"), real.bucket("members"));
    match forgets {
        true => assert!(made.keys().eq(real.keys()), "{what}"),
        false => assert_eq!(made, real, "{what}: members"),
    }
}

fn assert_same(made: &Copy, real: &Copy, forgets: bool, what: &str) {
    assert_same_members(made, real, forgets, what);
    for bucket in ["lease", "alarm", "members_removed", "cluster", "auth"] {
        assert_eq!(made.bucket(bucket), real.bucket(bucket), "{what}: {bucket}");
    }
    let (mut ours, mut theirs) = (made.bucket("meta"), real.bucket("meta"));
    // A compaction that the log requests is left to the server.
    let finished = b"finishedCompactRev".as_slice();
    let compacted = ours.get(finished) != theirs.get(finished);
    ours.remove(finished);
    theirs.remove(finished);
    let text = |entries: &BTreeMap<Vec<u8>, Vec<u8>>| -> Vec<(String, String)> {
        let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            (
                key.escape_ascii().to_string(),
                value.escape_ascii().to_string(),
            )
        };
        entries.iter().map(pair).collect()
    };
    assert_eq!(text(&ours), text(&theirs), "{what}");
    assert_eq!(made.hash(), real.hash(), "{what}");
    assert_eq!(made.facts.revision, real.facts.revision, "{what}");
    assert_eq!(made.facts.keys, real.facts.keys, "{what}");
    if !compacted {
        let all = |copy: &Copy| {
            let size = copy.bytes.len() as u64;
            let mut all = digests(&copy.bytes, size, &copy.meta).unwrap();
            all.remove(b"members".as_slice());
            all
        };
        assert_eq!(all(made), all(real), "{what}");
    }
}

fn copies(bins: &EtcdBins, seed: u64) -> (Cluster, Vec<Copy>, BTreeMap<&'static str, u64>) {
    let mut spec = ClusterSpec::new(bins, 1).plain().fast();
    spec.snapshot_count = 100_000;
    let mut cluster = Cluster::start(spec);
    let mut random = Random(seed);
    let mut sent = BTreeMap::new();
    let copies = runtime().block_on(async {
        let mut client = client(&cluster, 0).await;
        let mut world = World {
            leases: Vec::new(),
            learners: Vec::new(),
            revision: 1,
            number: 0,
            full: false,
        };
        let mut copies = Vec::new();
        for _ in 0..COPIES {
            for _ in 0..=random.below(REQUESTS) {
                let what = send(&mut client, &mut random, &mut world).await;
                *sent.entry(what).or_default() += 1;
            }
            // 3.4 writes its consistent index only with a new revision.
            let _ = client
                .alarm(AlarmAction::Deactivate, AlarmType::Nospace, None)
                .await;
            world.full = false;
            client.put("/marker", "here", None).await.unwrap();
            copies.push(Copy::of(snapshot(&mut client).await));
        }
        copies
    });
    cluster.stop(0);
    (cluster, copies, sent)
}

#[test]
fn the_tail_applied_is_what_a_server_makes_of_it() {
    for (number, bins) in require_turn().iter().enumerate() {
        let seed = 0x5eed_0000_1234_5677 ^ u64::from(std::process::id()) << 24 ^ number as u64;
        let what = format!("{} seed {seed:#x}", bins.version);
        let (cluster, copies, sent) = copies(bins, seed);
        let wal = Wal::list(&cluster.data_dir(0).join("member/wal")).unwrap();
        let scan = wal.scan().unwrap();
        let log = wal.replay(&scan, SnapshotId::default()).unwrap();
        assert_eq!(log.findings, [], "{what}");
        let forgets = ((3, 5, 1)..(3, 5, 20)).contains(&bins.numbers());
        let mut pairs = 0;
        for (i, from) in copies.iter().enumerate() {
            for to in copies.iter().skip(i) {
                let made = applied(from, to, &wal, &log);
                let pair = format!("{what}: from {} to {}", from.index(), to.index());
                assert_same(&made, to, forgets, &pair);
                pairs += 1;
            }
        }
        println!("{what}: {pairs} logs, {sent:?}");
    }
}

/// A request that is refused to the client, and applied by other releases.
async fn doubtful(client: &mut Client, nested: bool) -> bool {
    let put = |key: &str| TxnOp::put(key, "value", None);
    let txn = match nested {
        true => {
            let inner = Txn::new().and_then([put("/a/1")]).or_else([put("/a/2")]);
            let within = Txn::new().and_then([TxnOp::txn(inner)]);
            Txn::new().and_then([TxnOp::delete("/a/3", None), TxnOp::txn(within)])
        }
        false => {
            let future = GetOptions::new().with_revision(1000);
            Txn::new().and_then([put("/a/1"), TxnOp::get("/a/2", Some(future))])
        }
    };
    client.txn(txn).await.is_ok()
}

#[test]
fn what_depends_on_the_patch_release_is_not_guessed() {
    for bins in require_turn() {
        for nested in [true, false] {
            let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).plain().fast());
            let (from, to) = runtime().block_on(async {
                let mut client = client(&cluster, 0).await;
                client.put("/a/3", "before", None).await.unwrap();
                let from = Copy::of(snapshot(&mut client).await);
                if nested {
                    let raise = AlarmAction::Activate;
                    client.alarm(raise, AlarmType::Nospace, None).await.unwrap();
                }
                // Without its own put the outermost one costs nothing to these releases.
                let answered = doubtful(&mut client, nested).await;
                assert_eq!(answered, nested, "{}", bins.version);
                let lower = AlarmAction::Deactivate;
                let _ = client.alarm(lower, AlarmType::Nospace, None).await;
                client.put("/marker", "here", None).await.unwrap();
                (from, Copy::of(snapshot(&mut client).await))
            });
            cluster.stop(0);
            let wal = Wal::list(&cluster.data_dir(0).join("member/wal")).unwrap();
            let log = wal.replay(&wal.scan().unwrap(), SnapshotId::default());
            let log = cut(&log.unwrap(), to.index());
            let failure = apply(&base(&from), &wal, &log, &mut Collected::default());
            let failure = failure.unwrap_err();
            assert_eq!(failure.refusal(), Some("unknown-entry"), "{failure}");
        }
    }
}
