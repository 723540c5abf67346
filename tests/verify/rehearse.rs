//! `verify --rehearse`: a real etcd serves a backup, or does something else; and nothing is left of it,
//! whenever etcd-dr is killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use testbench::bins::EtcdBins;
use testbench::campaign;
use testbench::golden::{Run, etcd_dr, run};
use testbench::process::{kill_pid, terminate, wait_for};
use testbench::s3::{BUCKET, S3, variables};

use crate::Bench;

/// A store with one backup, scratch space, and a fake.
struct Stage {
    bench: Bench,
    scratch: PathBuf,
}

impl Stage {
    fn new(bins: &EtcdBins) -> Self {
        let bench = Bench::start(bins);
        bench.backup();
        // Longer than a socket's path may be.
        let scratch = bench.scratch.path().join("x".repeat(100));
        std::fs::create_dir(&scratch).unwrap();
        Self { bench, scratch }
    }

    /// What is typed to rehearse the backup.
    fn words(&self, more: &[&str]) -> Vec<String> {
        let (store, scratch) = (self.bench.store(), &self.scratch);
        let own = ["verify", "latest", "--rehearse", "--progress", "never"];
        let places = [
            "--store",
            store.to_str().unwrap(),
            "--scratch",
            scratch.to_str().unwrap(),
        ];
        let words = own.iter().chain(&places).chain(more);
        words.map(|word| (*word).to_owned()).collect()
    }

    fn rehearse(&self, etcd: &Path, more: &[&str]) -> Run {
        let etcd = etcd.to_str().unwrap();
        run(&self.words(&[&["--etcd", etcd], more].concat()), &[])
    }

    fn listed(&self) -> Value {
        let store = self.bench.store();
        let listed = run(&["list", store.to_str().unwrap(), "-o", "json"], &[]);
        listed.json()["sets"][0]["rehearsed"].clone()
    }

    /// Writes a program that says it is a release, and then does something else.
    fn fake(&self, name: &str, version: &str, script: &str) -> PathBuf {
        let path = self.bench.scratch.path().join(name);
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'etcd Version: {version}'; exit; fi\n{script}\n"
        );
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert_clean(&self.scratch);
    }
}

/// Nothing is left in a scratch folder, and nothing runs there.
#[track_caller]
fn assert_clean(scratch: &Path) {
    let left: Vec<_> = std::fs::read_dir(scratch).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(running_below(scratch), [0; 0]);
}

/// The processes that run in a folder.
fn running_below(dir: &Path) -> Vec<u32> {
    let proc = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = proc.filter_map(|entry| {
        let cwd = std::fs::read_link(entry.path().join("cwd")).ok()?;
        cwd.starts_with(dir).then_some(entry.file_name())
    });
    pids.filter_map(|pid| pid.to_str()?.parse().ok()).collect()
}

fn steps(run: &Run) -> Vec<(String, String)> {
    let document = run.json();
    let steps = document["sets"][0]["rehearsal"]["steps"]
        .as_array()
        .cloned();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = steps.unwrap_or_default();
    let pair = |step: &Value| (text(&step["step"]), text(&step["state"]));
    steps.iter().map(pair).collect()
}

/// The detail of a step.
fn detail(run: &Run, step: &str) -> String {
    let document = run.json();
    let steps = document["sets"][0]["rehearsal"]["steps"]
        .as_array()
        .cloned();
    let steps = steps.unwrap_or_default();
    let found = steps.iter().find(|one| one["step"] == step);
    let found = found.unwrap_or_else(|| panic!("no {step}: {run}"));
    found["detail"].as_str().unwrap().to_owned()
}

const STEPS: [&str; 7] = [
    "start", "members", "revision", "hash-kv", "keys", "write", "compact",
];

