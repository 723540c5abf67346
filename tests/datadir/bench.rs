//! Requests, snapshots of real servers, and snapshots made up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use etcd_client::PutOptions;
use etcd_dr::change::datadir::{Outcome, Request, run};
use etcd_dr::change::dir_options::DirOptions;
use etcd_dr::context::{Cancel, Context};
use etcd_dr::error::Result;
use etcd_dr::etcd::bbolt::write::{Change, Changes, amend};
use etcd_dr::etcd::bbolt::{Metas, Origin};
use etcd_dr::etcd::datadir::{self, DbFacts, Layout};
use etcd_dr::etcd::ids::MemberId;
use etcd_dr::etcd::membership::Member;
use etcd_dr::etcd::restore::Bump;
use etcd_dr::etcd::snapshot::{Options, Report, inspect};
use etcd_dr::event::Collected;
use etcd_dr::finding::Findings;
use jiff::Timestamp;
use serde_json::Value;

use testbench::bins::EtcdBins;
use testbench::bulk::block_on;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::database::model::Store;
use testbench::database::writer::{Random, Shape, seal, write};
use testbench::loopback::Loopback;
use testbench::process::expect_success;

pub(crate) fn context() -> (Context, Arc<Collected>) {
    let events = Arc::new(Collected::default());
    let context = Context {
        observer: events.clone(),
        now: Timestamp::now(),
        cancel: Cancel::default(),
    };
    (context, events)
}

/// A plain restore of one member with etcdutl's defaults.
pub(crate) fn request(snapshot: &Path, data_dir: &Path) -> Request {
    Request {
        options: DirOptions {
            data_dir: data_dir.to_owned(),
            wal_dir: None,
            bump: Some(Bump::By(0)),
            mark_compacted: false,
            evidence: Vec::new(),
            allow: Vec::new(),
            random: 0x0123_4567_89ab_cdef_0000_0000_0000_0007,
        },
        snapshot: snapshot.to_owned(),
        name: "default".into(),
        initial_cluster: "default=http://localhost:2380".into(),
        advertise_peer_urls: "http://localhost:2380".into(),
        token: Some("etcd-cluster".into()),
        skip_hash_check: false,
        target: None,
        recorded: None,
        compact: false,
        authentication_off: false,
        to: None,
        roll_forward: None,
    }
}

pub(crate) fn restore(request: &Request) -> Result<Outcome> {
    run(&context().0, request)
}

/// A folder in memory, if possible: what is tested there needs no disk.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A made-up store as a streamed snapshot.
pub(crate) fn made_up(shape: &Shape, txns: u64) -> (Store, Vec<u8>) {
    let store = Store::random(&mut Random(shape.seed), txns, 40, true);
    let bytes = seal(write(&store.buckets(), shape).bytes);
    (store, bytes)
}

/// The same snapshot with changes in its buckets.
pub(crate) fn changed(snapshot: &[u8], changes: &Changes) -> Vec<u8> {
    let mut bytes = snapshot[..snapshot.len() - 32].to_vec();
    let data = bytes.len() as u64;
    let meta = Metas::read(&bytes, data, Origin::Streamed, &mut Findings::default())
        .unwrap()
        .unwrap()
        .chosen;
    let amendment = amend(&bytes, data, &meta, changes).unwrap();
    bytes.truncate(amendment.offset as usize);
    bytes.extend_from_slice(&amendment.pages);
    for (page, bytes_of) in amendment.metas.iter().enumerate() {
        bytes[page * meta.page_size as usize..][..80].copy_from_slice(bytes_of);
    }
    seal(bytes)
}

pub(crate) fn put(bucket: &str, key: &[u8], value: &[u8]) -> Changes {
    let mut edit = etcd_dr::etcd::bbolt::write::Edit::default();
    edit.put.insert(key.to_vec(), value.to_vec());
    Changes::from([(bucket.as_bytes().to_vec(), Change::Edit(edit))])
}

pub(crate) fn read_database(path: &Path) -> Report {
    let bytes = std::fs::read(path).unwrap();
    inspect(&bytes, &Options::default(), &|_| {}).unwrap()
}

