//! Where the container runtime of a node listens.
//!
//! The kubelet's own word counts: its flag `--container-runtime-endpoint`, or
//! `containerRuntimeEndpoint` in its configuration (Kubernetes' reference of KubeletConfiguration). Asking another runtime than the kubelet's would find nothing running where
//! everything runs, so that the usual sockets are tried only where nothing is said, and two of
//! them are one too many.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Fact, Failure, Kind, Result};
use crate::node::kubelet::{self, Field};
use crate::node::layout::NodeLayout;

/// That the kubelet's configuration names no socket.
const UNNAMED: Fact = Fact::Missing("container-runtime");
/// The kubelet's flag.
const FLAG: &str = "--container-runtime-endpoint";

/// The socket of the container runtime that the node's kubelet uses.
///
/// # Errors
/// [`Kind::Unreachable`] if there is no socket, naming every place that was searched, or if two
/// runtimes listen and nothing says which is the kubelet's.
pub fn find_socket(layout: &NodeLayout) -> Result<PathBuf> {
    let mut looked: Vec<String> = Vec::new();
    let field: Field = |config| config.container_runtime_endpoint.as_ref();
    if let Some((endpoint, file)) = kubelet::setting(layout, FLAG, Some(field), &mut looked) {
        let from = layout.node_path(&file);
        let Some(path) = unix_path(&endpoint) else {
            return Err(unreachable(format!(
                "finding the container runtime: expected a Unix socket in {}, found {endpoint:?}",
                from.display()
            )));
        };
        return live_socket(layout, &path)?.ok_or_else(|| {
            unreachable(format!(
                "finding the container runtime: no socket at {}, which {} names",
                path.display(),
                from.display()
            ))
        });
    }
    let mut found = Vec::new();
    for socket in [layout.crio_socket(), layout.containerd_socket()] {
        let path = layout.node_path(&socket);
        // One may be a link to the other.
        let socket = live_socket(layout, &path)?.filter(|socket| !found.contains(socket));
        found.extend(socket);
        looked.push(path.display().to_string());
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(unreachable(format!(
            "finding the container runtime: none of these is its socket or names it: {}",
            looked.join(", ")
        ))
        .with(UNNAMED)),
        several => {
            let name = |path: &PathBuf| layout.node_path(path).display().to_string();
            let names: Vec<String> = several.iter().map(name).collect();
            let what = format!(
                "finding the container runtime: cannot tell which of {} the kubelet uses ({})",
                names.join(" and "),
                looked.join(", ")
            );
            Err(unreachable(what)
                .with(UNNAMED)
                .with(Fact::Candidates(names)))
        }
    }
}

fn unreachable(what: String) -> Failure {
    Failure::new(Kind::Unreachable, what)
}

/// The node path that an endpoint names: `unix:///run/x.sock`, or a bare path as older kubelets
/// take it.
fn unix_path(endpoint: &str) -> Option<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// The local path of a socket; `None` if it does not exist. `/var/run` is `/run` (FHS 3.0), also on
/// a node's file system that lacks the link.
fn live_socket(layout: &NodeLayout, node_path: &Path) -> Result<Option<PathBuf>> {
    let short = node_path
        .strip_prefix("/var/run")
        .map(|below| Path::new("/run").join(below));
    for path in [Ok(node_path.to_owned()), short].into_iter().flatten() {
        let path = layout
            .resolve(&path)
            .map_err(|failure| failure.as_kind(Kind::Unreachable))?;
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_socket()) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    struct Node {
        _dir: tempfile::TempDir,
        layout: NodeLayout,
        listeners: Vec<UnixListener>,
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self {
                layout: NodeLayout::new(dir.path()),
                _dir: dir,
                listeners: Vec::new(),
            }
        }

        fn listen(&mut self, path: &str) -> PathBuf {
            let path = self.layout.host(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            self.listeners.push(UnixListener::bind(&path).unwrap());
            path
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.layout.host(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn fails(&self) -> String {
            let failure = find_socket(&self.layout).unwrap_err();
            assert_eq!(failure.kind(), Kind::Unreachable);
            failure.to_string()
        }
    }

    #[test]
    fn the_kubelets_own_word_counts() {
        for (file, text) in [
            (
                "/var/lib/kubelet/kubeadm-flags.env",
                "KUBELET_KUBEADM_ARGS=\"--container-runtime=remote \
                 --container-runtime-endpoint=unix:///run/x/own.sock --node-ip=10.0.0.1\"\n",
            ),
            (
                "/etc/systemd/system/kubelet.service",
                "[Service]\n# --container-runtime-endpoint=/wrong\nExecStart=/usr/bin/kubelet \\\n   \
                 --container-runtime-endpoint=/var/run/x/own.sock \\\n  --v=2\n",
            ),
            (
                "/usr/lib/systemd/system/kubelet.service.d/10-x.conf",
                "[Service]\nExecStart=/usr/bin/kubelet --container-runtime-endpoint '/run/x/own.sock'",
            ),
            (
                "/etc/kubernetes/kubelet.conf",
                "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///run/x/own.sock\n",
            ),
            (
                "/var/lib/kubelet/config.yaml",
                r#"{"kind":"KubeletConfiguration","containerRuntimeEndpoint":"/run/x/own.sock"}"#,
            ),
        ] {
            let mut node = Node::new();
            node.listen("/run/crio/crio.sock");
            node.listen("/run/containerd/containerd.sock");
            node.write(file, text);
            let refused = node.fails();
            assert!(refused.contains(file), "{refused}");
            let own = node.listen("/run/x/own.sock");
            assert_eq!(find_socket(&node.layout).unwrap(), own, "{file}");
        }
    }

    #[test]
    fn without_it_the_one_usual_socket_is_taken() {
        let mut node = Node::new();
        // A file is not a socket, a kubeconfig no configuration.
        node.write("/run/containerd/containerd.sock", "");
        node.write(
            "/etc/kubernetes/kubelet.conf",
            "kind: Config\ncontainerRuntimeEndpoint: /x\n",
        );
        node.write(
            "/etc/default/kubelet",
            "KUBELET_EXTRA_ARGS=--container-runtime-endpoint=$X",
        );
        let none = node.fails();
        for place in [
            "/etc/default/kubelet",
            "/var/lib/kubelet/kubeadm-flags.env",
            "/var/lib/kubelet/config.yaml",
            "/etc/kubernetes/kubelet.conf",
            "/run/crio/crio.sock",
            "/run/containerd/containerd.sock",
        ] {
            assert!(none.contains(place), "{place} is not in {none}");
        }
        let crio = node.listen("/run/crio/crio.sock");
        assert_eq!(find_socket(&node.layout).unwrap(), crio);
        fs::remove_file(node.layout.containerd_socket()).unwrap();
        node.listen("/run/containerd/containerd.sock");
        let two = node.fails();
        assert!(two.contains("cannot tell which"), "{two}");
        let failure = find_socket(&node.layout).unwrap_err();
        assert!(failure.facts().contains(&UNNAMED), "{failure:?}");
        node.write("/var/lib/kubelet/config.yaml", "kind: [");
        let broken = node.fails();
        assert!(broken.contains("config.yaml (unreadable: "), "{broken}");
    }

    #[test]
    fn other_endpoints_are_refused() {
        let node = Node::new();
        node.write(
            "/var/lib/kubelet/config.yaml",
            "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: tcp://10.0.0.1:1\n",
        );
        assert!(node.fails().contains("tcp://10.0.0.1:1"));
        assert_eq!(unix_path("unix:relative"), None);
    }
}