#[test]
fn every_release_serves_its_own_backup_and_an_older_line_is_refused() {
    let all = testbench::bins::require_all();
    for bins in all {
        let stage = Stage::new(bins);
        assert_eq!(stage.listed(), Value::Null);
        let good = stage.rehearse(&bins.etcd, &["-o", "json"]).expect(0);
        let document = good.json();
        let rehearsal = &document["sets"][0]["rehearsal"];
        assert_eq!(rehearsal["good"], true);
        assert_eq!(rehearsal["recorded"], true);
        assert_eq!(rehearsal["etcd"]["version"], bins.version.as_str());
        assert_eq!(rehearsal["etcd"]["from"], "given");
        let wanted = STEPS.map(|step| (step.to_owned(), "ok".to_owned()));
        assert_eq!(steps(&good), wanted, "{}", bins.version);
        let listed = stage.listed();
        assert_eq!(listed["good"], true);
        assert_eq!(listed["etcdVersion"], bins.version.as_str());
        assert_eq!(listed["failed"], serde_json::json!([]));
        stage.assert_clean();

        let older = all.iter().find(|other| other.numbers() < (3, 5, 0));
        if let Some(older) = older.filter(|_| bins.numbers() >= (3, 5, 0)) {
            let refused = stage.rehearse(&older.etcd, &[]).expect(5);
            assert!(refused.stderr.contains("[etcd-too-old]"), "{refused}");
            assert!(refused.stderr.contains("--etcd FILE"), "{refused}");
            stage.assert_clean();
        }
        with_authentication(&stage, bins);
    }
}

/// A snapshot of the same etcd with authentication on: everything is asked of a copy in which it is off.
fn with_authentication(stage: &Stage, bins: &EtcdBins) {
    for command in [
        &["user", "add", "root:right"][..],
        &["user", "add", "reader:right"],
        &["role", "add", "reading"],
        &["role", "grant-permission", "reading", "read", "/registry/"],
        &["user", "grant-role", "root", "root"],
        &["user", "grant-role", "reader", "reading"],
        &["auth", "enable"],
    ] {
        stage.bench.cluster.etcdctl_ok(command);
    }
    let file = stage.bench.scratch.path().join("with-users.db");
    let (file, user) = (file.to_str().unwrap(), "--user=root:right");
    let save = [user, "snapshot", "save", file];
    stage.bench.cluster.etcdctl_ok(&save);
    let mut words = stage.words(&["-o", "json", "--etcd", bins.etcd.to_str().unwrap()]);
    file.clone_into(&mut words[1]);
    let served = run(&words, &[]).expect(0);
    let wanted = STEPS.map(|step| (step.to_owned(), "ok".to_owned()));
    assert_eq!(steps(&served), wanted, "{}: {served}", bins.version);
    let how = detail(&served, "start");
    assert!(how.contains("authentication, which is on"), "{how}");
    stage.assert_clean();
}

/// An age identity, in a file: its recipient and the file.
fn identity(file: &Path) -> (String, String) {
    let identity = age::x25519::Identity::generate();
    let secret = identity.to_string();
    std::fs::write(file, age::secrecy::ExposeSecret::expose_secret(&secret)).unwrap();
    let recipient = identity.to_public().to_string();
    (recipient, file.to_str().unwrap().to_owned())
}

