//! Where databases come from: buckets, encrypted and signed copies, data directories, other programs' files, a running etcd.

use std::io::Write as _;
use std::process::Command;

use age::secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use testbench::bins::{require, skip};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{Run, etcd_dr, run};
use testbench::node::{self, NodeOptions};
use testbench::s3::{BUCKET, S3, variables};

use super::{Unpacked, fixture};

/// An etcd with some objects, and a folder for everything else.
struct Place {
    cluster: Cluster,
    dir: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
}

fn object(name: &str, value: &str) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": {"k": value}})
        .to_string()
}

impl Place {
    fn new(cluster: Cluster) -> Self {
        let env = vec![
            ("ETCD_DR_PROFILE", "bare".to_owned()),
            ("ETCD_DR_ENDPOINTS", cluster.client_url(0)),
            ("ETCD_DR_NODE_NAME", "cp-0".to_owned()),
        ];
        let dir = tempfile::tempdir().expect("a folder");
        Self { cluster, dir, env }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn put(&self, name: &str, value: &str) {
        let key = format!("/registry/configmaps/shop/{name}");
        self.cluster
            .etcdctl_ok(&["put", &key, &object(name, value)]);
    }

    fn run(&self, args: &[&str]) -> Run {
        run(&[args, &["--progress", "never"]].concat(), &self.env)
    }

    fn value(&self, set: &str, more: &[&str]) -> Value {
        let args = ["get", set, "cm/a", "-n", "shop", "-o", "json"];
        let shown = self.run(&[&args, more].concat()).expect(0);
        let object: Value = serde_json::from_str(&shown.stdout).expect("JSON");
        object["data"]["k"].clone()
    }

    fn differs(&self, first: &str, second: &str, more: &[&str]) -> Value {
        let args = ["diff", first, second, "-n", "shop", "--names", "-o", "json"];
        let shown = self.run(&[&args, more].concat()).expect(11).json();
        let names = shown["objects"].as_array().expect("objects").iter();
        names
            .map(|object| json!([object["difference"], object["name"]]))
            .collect()
    }

    /// A key of ssh-keygen, and a file that says it may sign for any node.
    fn signer(&self) -> Option<(String, String)> {
        let (key, signers) = (self.at("key"), self.at("signers"));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &key])
            .status();
        if !made.is_ok_and(|status| status.success()) {
            skip("there is no ssh-keygen");
            return None;
        }
        let public = std::fs::read_to_string(format!("{key}.pub")).expect("a public key");
        std::fs::write(&signers, format!("* {public}")).expect("a file");
        Some((key, signers))
    }
}

#[test]
fn copies_in_a_bucket_are_read_encrypted_and_signed() {
    let (Some(bins), Some(server)) = (require("3.5"), S3::start()) else {
        return;
    };
    let mut place = Place::new(Cluster::start(ClusterSpec::new(&bins, 1).plain().fast()));
    place.env.extend(variables(server.address));
    let Some((key, signers)) = place.signer() else {
        return;
    };
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let file = place.at("identity");
    std::fs::write(&file, identity.to_string().expose_secret()).expect("a file");
    let (store, url) = (place.at("store"), format!("s3://{BUCKET}/etcd"));
    let copy = ["--copy-to", &url, "--recipient", &recipient];
    for (value, signed) in [("one", true), ("two", false)] {
        place.put("a", value);
        place.put(value, "x");
        let mut args = vec!["backup", "--store", &store, "--force"];
        args.extend(copy);
        if signed {
            args.extend(["--sign-key", &key]);
        }
        place.run(&args).expect(0);
    }
    let list = place
        .run(&["list", "--store", &url, "-o", "json"])
        .expect(0);
    let list = list.json();
    let sets = list["sets"].as_array().expect("sets").iter();
    let mut names: Vec<String> = sets
        .map(|set| format!("{url}/{}", set["name"].as_str().expect("a name")))
        .collect();
    names.sort();
    let [first, second] = names.as_slice() else {
        panic!("{list}");
    };
    // It is not read without the identity, nor without the signature.
    let locked = place.run(&["get", first, "cm"]).expect(2);
    assert!(locked.stderr.contains("--identity FILE"), "{locked}");
    let with = ["--identity", file.as_str()];
    let signed = [&with[..], &["--allowed-signers", &signers]].concat();
    assert_eq!(place.value(first, &signed), "one");
    assert_eq!(place.value(second, &with), "two");
    let refused = place
        .run(&[&["get", second, "cm"], &signed[..]].concat())
        .expect(5);
    assert!(refused.stderr.contains("[unsigned-backup]"), "{refused}");
    let expected = json!([["changed", "a"], ["added", "two"]]);
    assert_eq!(place.differs(first, second, &with), expected);
    // The running etcd, the member's own files once it has stopped, and a snapshot as others name and pack it.
    place.put("later", "x");
    let expected = json!([["changed", "a"], ["added", "later"], ["added", "two"]]);
    assert_eq!(place.differs(first, "live", &with), expected);
    let packed = pack(&place, "Full-00000000-00000042-1790000000.gz");
    assert_eq!(place.value(&packed, &[]), "two");
    assert_eq!(place.differs(first, &packed, &with), expected);
    place.cluster.stop(0);
    let data = place.cluster.data_dir(0).display().to_string();
    let read = place
        .run(&["get", &data, "cm/later", "-n", "shop", "-o", "name"])
        .expect(0);
    assert_eq!(read.stdout, "configmap/later\n");
    assert!(read.stderr.contains("[wal-not-read]"), "{read}");
    assert_eq!(
        place.differs(&data, second, &with),
        json!([["removed", "later"]])
    );
    let left = std::fs::read_dir(place.dir.path())
        .expect("a folder")
        .flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".etcd-dr"));
    assert_eq!(left.count(), 0);
}