/// Judges a data directory as a whole: nothing at all is wrong with it.
pub(crate) fn judge(data_dir: &Path, wal_dir: Option<&Path>) -> Report {
    let layout = Layout::new(data_dir, wal_dir);
    let report = read_database(&layout.db());
    assert_eq!(report.findings.listed(), [], "{}", data_dir.display());
    let facts = report.facts.as_ref().unwrap();
    let members = facts.members.iter().map(|member| Member {
        id: MemberId(member.id),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    });
    let facts = DbFacts {
        consistent_index: facts.consistent_index.unwrap(),
        term: facts.term,
        members: members.collect(),
        ..DbFacts::default()
    };
    let whole = datadir::check(&layout, Some(&facts)).unwrap();
    assert_eq!(whole.findings, [], "{}", data_dir.display());
    assert_eq!(whole.leftovers, [""; 0]);
    assert_eq!(whole.start.unwrap().index, facts.consistent_index);
    report
}

/// What a server said of its content just before the snapshot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    pub(crate) kvs: Value,
    pub(crate) leases: String,
    pub(crate) users: String,
    pub(crate) roles: String,
}

impl Content {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let json = |args: &[&str]| {
            let text = cluster.etcdctl_ok(args);
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let mut leases: Vec<String> = cluster
            .etcdctl_ok(&["lease", "list"])
            .lines()
            .map(str::to_owned)
            .collect();
        leases.sort();
        Self {
            kvs: json(&["get", "", "--prefix", "-w", "json"])["kvs"].clone(),
            leases: leases.join("\n"),
            users: cluster.etcdctl_ok(&["user", "list"]),
            roles: cluster.etcdctl_ok(&["role", "get", "reader"]),
        }
    }
}

/// A snapshot of a real server.
pub(crate) struct Made {
    pub(crate) bins: EtcdBins,
    pub(crate) snapshot: PathBuf,
    pub(crate) content: Content,
    pub(crate) revision: i64,
    _dir: tempfile::TempDir,
}

/// Takes a snapshot through etcdctl.
pub(crate) fn save(cluster: &Cluster, to: &Path) {
    let mut command = cluster.etcdctl_command();
    command.env("ETCDCTL_ENDPOINTS", cluster.client_url(0));
    command.args(["snapshot", "save"]).arg(to);
    expect_success("saving a snapshot", &command.output().unwrap());
}

/// Keys of many lives, deleted ones, transactions, leases, encrypted values, a user, a role, and a
/// compaction.
fn fill(cluster: &Cluster) {
    block_on(async {
        let client = cluster.client().await;
        let (mut kv, mut lease) = (client.kv_client(), client.lease_client());
        let granted = lease.grant(36_000, None).await.unwrap().id();
        let mut random = Random(9);
        for i in 0..400u64 {
            let key = format!("/kubernetes.io/pods/ns/pod-{}", i % 90);
            let mut value = b"k8s:enc:aescbc:v1:key1:".to_vec();
            value.extend((0..200 + random.below(600)).map(|_| random.next_u64() as u8));
            let options = (i % 7 == 0).then(|| PutOptions::new().with_lease(granted));
            kv.put(key, value, options).await.unwrap();
            if i % 11 == 0 {
                let key = format!("/kubernetes.io/pods/ns/pod-{}", random.below(90));
                kv.delete(key, None).await.unwrap();
            }
        }
        let large = vec![b'x'; 1_200_000];
        kv.put("/large", large, None).await.unwrap();
        let mut auth = client.auth_client();
        auth.role_add("reader").await.unwrap();
        auth.user_add("somebody", "secret", None).await.unwrap();
        auth.user_grant_role("somebody", "reader").await.unwrap();
        kv.compact(200, None).await.unwrap();
        for i in 0..20 {
            kv.put("/after/compaction", i.to_string(), None)
                .await
                .unwrap();
        }
    });
    cluster.etcdctl_ok(&["role", "grant-permission", "reader", "read", "/a", "/b"]);
    // The compaction is done by and by.
    std::thread::sleep(Duration::from_millis(500));
}