#[test]
fn an_encrypted_copy_is_rehearsed_by_whoever_can_decrypt_it_and_recorded_where_it_is() {
    let Some(bins) = testbench::bins::require("3.5") else {
        return;
    };
    let Some(server) = S3::start() else { return };
    // The backup among the fixtures has archives, which are what is encrypted apart.
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for name in ["store", "share", "scratch"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    let (store, scratch) = (dir.join("store"), dir.join("scratch"));
    let fixture = testbench::project().join("fixtures/store/backup-1");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&fixture, &store])
        .status();
    assert!(copied.unwrap().success());
    let share = format!("file://{}", dir.join("share").display());
    let bucket = format!("s3://{BUCKET}/etcd");
    let (reader, reads) = identity(&dir.join("reader"));
    let (keeper, keeps) = identity(&dir.join("keeper"));
    let etcd = bins.etcd.to_str().unwrap();
    let env = variables(server.address);
    let run = |words: &[&str]| run(words, &env);
    let to_both = ["--recipient", &reader];
    let apart = ["--recipient", &reader, "--secrets-recipient", &keeper];
    for (url, form, needed) in [
        (&share, &to_both[..], &[&reads][..]),
        (&bucket, &apart, &[&reads, &keeps]),
    ] {
        let copy = [
            "copy",
            "latest",
            url,
            "--compress",
            "--store",
            store.to_str().unwrap(),
        ];
        run(&[&copy[..], form].concat()).expect(0);
        let listed = || run(&["list", url, "-o", "json"]).expect(0).json()["sets"][0].clone();
        let place = format!("{url}/{}", listed()["name"].as_str().unwrap());
        let own = ["verify", &place, "--rehearse", "--etcd", etcd, "--scratch"];
        let own = [&own[..], &[scratch.to_str().unwrap(), "-o", "json"]].concat();
        let with = |identities: &[&String]| {
            let keys = identities.iter().flat_map(|key| ["--identity", key]);
            run(&own.iter().copied().chain(keys).collect::<Vec<_>>())
        };
        // One identity short, nothing is served and nothing recorded.
        let refused = with(&needed[..needed.len() - 1]).expect(2);
        assert!(refused.stderr.contains("--identity FILE"), "{refused}");
        assert_eq!(listed()["rehearsed"], Value::Null);
        assert_clean(&scratch);

        let served = with(needed).expect(0);
        assert_eq!(served.json()["sets"][0]["rehearsal"]["recorded"], true);
        let wanted = STEPS.map(|step| (step.to_owned(), "ok".to_owned()));
        assert_eq!(steps(&served), wanted);
        assert_eq!(listed()["rehearsed"]["good"], true);
        assert_clean(&scratch);
        // Of the secrets' own recipient it is said, too.
        let apart = needed.len() > 1;
        assert_eq!(refused.stderr.contains("recipients of secrets"), apart);
    }
}

