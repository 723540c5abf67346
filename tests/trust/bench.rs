//! Stores of real sets, keys of the real ssh-keygen, and runs of the command on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use testbench::golden::{self, Run};

/// The namespace that signatures are for.
pub const NAMESPACE: &str = "etcd-dr";

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A folder with a store in it.
pub struct Bench {
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("store")).expect("a store");
        std::fs::create_dir(dir.path().join("share")).expect("a share");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// A directory that is a store away from the node.
    pub fn url(&self) -> String {
        format!("file://{}", self.path("share").display())
    }

    /// The real set among the fixtures under a number and a time, with a Manifest changed as wanted.
    pub fn set(&self, number: u32, created: &str, edit: impl FnOnce(&mut Value)) -> PathBuf {
        let to = self.store().join(format!("backup-{number}"));
        let copied = Command::new("cp")
            .arg("-a")
            .arg(fixture())
            .arg(&to)
            .status();
        assert!(copied.expect("running cp").success());
        let path = to.join("backup.json");
        let bytes = std::fs::read(&path).expect("a Manifest");
        let mut manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
        manifest["id"] = format!("backup-{number}").into();
        manifest["created"] = created.into();
        edit(&mut manifest);
        std::fs::write(&path, format!("{manifest:#}\n")).expect("a Manifest");
        to
    }

    /// A key pair; the private key's path.
    pub fn key(&self, name: &str, kind: &[&str]) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "", "-f", text(&path)])
            .args(kind)
            .status();
        assert!(made.expect("running ssh-keygen").success());
        path
    }

    /// A file of allowed signers.
    pub fn signers(&self, name: &str, lines: &[(&str, &Path)]) -> PathBuf {
        let path = self.path(name);
        let line = |(principals, key): &(&str, &Path)| {
            let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
            format!("{principals} {public}")
        };
        let all: String = lines.iter().map(line).collect();
        std::fs::write(&path, all).expect("allowed signers");
        path
    }

    /// Runs a command with this store.
    pub fn run(&self, args: &[&str]) -> Run {
        let store = self.store();
        let mut all = args.to_vec();
        all.extend(["--progress", "never", "--store", text(&store)]);
        golden::run(&all, &[])
    }
}

/// Runs a command.
pub fn run(args: &[&str]) -> Run {
    let mut all = args.to_vec();
    all.extend(["--progress", "never"]);
    golden::run(&all, &[])
}

fn fixture() -> PathBuf {
    testbench::project().join("fixtures/store/backup-1")
}

/// The cluster and the node of the fixture.
pub fn origin() -> (String, String) {
    let bytes = std::fs::read(fixture().join("backup.json")).expect("the fixture");
    let manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let cluster = word(&manifest["cluster"]["uuid"]).or(word(&manifest["cluster"]["etcdId"]));
    let node = word(&manifest["node"]["name"]).or(word(&manifest["node"]["host"]));
    (cluster.expect("a cluster"), node.expect("a node"))
}

/// Signs a file with ssh-keygen, which puts `FILE.sig` beside it.
pub fn sign(key: &Path, file: &Path) {
    let signature = PathBuf::from(format!("{}.sig", text(file)));
    // It asks before it replaces one.
    let _ = std::fs::remove_file(signature);
    let signed = Command::new("ssh-keygen")
        .args([
            "-q",
            "-Y",
            "sign",
            "-n",
            NAMESPACE,
            "-f",
            text(key),
            text(file),
        ])
        .stderr(Stdio::null())
        .status();
    assert!(signed.expect("running ssh-keygen").success());
}

/// What ssh-keygen says of a signature.
pub fn stock_verify(signers: &Path, principal: &str, file: &Path, signature: &Path) -> String {
    let input = std::fs::File::open(file).expect("a file");
    let output = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", NAMESPACE, "-I", principal])
        .args(["-f", text(signers), "-s", text(signature)])
        .stdin(input)
        .output()
        .expect("running ssh-keygen");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

impl Bench {
    /// A chain of backups, one for each time, numbered from 1; each arrived when it was taken.
    pub fn chain(&self, times: &[&str], key: Option<&Path>) {
        for (number, created) in (1..).zip(times) {
            self.link(
                number,
                created,
                number.checked_sub(1).filter(|n| *n > 0),
                key,
            );
        }
    }

    /// One backup that follows another.
    pub fn link(&self, number: u32, created: &str, previous: Option<u32>, key: Option<&Path>) {
        let before = previous.map(|number| {
            let name = format!("backup-{number}");
            let sha256 = sha256(&self.store().join(&name).join("backup.json"));
            serde_json::json!({"id": name, "sha256": sha256})
        });
        let dir = self.set(number, created, |manifest| {
            if let Some(before) = before {
                manifest["previous"] = before;
            }
        });
        if let Some(key) = key {
            sign(key, &dir.join("backup.json"));
        }
        touch(&dir.join("backup.json"), created);
    }

    /// Copies a backup to the share, where it arrives at a time.
    pub fn share(&self, number: u32, arrived: &str) {
        let set = format!("backup-{number}");
        self.run(&["copy", &set, &self.url()]).expect(0);
        touch(&self.shared(number).join("backup.json"), arrived);
    }

    /// Where a copy is.
    pub fn shared(&self, number: u32) -> PathBuf {
        let (cluster, node) = origin();
        self.path("share")
            .join(cluster)
            .join(node)
            .join(format!("backup-{number}"))
    }
}

/// SHA-256 of a file, hex.
pub fn sha256(file: &Path) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(std::fs::read(file).expect("a file")))
}

/// Sets a file's time.
pub fn touch(file: &Path, time: &str) {
    let touched = Command::new("touch")
        .args(["-d", time, text(file)])
        .status();
    assert!(touched.expect("running touch").success());
}
