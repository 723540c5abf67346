//! The lines of the pages that cannot run here: what other programs are told has a form that they
//! take.

use super::typed::{section, words};
use crate::project;

/// What a page may have typed besides etcd-dr, and the verbs that may follow; none: anything.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("oc", &["adm", "debug", "delete", "get", "patch", "wait"]),
    ("kubectl", &["delete", "get", "wait"]),
    ("kubeadm", &["certs", "init", "join"]),
    ("systemctl", &["restart", "start", "stop", "is-active"]),
    ("crictl", &["logs", "ps", "stop"]),
    ("etcdctl", &["endpoint", "get", "put", "snapshot"]),
    ("etcd", &[]),
    ("getent", &["ahosts"]),
    ("openssl", &["x509"]),
    ("chroot", &[]),
    ("cp", &[]),
    ("sed", &[]),
    ("mv", &[]),
    ("rm", &[]),
    ("mkdir", &[]),
    ("scp", &[]),
    ("curl", &[]),
    ("shutdown", &[]),
];

/// Resources that `oc` and `kubectl` may be asked for.
const KINDS: &[&str] = &[
    "clusteroperators",
    "clusterversion",
    "csr",
    "etcd",
    "etcd/cluster",
    "kubeapiserver",
    "kubecontrollermanager",
    "kubescheduler",
    "machines",
    "node",
    "nodes",
    "pods",
    "secrets",
    "secret",
];

/// Demands that a line is one that its program takes, as far as that can be seen.
#[track_caller]
pub fn check(line: &str) {
    let (words, _) = words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, rest) = words.split_first().expect("a command");
    let known = PROGRAMS.iter().find(|(name, _)| name == program);
    let (_, verbs) = known.unwrap_or_else(|| panic!("an unknown program: {line}"));
    let plain: Vec<&str> = plain_words(rest);
    if verbs.is_empty() {
        return;
    }
    let verb = plain.first().unwrap_or_else(|| panic!("no verb: {line}"));
    assert!(verbs.contains(verb), "an unknown verb: {line}");
    if !matches!(*program, "oc" | "kubectl") {
        return;
    }
    let object = plain.get(1).unwrap_or_else(|| panic!("no object: {line}"));
    match *verb {
        "adm" => assert!(
            matches!(*object, "wait-for-stable-cluster" | "certificate"),
            "{line}"
        ),
        "debug" => assert!(object.starts_with("node/"), "{line}"),
        _ => assert!(KINDS.contains(object), "an unknown kind: {line}"),
    }
    if *verb == "patch" {
        let at = rest.iter().position(|word| *word == "-p");
        let patch = at.and_then(|at| rest.get(at + 1));
        let patch = patch.unwrap_or_else(|| panic!("no patch: {line}"));
        // A reason that differs each time is the shell's to make.
        let patch = patch.replace("$(date --rfc-3339=ns)", "now");
        let patch: Result<serde_json::Value, _> = serde_json::from_str(&patch);
        assert!(patch.is_ok(), "the patch is no JSON: {line}");
        assert!(rest.contains(&"--type=merge"), "{line}");
    }
}

/// Words that are not options, nor the values of those that take one.
fn plain_words<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    let mut plain = Vec::new();
    let mut skip = false;
    for word in rest {
        if std::mem::take(&mut skip) {
            continue;
        }
        if word.starts_with('-') {
            skip = matches!(
                *word,
                "-n" | "-o" | "-p" | "-l" | "--kubeconfig" | "--name" | "--endpoints"
            );
            continue;
        }
        plain.push(*word);
    }
    plain
}

/// Every line of every block of the documents is one of those.
#[test]
fn every_line_is_etcd_dr_or_has_a_form() {
    let mut seen = 0;
    for file in super::FILES {
        let path = project().join(file);
        let text = std::fs::read_to_string(&path).expect("a document");
        for heading in text.lines().filter_map(|line| line.strip_prefix("## ")) {
            for typed in section(&path, heading) {
                if !typed.line.starts_with("etcd-dr ") {
                    check(&typed.line);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 10, "only {seen} lines");
}

#[test]
fn what_has_no_form() {
    for line in [
        "oc patch etcd cluster --type=merge -p '{\"spec\": {}'",
        "oc patch etcd cluster -p '{}'",
        "oc got nodes",
        "oc get nods",
        "ok get nodes",
        "oc debug master-0",
    ] {
        assert!(std::panic::catch_unwind(|| check(line)).is_err(), "{line}");
    }
    check("oc -n openshift-etcd get pods -l k8s-app=etcd");
}