#[test]
fn the_etcd_of_this_node_is_found_and_copies_elsewhere_are_rehearsed_too() {
    let Some(bins) = testbench::bins::require("3.5") else {
        return;
    };
    let stage = Stage::new(&bins);
    // Other suites' etcds may run here: the one of the backup's own release is taken.
    let found = run(&stage.words(&["-o", "json"]), &[]).expect(0);
    let document = found.json();
    let etcd = &document["sets"][0]["rehearsal"]["etcd"];
    assert_eq!(etcd["from"], "node");
    assert_eq!(etcd["version"], bins.version.as_str());

    let url = format!(
        "file://{}",
        stage.bench.scratch.path().join("far").display()
    );
    std::fs::create_dir(stage.bench.scratch.path().join("far")).unwrap();
    let store = stage.bench.store();
    let store = store.to_str().unwrap();
    run(
        &["copy", "latest", &url, "--store", store, "--compress"],
        &[],
    )
    .expect(0);
    let far = run(&["list", &url, "-o", "json"], &[]).expect(0).json();
    let name = far["sets"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!(far["sets"][0]["rehearsed"], Value::Null);
    let (place, etcd) = (format!("{url}/{name}"), bins.etcd.to_str().unwrap());
    let scratch = stage.scratch.to_str().unwrap();
    run(
        &[
            "verify",
            &place,
            "--rehearse",
            "--etcd",
            etcd,
            "--scratch",
            scratch,
        ],
        &[],
    )
    .expect(0);
    let far = run(&["list", &url, "-o", "json"], &[]).expect(0).json();
    assert_eq!(far["sets"][0]["rehearsed"]["good"], true);
    let shown = run(&["list", &url, "-v"], &[]).expect(0);
    let served = format!(", etcd {}", bins.version);
    assert!(shown.stdout.contains(&served), "{shown}");
    stage.assert_clean();
}

#[test]
fn faults_of_etcd_are_findings_and_other_programs_are_refused() {
    let Some(bins) = testbench::bins::require("3.5") else {
        return;
    };
    let stage = Stage::new(&bins);
    let (version, etcd) = (bins.version.as_str(), bins.etcd.display());

    // This program ends at once.
    let fatal = r#"echo '{"level":"fatal","msg":"cannot open","error":"bad CRC"}'; exit 1"#;
    let fake = stage.fake("ends", version, fatal);
    let ended = stage.rehearse(&fake, &["-o", "json"]).expect(3);
    assert_eq!(ended.json()["good"], false);
    let why = "etcd ended (status 1): cannot open: bad CRC";
    assert_eq!(detail(&ended, "start"), why);
    let listed = stage.listed();
    assert_eq!(
        (&listed["good"], &listed["failed"][0]),
        (&false.into(), &"start".into())
    );
    // The Manifest's own verification stays what it was.
    let store = stage.bench.store();
    let verified = run(&["list", store.to_str().unwrap(), "-o", "json"], &[]).json();
    assert_eq!(verified["sets"][0]["verified"]["good"], true);

    // It reads other data than was written: a value changes between the restore and etcd's start.
    let misread = format!("sed -i s/value/vblue/ data/member/snap/db\nexec {etcd} \"$@\"");
    let fake = stage.fake("misreads", version, &misread);
    let other = stage.rehearse(&fake, &["-o", "json"]).expect(3);
    let wrong = detail(&other, "hash-kv");
    assert!(wrong.contains("in the backup and"), "{wrong}");
    assert_eq!(stage.listed()["failed"][0], "hash-kv");

    // It hangs: nothing is known then, and the record stays.
    let fake = stage.fake("hangs", version, "echo I am thinking; exec sleep 600");
    let late = stage
        .rehearse(&fake, &["--rehearse-timeout", "1s"])
        .expect(12);
    assert!(late.stderr.contains("[rehearsal-timeout]"), "{late}");
    assert!(late.stderr.contains("I am thinking"), "{late}");
    assert_eq!(stage.listed()["failed"][0], "hash-kv");
    // It is killed from outside.
    let fake = stage.fake("killed", version, "kill -9 $$");
    let killed = stage.rehearse(&fake, &[]).expect(12);
    assert!(killed.stderr.contains("SIGKILL"), "{killed}");

    // It is not etcd.
    let unusable = stage.rehearse(Path::new("/bin/true"), &[]).expect(5);
    assert!(unusable.stderr.contains("[etcd-unusable]"), "{unusable}");
    let absent = stage.rehearse(Path::new("/nowhere/etcd"), &[]).expect(5);
    assert!(absent.stderr.contains("No such file"), "{absent}");
    stage.assert_clean();

    // A damaged backup is not rehearsed.
    let snapshot = crate::newest_with(&store.join("backup-1"), "db");
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let bad = stage.rehearse(&bins.etcd, &["-o", "json"]).expect(3);
    assert_eq!(bad.json()["sets"][0]["rehearsal"], Value::Null);
    stage.assert_clean();
}

/// Runs etcd in a mount namespace with its own root, as a container does, then what it is given, where no
/// other process is seen.
const CONTAINED: &str = r#"
root=$1; shift
unshare --mount sh -ec 'mount --bind "$0" "$0"; cd "$0"; pivot_root . old; exec /etcd "$@"' "$root" \
    --listen-client-urls=unix://c:1 --listen-peer-urls=unix://p:1 \
    --data-dir=/var/lib/etcd --advertise-client-urls=http://localhost:2379 >/dev/null 2>&1 &
n=0
while ! [ -S "$root/c:1" ]; do sleep 0.1; n=$((n + 1)); [ $n -lt 600 ]; done
"$@"
"#;

#[test]
fn a_containers_own_program_is_run_by_its_own_loader() {
    let Some(bins) = testbench::bins::require("3.5") else {
        return;
    };
    if !rustix::process::geteuid().is_root() || !cfg!(target_arch = "x86_64") {
        return testbench::bins::skip("root for namespaces, on x86-64");
    }
    let stage = Stage::new(&bins);
    // The loader has a name that this machine has not: by this machine's own nothing starts.
    let (loader, own) = ("/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.X");
    let root = stage.bench.scratch.path().join("root");
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    let mut program = std::fs::read(&bins.etcd).unwrap();
    let at = program
        .windows(loader.len())
        .position(|part| part == loader.as_bytes());
    let at = at.expect("a dynamic program");
    program[at..at + own.len()].copy_from_slice(own.as_bytes());
    let altered = stage.fake("altered", "", "");
    std::fs::write(&altered, program).unwrap();
    copy(&altered, "/etcd");
    copy(Path::new(loader), own);
    std::fs::create_dir(root.join("old")).unwrap();
    let needed = Command::new("ldd").arg(&bins.etcd).output().unwrap();
    for word in String::from_utf8_lossy(&needed.stdout).split_whitespace() {
        if word.starts_with('/') && word != loader {
            copy(Path::new(word), word);
        }
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-ec", CONTAINED, "sh"])
        .arg(&root)
        .arg(testbench::golden::binary())
        .arg("--root")
        .arg(&root)
        .args(stage.words(&["-o", "json"]));
    testbench::process::without_etcd_variables(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout).expect(&said);
    let rehearsal = &document["sets"][0]["rehearsal"];
    assert_eq!(rehearsal["good"], true, "{rehearsal}{said}");
    assert_eq!(rehearsal["etcd"]["from"], "node");
    assert_eq!(rehearsal["etcd"]["version"], bins.version.as_str());
    stage.assert_clean();
}

/// Runs a rehearsal to its end, with the seam of its disk set.
fn with_seam(stage: &Stage, etcd: &Path, seam: &str) -> Output {
    let mut command = etcd_dr();
    command.args(stage.words(&["--etcd", etcd.to_str().unwrap()]));
    command.env("ETCD_DR_SEAM", seam).output().unwrap()
}

#[test]
fn killed_at_any_moment_it_leaves_no_process_and_nothing_that_the_next_run_does_not_remove() {
    let Some(bins) = testbench::bins::require("3.5") else {
        return;
    };
    let stage = Stage::new(&bins);
    let count = |seam: String| with_seam(&stage, &bins.etcd, &seam);
    let (calls, whole) = campaign::counted(stage.bench.scratch.path(), count);
    assert!(whole.status.success(), "{whole:?}");
    for call in campaign::calls(1, calls, 8) {
        let output = with_seam(&stage, &bins.etcd, &format!("kill:{call}"));
        assert!(campaign::killed(&output), "{call}: {output:?}");
        gone(&stage);
    }

    // While etcd runs: this one, so that the moment is known.
    let hangs = stage.fake("hangs", &bins.version, "exec sleep 600");
    let start = || {
        let mut command = etcd_dr();
        command.args(stage.words(&["--etcd", hangs.to_str().unwrap()]));
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let running = wait_for("etcd to run", Duration::from_secs(60), || {
            match asleep(&stage.scratch) {
                true => Ok(()),
                false => Err("it does not"),
            }
        });
        running.unwrap();
        child
    };
    let child = start();
    kill_pid(child.id());
    child.wait_with_output().unwrap();
    gone(&stage);
    // Each removes what the one before it has left.
    for signals in [1, 2] {
        let child = start();
        (0..signals).for_each(|_| terminate(child.id()));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        stage.assert_clean();
    }
}

/// Whether the fake has become `sleep` there.
fn asleep(dir: &Path) -> bool {
    let comm = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
    let mut running = running_below(dir).into_iter();
    running.any(|pid| comm(pid).is_ok_and(|name| name == "sleep\n"))
}

/// Waits until no process runs there: the kernel has been asked to kill it.
#[track_caller]
fn gone(stage: &Stage) {
    let gone = wait_for("etcd to end", Duration::from_secs(30), || {
        let running = running_below(&stage.scratch);
        match running.is_empty() {
            true => Ok(()),
            false => Err(format!("{running:?}")),
        }
    });
    gone.unwrap();
}
