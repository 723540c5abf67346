//! Journals that an earlier build wrote (`fixtures/journals`), put on nodes of these suites.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::cluster::Cluster;

/// All of them.
pub const ALL: [&str; 6] = [
    "disable-openshift-completed",
    "join-kubeadm-completed",
    "join-openshift-completed",
    "restore-from-data-dir-completed",
    "restore-kubeadm-interrupted",
    "restore-openshift-completed",
];

/// The records of a journal.
pub fn records(name: &str) -> Vec<Value> {
    let path = crate::project().join("fixtures/journals").join(name);
    of(&path)
}

/// The records that an operation's folder has, as [`place`] wrote them.
pub fn read_back(dir: &Path) -> Vec<Value> {
    of(&dir.join("journal"))
}

fn of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a journal");
    let record = |line: &str| {
        let (sum, json) = line.split_once(' ').expect("a sum");
        assert_eq!(sum, format!("{:08x}", crc32c::crc32c(json.as_bytes())));
        serde_json::from_str(json).expect("JSON")
    };
    text.lines().map(record).collect()
}

/// Puts records into an operation's folder below a node's root, and says where that is. The words of
/// the machine that wrote them become this node's.
pub fn place(root: &Path, cluster: Option<&Cluster>, records: &[Value]) -> PathBuf {
    let mut words = vec![("@ROOT@".to_owned(), root.display().to_string())];
    if let Some(cluster) = cluster {
        let ips = (0..cluster.size()).map(|i| (format!("@IP{i}@"), cluster.ip(i).to_string()));
        words.extend(ips);
    }
    if let Some(stamp) = stamp(root) {
        words.push(("@STAMP@".to_owned(), stamp));
    }
    let here = |text: String| {
        words
            .iter()
            .fold(text, |text, (word, here)| text.replace(word, here))
    };
    let id = here(records[0]["id"].as_str().expect("a name").to_owned());
    let dir = root.join("var/lib/etcd-dr").join(id);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&dir).expect("a folder");
    let lines: Vec<String> = records
        .iter()
        .map(|record| {
            let json = here(record.to_string());
            format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
        })
        .collect();
    std::fs::write(dir.join("journal"), lines.concat()).expect("a journal");
    dir
}

/// When the node's first backup was taken, as its files have it in their names.
fn stamp(root: &Path) -> Option<String> {
    let set = root.join("var/lib/etcd-dr/static-pod-backups/backup-1");
    let names = std::fs::read_dir(set).ok()?.flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find_map(|name| Some(name.strip_prefix("snapshot_")?.get(..17)?.to_owned()))
}