/// A snapshot of each release available, made once.
pub(crate) fn made(bins: &EtcdBins) -> Arc<Made> {
    type All = Mutex<Vec<Arc<Made>>>;
    static MADE: OnceLock<All> = OnceLock::new();
    let mut all = MADE.get_or_init(All::default).lock().unwrap();
    if let Some(known) = all.iter().find(|made| made.bins == *bins) {
        return known.clone();
    }
    let cluster = Cluster::start(ClusterSpec::new(bins, 1).plain().fast());
    fill(&cluster);
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("snapshot.db");
    save(&cluster, &snapshot);
    let made = Arc::new(Made {
        bins: bins.clone(),
        snapshot,
        content: Content::of(&cluster),
        revision: cluster.revision(0),
        _dir: dir,
    });
    all.push(made.clone());
    made
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// The same release with a wrapper around its server that turns etcd's own verification on.
pub(crate) fn verifying(bins: &EtcdBins, dir: &Path) -> EtcdBins {
    let etcd = dir.join("etcd-verifying");
    let real = bins.etcd.display();
    script(&etcd, &format!("ETCD_VERIFY=all exec {real} \"$@\""));
    EtcdBins {
        etcd,
        ..bins.clone()
    }
}

/// The same release with a client for which every server is healthy: with an alarm raised or
/// authentication on, one never is.
pub(crate) fn indulgent(bins: &EtcdBins, dir: &Path) -> EtcdBins {
    let etcdctl = dir.join("etcdctl-indulgent");
    let real = bins.etcdctl.display();
    script(
        &etcdctl,
        &format!("case \"$*\" in *'endpoint health'*) exit 0 ;; esac\nexec {real} \"$@\""),
    );
    EtcdBins {
        etcdctl,
        ..bins.clone()
    }
}

/// A network, and the peer URL that its member `i` will have.
pub(crate) fn network() -> (Loopback, impl Fn(usize) -> String) {
    let network = Loopback::reserve();
    let ips: Vec<_> = (0..8).map(|i| network.ip(i)).collect();
    (network, move |i: usize| format!("http://{}:2380", ips[i]))
}

/// Starts servers on data directories that were restored for them.
pub(crate) fn serve(
    bins: &EtcdBins,
    network: Loopback,
    members: &[(String, PathBuf)],
    args: &[&str],
) -> Cluster {
    let mut spec = ClusterSpec::new(bins, members.len()).plain();
    spec.names = members.iter().map(|(name, _)| name.clone()).collect();
    spec.data_dirs = members.iter().map(|(_, dir)| dir.clone()).collect();
    spec.network = Some(network);
    spec.extra_args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Cluster::start(spec)
}

/// The flag that makes members compare their data before they serve.
pub(crate) fn corruption_check(bins: &EtcdBins) -> &'static str {
    if bins.numbers() >= (3, 6, 0) {
        "--feature-gates=InitialCorruptCheck=true"
    } else {
        "--experimental-initial-corrupt-check=true"
    }
}

/// etcdutl's own restore, or that of the etcdctl that still could.
pub(crate) fn reference(bins: &EtcdBins, snapshot: &Path, data_dir: &Path, args: &[&str]) {
    let mut command = Command::new(bins.snapshot_tool());
    command
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "restore"])
        .arg(snapshot)
        .arg("--data-dir")
        .arg(data_dir)
        .args(args);
    expect_success("restoring with etcd's own tool", &command.output().unwrap());
}

/// HashKV of a member at a revision.
pub(crate) fn hash_kv(cluster: &Cluster, i: usize, revision: i64) -> u64 {
    let revision = revision.to_string();
    let output = cluster.etcdctl_on(i, &["endpoint", "hashkv", "--rev", &revision, "-w", "json"]);
    let text = expect_success("asking for HashKV", &output);
    let json: Value = serde_json::from_str(&text).unwrap();
    json[0]["HashKV"]["hash"].as_u64().unwrap()
}
