//! The one image that every container of the node runs from: etcd, a shell, and the stand-in
//! under the names of all other programs. A `docker-archive` tarball, as containerd imports it
//! (moby/moby, `image/spec/v1.2.md`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use testbench::bins::EtcdBins;
use testbench::process::expect_success;

/// The image's name; the pause container's too.
pub const NAME: &str = "node.test/standin:1";

/// What the shell scripts of manifests and of this image use of busybox.
const APPLETS: [&str; 6] = ["sh", "basename", "cat", "dirname", "rm", "sleep"];
/// Containers whose program the stand-in is, besides `pause`.
const STAND_INS: [&str; 20] = [
    "setup",
    "etcd-ensure-env-vars",
    "etcd-resources-copy",
    "wait-for-host-port",
    "etcdctl",
    "etcd-metrics",
    "etcd-readyz",
    "etcd-rev",
    "kube-apiserver-stand-in",
    "kube-apiserver-cert-syncer",
    "kube-apiserver-cert-regeneration-controller",
    "kube-apiserver-insecure-readyz",
    "kube-apiserver-check-endpoints",
    "kube-controller-manager",
    "cluster-policy-controller",
    "kube-controller-manager-cert-syncer",
    "kube-controller-manager-recovery-controller",
    "kube-scheduler",
    "kube-scheduler-cert-syncer",
    "kube-scheduler-recovery-controller",
];

/// What OpenShift's etcd container learns from `discover-etcd-initial-cluster`. A cluster begins
/// only where a test says so: a restore that left no data must not pass for one that worked.
const ETCD: &str = r#"#!/bin/sh
set -eu
if [ ! -d "$ETCD_DATA_DIR/member" ]; then
    [ -e /etc/kubernetes/begin ] || { echo "no data in $ETCD_DATA_DIR" >&2; exit 1; }
    export ETCD_INITIAL_CLUSTER_STATE=new
fi
export ETCD_NAME="$NODE_master_0_ETCD_NAME"
export ETCD_INITIAL_CLUSTER="$ETCD_NAME=https://$NODE_master_0_IP:2380"
exec /opt/etcd/bin/etcd "$@"
"#;
/// The API server: the real one where a test left it what it needs.
const API_SERVER: &str = r#"#!/bin/sh
real=/var/log/kube-apiserver/real
[ -d "$real" ] || exec kube-apiserver-stand-in
# The API server knows nobody without a name where everything is allowed.
echo test,test,test,system:masters > "$real/tokens.csv"
exec /opt/kube/kube-apiserver \
    --etcd-servers=https://127.0.0.1:2379 --etcd-prefix=/live \
    --etcd-cafile="$real/ca.crt" --etcd-certfile="$real/client.crt" --etcd-keyfile="$real/client.key" \
    --cert-dir="$real/certs" --secure-port=6443 --advertise-address=192.168.10.10 \
    --authorization-mode=AlwaysAllow --service-cluster-ip-range=10.96.0.0/24 \
    --service-account-issuer=https://node.test --token-auth-file="$real/tokens.csv" --service-account-key-file="$real/client.crt" \
    --service-account-signing-key-file="$real/client.key"
"#;
/// `nice` and `ionice`: their options away, and on; an unprivileged container may raise nothing.
const NO_PRIORITY: &str = "#!/bin/sh\nwhile case \"$1\" in -n) shift ;; -*) ;; *) false ;; esac; \
                           do shift; done\nexec \"$@\"\n";

/// Writes the tarball; `tools` is what `scripts/fetch-node.sh` laid down.
pub fn write(file: &Path, tools: &Path, etcd: &EtcdBins) {
    let layer = layer(tools, etcd);
    let digest = hex::encode(Sha256::digest(&layer));
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/bin/pause"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    let mut archive = Builder::new(File::create(file).expect("making the image's file"));
    add(&mut archive, "layer.tar", &layer, 0o644);
    add(
        &mut archive,
        "config.json",
        config.to_string().as_bytes(),
        0o644,
    );
    let manifest = manifest.to_string();
    add(&mut archive, "manifest.json", manifest.as_bytes(), 0o644);
    archive.finish().expect("writing the image");
}

fn layer(tools: &Path, etcd: &EtcdBins) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for program in ["busybox", "standin"] {
        copy(
            &mut archive,
            &tools.join("bin").join(program),
            &format!("bin/{program}"),
        );
    }
    for name in APPLETS {
        link(&mut archive, &format!("bin/{name}"), "busybox");
    }
    for name in STAND_INS.iter().chain(&["pause"]) {
        link(&mut archive, &format!("bin/{name}"), "standin");
    }
    add(&mut archive, "bin/etcd", ETCD.as_bytes(), 0o755);
    add(
        &mut archive,
        "bin/kube-apiserver",
        API_SERVER.as_bytes(),
        0o755,
    );
    copy(
        &mut archive,
        &tools.join("bin/kube-apiserver"),
        "opt/kube/kube-apiserver",
    );
    for name in ["nice", "ionice"] {
        add(
            &mut archive,
            &format!("bin/{name}"),
            NO_PRIORITY.as_bytes(),
            0o755,
        );
    }
    add_etcd(&mut archive, &etcd.etcd);
    archive.into_inner().expect("writing the image's layer")
}

/// The server with what it needs: its own libraries where `fetch-etcd.sh` brought some, else the
/// machine's.
fn add_etcd(archive: &mut Builder<Vec<u8>>, etcd: &Path) {
    copy(archive, etcd, "opt/etcd/bin/etcd");
    let home = etcd
        .parent()
        .and_then(Path::parent)
        .expect("two folders above");
    if home.join("libexec").is_dir() {
        for dir in ["lib", "libexec"] {
            archive
                .append_dir_all(format!("opt/etcd/{dir}"), home.join(dir))
                .expect("adding etcd's libraries");
        }
        return;
    }
    let needed = Command::new("ldd").arg(etcd).output().expect("running ldd");
    if !needed.status.success() {
        // Linked statically.
        return;
    }
    for word in String::from_utf8_lossy(&needed.stdout).split_whitespace() {
        if let Some(below) = word.strip_prefix('/') {
            copy(archive, Path::new(word), below);
        }
    }
}

fn copy(archive: &mut Builder<Vec<u8>>, from: &Path, to: &str) {
    let bytes = std::fs::read(from).unwrap_or_else(|e| panic!("reading {}: {e}", from.display()));
    add(archive, to, &bytes, 0o755);
}

fn add<W: std::io::Write>(archive: &mut Builder<W>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len().try_into().expect("a length"));
    archive
        .append_data(&mut header, name, bytes)
        .expect("adding a file to the image");
}

fn link(archive: &mut Builder<Vec<u8>>, name: &str, target: &str) {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_mode(0o777);
    header.set_size(0);
    archive
        .append_link(&mut header, name, target)
        .expect("adding a link to the image");
}

/// As Debian and OCI call this machine's.
fn architecture() -> String {
    let output = Command::new("dpkg").arg("--print-architecture").output();
    let name = expect_success("dpkg", &output.expect("running dpkg"));
    name.trim().to_owned()
}

/// Every image that the pods of a node name.
pub fn named_by(manifests: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(manifests).expect("listing the manifests") {
        let path: PathBuf = entry.expect("a manifest").path();
        let text = std::fs::read(&path).expect("reading a manifest");
        let pod: serde_json::Value = serde_json::from_slice(&text).expect("a pod in JSON");
        for kind in ["initContainers", "containers"] {
            for container in pod["spec"][kind].as_array().into_iter().flatten() {
                found.push(container["image"].as_str().expect("an image").to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
