//! Where the pages are played: nodes by their names, and words that differ from the pages'.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::form;
use super::typed::{Typed, fits, words};
use crate::node::KEYS;
use testbench::bins::EtcdBins;
use testbench::bulk::Bulk;
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::etcd_dr;
use testbench::kube::OpenShift;
use testbench::node::{self, NodeOptions};
use testbench::node_bench::{Empty, NodeBench};

/// What the pages call nodes and addresses, and what they are here.
pub struct Stage {
    /// The root of each node, by its name.
    roots: BTreeMap<String, PathBuf>,
    /// The pages' words, and those here.
    words: Vec<(String, String)>,
    /// Where the shells stand that the pages' commands are typed into.
    cwd: PathBuf,
}

impl Stage {
    /// The nodes of a cluster; master-0 has 10.0.0.1, and so on.
    pub fn of(cluster: &Cluster) -> Self {
        let names = 0..cluster.size();
        let cwd = cluster.scratch().join("shell");
        std::fs::create_dir_all(&cwd).expect("a folder");
        Self {
            roots: names
                .clone()
                .map(|i| (cluster.name(i).to_owned(), cluster.node_root(i).to_owned()))
                .collect(),
            words: names
                .map(|i| (format!("10.0.0.{}", i + 1), cluster.ip(i).to_string()))
                .collect(),
            cwd,
        }
    }

    /// Another word of the page.
    pub fn word(&mut self, page: &str, here: &str) {
        self.words.push((page.to_owned(), here.to_owned()));
    }

    /// Plays a page: before each line `first` may do what the page's reader does by hand, or what
    /// befalls him.
    #[track_caller]
    pub fn play(&self, page: &[Typed], mut first: impl FnMut(&Typed)) {
        assert!(!page.is_empty(), "a page without a command");
        for typed in page {
            first(typed);
            if typed.line.starts_with("etcd-dr ") {
                self.run(typed);
            } else {
                form::check(&typed.line);
            }
        }
    }

    /// What was typed before the page begins.
    #[track_caller]
    pub fn types(&self, node: &str, line: &str) {
        self.run(&Typed {
            node: node.to_owned(),
            line: line.to_owned(),
            shown: Vec::new(),
            status: 0,
        });
    }

    fn root(&self, node: &str) -> (&str, &Path) {
        let found = match node {
            "" => self.roots.first_key_value(),
            name => self.roots.get_key_value(name),
        };
        let (name, root) = found.unwrap_or_else(|| panic!("there is no node {node:?}"));
        (name, root)
    }

    #[track_caller]
    fn run(&self, typed: &Typed) {
        let (node, root) = self.root(&typed.node);
        let (words, into) = words(&typed.line);
        let args = words[1..].iter().map(|word| self.here(word, root));
        // A page that shows the steps shows the progress; the others show the result.
        let steps = typed.shown.iter().any(|line| line.starts_with("[1/"));
        let progress = if steps { "auto" } else { "never" };
        let mut command = etcd_dr();
        command
            .current_dir(&self.cwd)
            .env("ETCD_DR_DETACH", "never")
            .args(["--node-name", node, "--progress", progress, "--root"])
            .arg(root)
            .args(args);
        let output = command.output().expect("running etcd-dr");
        let mut out = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(file) = into {
            std::fs::write(self.cwd.join(file), &out).expect("a file");
            out.clear();
        }
        let all = format!("{}{out}", String::from_utf8_lossy(&output.stderr));
        let all = self.there(&all);
        println!("{}# {}\n{all}", typed.node, typed.line);
        let status = output.status.code();
        assert_eq!(
            status,
            Some(typed.status),
            "{}# {}\n{all}",
            typed.node,
            typed.line
        );
        let shown: Vec<&str> = all.lines().map(str::trim_end).collect();
        assert!(
            typed.shown.is_empty() || fits(&typed.shown, &shown),
            "{}# {}\nthe page says:\n{}\n\nit was:\n{all}",
            typed.node,
            typed.line,
            typed.shown.join("\n")
        );
    }

    /// A page's word as it is here: paths are the node's.
    fn here(&self, word: &str, root: &Path) -> String {
        let mut word = word.to_owned();
        for (page, here) in self.words.iter().rev() {
            word = word.replace(page, here);
        }
        let at = match word.find("file:///") {
            Some(at) => Some(at + "file://".len()),
            None if word.starts_with('/') => Some(0),
            None => word.find("=/").map(|at| at + 1),
        };
        if let Some(at) = at {
            let (before, path) = word.split_at(at);
            let path = root.join(path.trim_start_matches('/'));
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).expect("a folder");
            }
            return format!("{before}{}", path.display());
        }
        word
    }

    /// What is shown here as a page would have it.
    fn there(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for root in self.roots.values() {
            text = text.replace(&root.display().to_string(), "");
        }
        for (page, here) in &self.words {
            text = text.replace(here, page);
        }
        text
    }
}

/// Three control-plane nodes, each with its kubelet. The kubelets go first.
pub struct Trio {
    pub benches: Vec<Option<NodeBench>>,
    pub cluster: Cluster,
}

impl Trio {
    pub fn start(bins: &EtcdBins, options: &NodeOptions) -> Self {
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 3).fast());
        Bulk::new(KEYS, 64).write(&cluster);
        if options.profile == "openshift" {
            OpenShift::default().write(&cluster);
        }
        let roots = node::make_all(&cluster, options);
        if options.profile == "kubeadm" {
            roots.iter().for_each(|root| containerd(root));
        }
        let mut benches = Vec::new();
        for i in 0..3 {
            benches.push(Some(NodeBench::adopt(&mut cluster, i, |_| {})));
            cluster.wait_member(i);
        }
        Self { benches, cluster }
    }

    pub fn bench(&self, i: usize) -> &NodeBench {
        self.benches[i].as_ref().expect("its kubelet runs")
    }

    /// A node's machine goes, and with it its kubelet and etcd; the disk stays.
    pub fn off(&mut self, i: usize) {
        self.benches[i] = None;
    }

    /// It comes back. etcd's pod joins these members where its data directory is empty.
    pub fn on(&mut self, i: usize, joins: Option<String>) {
        self.off(i);
        self.benches[i] = Some(NodeBench::adopt(&mut self.cluster, i, |spec| {
            if let Some(list) = joins {
                spec.empty = Empty::Join(list);
            }
        }));
    }

    /// `NAME=URL` of the first members.
    pub fn first(&self, count: usize) -> String {
        let members = (0..count).map(|i| {
            let (name, url) = (self.cluster.name(i), self.cluster.peer_url(i));
            format!("{name}={url}")
        });
        members.collect::<Vec<_>>().join(",")
    }

    /// Every member answers and has the keys.
    pub fn assert_whole(&mut self) {
        for i in 0..3 {
            self.cluster.wait_member(i);
        }
        let listed = self.cluster.etcdctl_ok(&["member", "list"]);
        assert_eq!(listed.lines().count(), 3, "{listed}");
        assert_eq!(Bulk::new(KEYS, 64).count_present(&self.cluster), KEYS);
    }
}

/// The stand-in listens where CRI-O does; kubeadm's kubelet names containerd.
pub fn containerd(root: &Path) {
    let run = root.join("run/containerd");
    std::fs::create_dir_all(&run).expect("a folder");
    std::os::unix::fs::symlink("../crio/crio.sock", run.join("containerd.sock")).expect("a link");
}
