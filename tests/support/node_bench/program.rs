//! The bench as a program: see `examples/node_bench.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{Api, BenchSpec, Empty, NodeBench};
use crate::certs::PairFiles;
use crate::launch::{EtcdLaunch, LaunchCerts};

const OPTIONS: [&str; 9] = [
    "root",
    "etcd-bin",
    "node",
    "ip",
    "certs",
    "plain",
    "initial-cluster",
    "empty",
    "api",
];

/// Runs until a signal comes; 2 for arguments that make no sense.
pub fn run(arguments: &[String]) -> ExitCode {
    let spec = match options(arguments).and_then(|options| spec(&options)) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("node_bench: {error}");
            return ExitCode::from(2);
        }
    };
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("starting tokio");
    executor.block_on(async {
        // Before anything is started, so that no signal is missed.
        let mut terminate = signal(SignalKind::terminate()).expect("waiting for SIGTERM");
        let mut interrupt = signal(SignalKind::interrupt()).expect("waiting for SIGINT");
        let bench = NodeBench::start(spec);
        println!("READY {}", bench.socket().display());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        bench.stop();
    });
    ExitCode::SUCCESS
}

/// `--name value` or `--name=value`.
fn options(arguments: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let name = word
            .strip_prefix("--")
            .ok_or_else(|| format!("expected an option, found {word:?}"))?;
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if name == "plain" => (name, String::new()),
            None => {
                let value = words
                    .next()
                    .ok_or_else(|| format!("{word} lacks a value"))?;
                (name, value.clone())
            }
        };
        if !OPTIONS.contains(&name) {
            return Err(format!("no option --{name}"));
        }
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}

fn spec(options: &BTreeMap<String, String>) -> Result<BenchSpec, String> {
    let need = |name: &str| {
        options
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| format!("--{name} is missing"))
    };
    let or = |name: &str, default: &'static str| options.get(name).map_or(default, String::as_str);
    let root = PathBuf::from(need("root")?);
    let (node, ip) = (need("node")?, need("ip")?);
    let plain = options.contains_key("plain");
    let url = |port: u16| {
        let scheme = if plain { "http" } else { "https" };
        format!("{scheme}://{ip}:{port}")
    };
    let alone = format!("{node}={}", url(2380));
    let initial_cluster = options.get("initial-cluster").cloned().unwrap_or(alone);
    let certs = match options.get("certs") {
        _ if plain => None,
        Some(dir) => Some(certs(Path::new(dir), Path::new(dir), node)),
        None => {
            let on_node = root.join("etc/kubernetes/static-pod-resources/etcd-certs");
            let bundle = on_node.join("configmaps/etcd-all-bundles");
            Some(certs(
                &bundle,
                &on_node.join("secrets/etcd-all-certs"),
                node,
            ))
        }
    };
    let mut spec = BenchSpec::new(&root, node);
    spec.empty = match or("empty", "refuse") {
        "refuse" => Empty::Refuse,
        "new" => Empty::New,
        "join" => Empty::Join(initial_cluster.clone()),
        other => return Err(format!("no --empty {other}")),
    };
    spec.api = match or("api", "both") {
        "both" => Api::Both,
        "v1" => Api::V1,
        "v1alpha2" => Api::V1alpha2,
        other => return Err(format!("no --api {other}")),
    };
    spec.etcd = Some(EtcdLaunch {
        program: Path::new(need("etcd-bin")?).join("etcd"),
        name: node.to_owned(),
        client_url: url(2379),
        peer_url: url(2380),
        advertised: url(2380),
        certs,
        initial_cluster,
        data_dir: root.join("var/lib/etcd"),
        log: root.join("etcd.log"),
        extra: Vec::new(),
    });
    Ok(spec)
}

fn certs(bundle: &Path, leaves: &Path, node: &str) -> LaunchCerts {
    let pair = |stem: &str| PairFiles {
        cert: leaves.join(format!("{stem}-{node}.crt")),
        key: leaves.join(format!("{stem}-{node}.key")),
    };
    LaunchCerts {
        ca: bundle.join("server-ca-bundle.crt"),
        serving: pair("etcd-serving"),
        peer: pair("etcd-peer"),
    }
}