/// A snapshot of the running etcd as Gardener's programs name it, packed.
fn pack(place: &Place, name: &str) -> String {
    let (plain, packed) = (place.at("plain.db"), place.at(name));
    place.cluster.etcdctl_ok(&["snapshot", "save", &plain]);
    let file = std::fs::File::create(&packed).expect("a file");
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let bytes = std::fs::read(&plain).expect("the snapshot");
    gzip.write_all(&bytes).expect("packing");
    gzip.finish().expect("packing");
    packed
}

/// A backup without the keys of its objects is no worse than another, and useless for them. That is said when it is taken.
#[test]
fn a_backup_that_cannot_decrypt_itself_says_so() {
    let Some(bins) = require("3.5") else { return };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    let root = node::make(&cluster, 0, &NodeOptions::kubeadm());
    let set = Unpacked::database("two-step");
    let path = set.path();
    let args = ["get", &path, "secret/password", "-n", "shop", "-o", "raw"];
    let stored = etcd_dr().args(args).arg("--show-secrets").output();
    let stored = stored.expect("running etcd-dr").stdout;
    assert!(stored.starts_with(b"k8s:enc:aescbc:v1:2:"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = cluster.client().await;
        for key in ["a", "b"] {
            let key = format!("/registry/secrets/shop/{key}");
            let put = client.kv_client().put(key, stored.clone(), None).await;
            put.expect("a put");
        }
    });
    let store = set.dir.path().join("store").display().to_string();
    let (at, name) = (root.display().to_string(), cluster.name(0));
    let args = [
        "--root",
        &at,
        "--node-name",
        name,
        "backup",
        "--store",
        &store,
        "-o",
        "json",
    ];
    let backup = || run(&args, &[]).expect(0);
    let without = backup();
    let encrypted = &without.json()["encrypted"];
    assert_eq!(encrypted[0]["objects"], 2, "{without}");
    assert!(encrypted[0]["why"].is_string(), "{without}");
    assert!(
        without.stderr.contains("[cannot-decrypt]")
            && without
                .stderr
                .contains("cannot decrypt 2 of its objects, under /registry/, encrypted by aescbc"),
        "{without}"
    );
    // The same with the API server's configuration among the files that are archived.
    let config = root.join("etc/kubernetes/pki/encryption.json");
    std::fs::copy(fixture("two-step-config.json"), config).expect("a configuration");
    let manifest = root.join("etc/kubernetes/manifests/kube-apiserver.yaml");
    let text = std::fs::read_to_string(&manifest).expect("the API server's manifest");
    let line = text.lines().find(|line| line.contains("--etcd-servers="));
    let line = line.expect("a flag");
    let start = line.find("--etcd-servers=").expect("a flag");
    let end = if line.ends_with('"') { "\"" } else { "" };
    let flag = "--encryption-provider-config=/etc/kubernetes/pki/encryption.json";
    let more = format!("{line}\n{}{flag}{end}", &line[..start]);
    std::fs::write(&manifest, text.replace(line, &more)).expect("a manifest");
    let with = backup();
    let encrypted = &with.json()["encrypted"];
    assert_eq!(encrypted[0]["objects"], 2, "{with}");
    assert!(encrypted[0]["why"].is_null(), "{with}");
    assert!(!with.stderr.contains("cannot-decrypt"), "{with}");
}
