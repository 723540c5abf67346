//! Finds out which kind of node this is, and why.

use std::net::IpAddr;
use std::path::PathBuf;

use super::component::Component;
use super::endpoint::{Endpoint, split_list};
use super::files::{exists, list, read_bounded};
use super::layout::NodeLayout;
use super::profile::Profile;
use crate::error::Result;

/// Longer files of the kubelet's are not read.
const MAX_KUBELET_FILE: u64 = 1 << 20;

/// What a look at the node found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// The profile to use.
    pub profile: Profile,
    /// Why this one, in sentences.
    pub reasons: Vec<String>,
    /// kubeadm: the API server uses an etcd that is not a static pod of this node.
    pub external_etcd: Option<ExternalEtcd>,
    /// OpenShift, two nodes with fencing: the signs that Pacemaker owns etcd here. Empty
    /// otherwise.
    pub two_node_fencing: Vec<String>,
    /// OpenShift, two nodes with an arbiter: the sign that this is the arbiter.
    pub arbiter: Option<String>,
    /// The node's own file system seems to be mounted here, below the root that was given, as in
    /// a debug pod.
    pub mounted_at: Option<PathBuf>,
}

/// An etcd outside of the node's static pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalEtcd {
    /// The API server's `--etcd-servers`.
    pub servers: Vec<String>,
    /// The manifest that says so.
    pub manifest: PathBuf,
    /// The systemd unit of an etcd that runs on this node, where that is the one.
    pub service: Option<PathBuf>,
}

/// Looks at the node; a configured profile is kept, and only the facts about it are gathered.
pub fn look(layout: &NodeLayout, told: Option<Profile>) -> Result<Detection> {
    look_from(layout, told, &[])
}

/// As [`look`], with the machine's addresses known: an API server that asks an etcd at
/// one of them asks this node's own.
pub fn look_from(
    layout: &NodeLayout,
    told: Option<Profile>,
    addresses: &[IpAddr],
) -> Result<Detection> {
    let (profile, reasons) = match told {
        Some(profile) => (
            profile,
            vec![format!("the profile {profile} was requested")],
        ),
        None => guess(layout)?,
    };
    let mut found = Detection {
        profile,
        reasons,
        external_etcd: None,
        two_node_fencing: Vec::new(),
        arbiter: None,
        mounted_at: None,
    };
    match profile {
        Profile::Openshift => {
            found.two_node_fencing = fencing_signs(layout)?;
            found.arbiter = arbiter_sign(layout);
        }
        Profile::Kubeadm => found.external_etcd = external_etcd(layout, addresses)?,
        Profile::Bare => found.mounted_at = mounted_below(layout)?,
    }
    Ok(found)
}

fn guess(layout: &NodeLayout) -> Result<(Profile, Vec<String>)> {
    let manifest = |component: Component, profile: Profile| {
        let path = match layout.current_manifest(component, profile) {
            Some(current) => Some(current.path),
            None => layout.manifest(component, profile),
        };
        path.map(|path| (profile, path))
    };
    let (openshift, kubeadm) = (Profile::Openshift, Profile::Kubeadm);
    let signs: Vec<(Profile, PathBuf)> = [
        Some((openshift, layout.etcd_env())),
        manifest(Component::Etcd, openshift),
        manifest(Component::KubeApiserver, openshift),
        manifest(Component::Etcd, kubeadm),
        Some((kubeadm, layout.etcd_pki())),
        manifest(Component::KubeApiserver, kubeadm),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut chosen = None;
    let mut reasons = Vec::new();
    for (profile, path) in &signs {
        // What a relative link of a manifest that was moved leads to is elsewhere.
        if !path.is_symlink() && !exists(path)? {
            continue;
        }
        let chosen = *chosen.get_or_insert(*profile);
        let told = layout.node_path(path);
        reasons.push(if chosen == *profile {
            format!("{} exists", told.display())
        } else {
            format!(
                "{} exists too, but {chosen} takes precedence",
                told.display()
            )
        });
    }
    if let Some(profile) = chosen {
        return Ok((profile, reasons));
    }
    reasons.extend(
        signs
            .iter()
            .map(|(_, path)| format!("{} does not exist", layout.node_path(path).display())),
    );
    Ok((Profile::Bare, reasons))
}

fn mounted_below(layout: &NodeLayout) -> Result<Option<PathBuf>> {
    let mount = layout.debug_mount();
    let (profile, _) = guess(&NodeLayout::new(&mount))?;
    Ok((profile != Profile::Bare).then_some(mount))
}

fn fencing_signs(layout: &NodeLayout) -> Result<Vec<String>> {
    let mut signs = Vec::new();
    let configmap = layout.external_etcd_pod();
    if exists(&configmap)? {
        signs.push(format!("{} exists", layout.node_path(&configmap).display()));
    }
    let script = layout.etcd_scripts().join("update-fencing-credentials.sh");
    if exists(&script)? {
        signs.push(format!("{} exists", layout.node_path(&script).display()));
    }
    // A look must not fail because a manifest is broken; whoever needs the manifest says so.
    if let Some(current) = layout.current_manifest(Component::Etcd, Profile::Openshift)
        && let Ok(pod) = layout.read_pod(&current.path)
        && pod.container("etcd").is_none()
    {
        signs.push(format!(
            "the pod in {} has no container \"etcd\"",
            layout.node_path(&current.path).display()
        ));
    }
    // Corosync alone may serve something else, so its files only add to the signs above.
    if !signs.is_empty() {
        for path in layout.pacemaker() {
            if exists(&path)? {
                signs.push(format!("{} exists", layout.node_path(&path).display()));
            }
        }
    }
    Ok(signs)
}

/// The role is among the kubelet's labels for its node (machine-config-operator,
/// `templates/arbiter`); the node's object needs the API.
fn arbiter_sign(layout: &NodeLayout) -> Option<String> {
    const ROLE: &str = "node-role.kubernetes.io/arbiter";
    let drop_ins = layout.kubelet_drop_ins().into_iter();
    let drop_ins = drop_ins.flat_map(|dir| list(&dir).unwrap_or_default());
    let mut files = layout.kubelet_flags().into_iter().chain(drop_ins);
    let named = files.find(|path| {
        let text = read_bounded(path, MAX_KUBELET_FILE).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(ROLE)
    })?;
    Some(format!("{ROLE} in {}", layout.node_path(&named).display()))
}

/// The etcd that the node's API server uses, if that is not a static pod of this node. A node that
/// has etcd's manifest, also one that `disable` keeps, runs its own, whatever the servers are
/// called.
fn external_etcd(layout: &NodeLayout, addresses: &[IpAddr]) -> Result<Option<ExternalEtcd>> {
    let current = |component| layout.current_manifest(component, Profile::Kubeadm);
    let Some(api) = current(Component::KubeApiserver) else {
        return Ok(None);
    };
    let servers = layout.read_pod(&api.path).ok().and_then(|pod| {
        let container = pod.container(Component::KubeApiserver.name());
        let flag = container.or(pod.containers.first())?.flag("etcd-servers")?;
        Some(split_list(flag))
    });
    let servers = servers.unwrap_or_default();
    if servers.is_empty() || current(Component::Etcd).is_some() {
        return Ok(None);
    }
    let own = servers
        .iter()
        .filter_map(|url| Endpoint::parse(url))
        .any(|endpoint| {
            let is = |address: &IpAddr| Some(address.to_canonical()) == endpoint.ip();
            endpoint.is_loopback() || addresses.iter().any(is)
        });
    let mut service = None;
    for unit in layout.etcd_services() {
        if own && service.is_none() && exists(&unit)? {
            service = Some(layout.node_path(&unit));
        }
    }
    if own && service.is_none() {
        return Ok(None);
    }
    Ok(Some(ExternalEtcd {
        servers,
        manifest: layout.node_path(&api.path),
        service,
    }))
}

impl ExternalEtcd {
    /// What is so, in a sentence.
    pub fn told(&self) -> String {
        let servers = self.servers.join(", ");
        match &self.service {
            Some(unit) => format!(
                "etcd is a systemd service of this node ({}), not a static pod; its API server \
                 uses {servers}",
                unit.display()
            ),
            None => format!("etcd does not run on this node: its API server uses {servers}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::for_tests::node;
    use std::fs;

    const ENV: &str =
        "etc/kubernetes/static-pod-resources/etcd-certs/configmaps/etcd-scripts/etcd.env";

    #[test]
    fn each_sign_alone_decides() {
        for (path, profile) in [
            (ENV, Profile::Openshift),
            ("etc/kubernetes/manifests/etcd-pod.yaml", Profile::Openshift),
            ("etc/kubernetes/manifests/etcd.yaml", Profile::Kubeadm),
            ("etc/kubernetes/pki/etcd/ca.crt", Profile::Kubeadm),
            ("etc/hostname", Profile::Bare),
        ] {
            let (_dir, layout) = node(&[(path, "")]);
            let found = look(&layout, None).unwrap();
            assert_eq!(found.profile, profile, "{path}");
            assert!(!found.reasons.is_empty());
        }
        let (_dir, layout) = node(&[(ENV, ""), ("etc/kubernetes/manifests/etcd.yaml", "")]);
        let found = look(&layout, None).unwrap();
        assert_eq!(found.profile, Profile::Openshift);
        assert!(
            found.reasons[1].contains("openshift takes precedence"),
            "{:?}",
            found.reasons
        );
        assert_eq!(
            look(&layout, Some(Profile::Bare)).unwrap().profile,
            Profile::Bare
        );
    }

    #[test]
    fn a_debug_pod_is_noticed() {
        let (_dir, layout) = node(&[(&format!("host/{ENV}"), "")]);
        let found = look(&layout, None).unwrap();
        assert_eq!(found.profile, Profile::Bare);
        assert_eq!(found.mounted_at, Some(layout.root().join("host")));
    }

    #[test]
    fn external_etcd_is_told_from_a_stacked_one() {
        let api = |servers: &str| {
            format!(
                "kind: Pod\nmetadata: {{name: kube-apiserver}}\nspec: {{containers: [{{name: \
                 kube-apiserver, command: [kube-apiserver, \"--etcd-servers={servers}\"]}}]}}"
            )
        };
        let path = "etc/kubernetes/manifests/kube-apiserver.yaml";
        let (_dir, layout) = node(&[(path, &api("https://10.0.0.8:2379,https://[fd00::9]:2379"))]);
        let found = look(&layout, None).unwrap();
        assert_eq!(found.profile, Profile::Kubeadm);
        assert_eq!(
            found.external_etcd.unwrap().servers,
            ["https://10.0.0.8:2379", "https://[fd00::9]:2379"]
        );
        let (_dir, layout) = node(&[(path, &api("https://[::1]:2379"))]);
        assert_eq!(look(&layout, None).unwrap().external_etcd, None);
        let (_dir, layout) = node(&[(path, "broken: [")]);
        assert_eq!(look(&layout, None).unwrap().external_etcd, None);
    }

    #[test]
    fn an_arbiter_is_told_by_its_kubelet() {
        let unit = "[Service]\nExecStart=/usr/bin/kubelet --node-labels=node-role.kubernetes.io/arbiter,x\n";
        let path = "etc/systemd/system/kubelet.service";
        let (_dir, layout) = node(&[(ENV, ""), (path, unit)]);
        let sign = look(&layout, None).unwrap().arbiter.unwrap();
        assert!(
            sign.ends_with("in /etc/systemd/system/kubelet.service"),
            "{sign}"
        );
        let other = unit.replace("arbiter", "master");
        let (_dir, layout) = node(&[(ENV, ""), (path, &other)]);
        assert_eq!(look(&layout, None).unwrap().arbiter, None);
    }

    #[test]
    fn an_api_server_that_names_this_machine_uses_its_own_etcd() {
        let api = "kind: Pod\nmetadata: {name: kube-apiserver}\nspec: {containers: [{name: \
                   kube-apiserver, command: [kube-apiserver, \
                   \"--etcd-servers=https://10.0.0.8:2379,https://10.0.0.9:2379\"]}]}";
        let (_dir, layout) = node(&[("etc/kubernetes/manifests/kube-apiserver.yaml", api)]);
        let external = |addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            look_from(&layout, None, &addresses).unwrap().external_etcd
        };
        assert_eq!(external(&["10.0.0.7"]).unwrap().service, None);
        assert_eq!(external(&["10.0.0.7", "::ffff:10.0.0.9"]), None);
        // kubespray's etcd is on the same machine, and no static pod.
        let unit = layout.host("/etc/systemd/system/etcd.service");
        fs::create_dir_all(unit.parent().unwrap()).unwrap();
        fs::write(unit, "").unwrap();
        let found = external(&["10.0.0.9"]).unwrap();
        assert!(
            found.told().contains("/etc/systemd/system/etcd.service"),
            "{}",
            found.told()
        );
        assert_eq!(external(&["10.0.0.7"]).unwrap().service, None);
    }

    #[test]
    fn two_nodes_with_fencing_are_named() {
        let pod = "kind: Pod\nmetadata: {name: etcd}\nspec: {containers: [{name: etcdctl}]}";
        let (_dir, layout) = node(&[("etc/kubernetes/manifests/etcd-pod.yaml", pod)]);
        let found = look(&layout, None).unwrap();
        assert_eq!(found.two_node_fencing.len(), 1);
        let configmap = "etc/kubernetes/static-pod-resources/etcd-certs/configmaps/\
                         external-etcd-pod/pod.yaml";
        let (_dir, layout) = node(&[
            (ENV, ""),
            (configmap, "{}"),
            ("etc/corosync/corosync.conf", ""),
        ]);
        assert_eq!(look(&layout, None).unwrap().two_node_fencing.len(), 2);
        let (_dir, layout) = node(&[(ENV, ""), ("etc/corosync/corosync.conf", "")]);
        assert_eq!(
            look(&layout, None).unwrap().two_node_fencing,
            Vec::<String>::new()
        );
    }
}
