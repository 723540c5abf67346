//! How the node's etcd is configured: the flags and variables of its pod, `etcd.env`, the files of
//! a systemd service, and etcd's own configuration file.

use std::path::{Path, PathBuf};

use super::component::Component;
use super::endpoint::{Endpoint, split_list};
use super::env_file::{self, EnvFile};
use super::files::read_bounded;
use super::layout::NodeLayout;
use super::pod::{self, Container, PodManifest};
use super::profile::Profile;
use crate::sys::yaml;

/// Longer configuration files are not read.
const CONFIG_MAX: u64 = 1 << 20;

/// Where services keep etcd's variables (kubespray, Red Hat's and Debian's packages).
const SERVICE_FILES: [&str; 4] = [
    "/etc/etcd.env",
    "/etc/etcd/etcd.conf",
    "/etc/default/etcd",
    "/etc/sysconfig/etcd",
];

/// Flags that say where etcd serves its page of metrics besides the client URLs.
const METRICS_FLAGS: [&str; 2] = ["listen-metrics-urls", "listen-client-http-urls"];

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The flag's name, without dashes.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where it stands, in words for people.
    pub source: String,
}

/// All settings that were found. What is broken is passed over: whoever needs the file itself
/// says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    all: Vec<Setting>,
    /// The image of etcd's container, if a manifest names one.
    pub image: Option<String>,
}

impl Settings {
    /// Reads them from the node.
    pub fn read(layout: &NodeLayout, profile: Profile) -> Self {
        let mut found = Self::default();
        let mut configs = vec![
            // podman-etcd's (resource-agents, `heartbeat/podman-etcd`).
            layout.default_data_dir().join("config.yaml"),
            layout.host("/etc/etcd/etcd.conf.yml"),
            layout.host("/etc/etcd/etcd.conf.yaml"),
        ];
        if let Some((pod, path)) = manifest(layout, profile) {
            let source = layout.node_path(&path).display().to_string();
            let named = pod.container(Component::Etcd.name());
            let only = (profile == Profile::Kubeadm).then(|| pod.containers.first());
            if let Some(container) = named.or(only.flatten()) {
                found.container(container, &source);
                if let Some(config) = found.get("config-file") {
                    let inside = Path::new(&config.value);
                    let there = pod.node_path(container, inside);
                    // The file that etcd is given goes before the usual ones.
                    configs.insert(0, layout.host(there.as_deref().unwrap_or(inside)));
                }
            }
        }
        let services = SERVICE_FILES.iter().map(|path| layout.host(path));
        for path in std::iter::once(layout.etcd_env()).chain(services) {
            found.variables(&path, &layout.node_path(&path));
        }
        for path in configs {
            found.config(&path, &layout.node_path(&path));
        }
        found
    }

    /// A setting; flags go before variables, and variables before a configuration file.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.all.iter().find(|setting| setting.name == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.all.iter()
    }

    /// Where etcd serves its page of metrics besides the client URLs, with the setting that says so.
    /// A host that is only known to a shell, or that stands for all addresses, is unspecified.
    pub fn metrics_urls(&self) -> Vec<(Endpoint, String)> {
        let told = METRICS_FLAGS.iter().filter_map(|name| self.get(name));
        let urls = told.flat_map(|setting| {
            let source = format!("--{} in {}", setting.name, setting.source);
            let urls = split_list(&setting.value).into_iter();
            urls.filter_map(move |url| Some((listening(&url)?, source.clone())))
        });
        urls.collect()
    }

    fn add(&mut self, name: &str, value: &str, source: &str) {
        self.all.push(Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            source: source.to_owned(),
        });
    }

    /// Flags, also those of an etcd that a shell starts, and variables.
    fn container(&mut self, container: &Container, source: &str) {
        self.image = Some(container.image.clone()).filter(|image| !image.is_empty());
        // Of several the last counts.
        for (name, value) in container.all_flags().into_iter().rev() {
            self.add(name, value, source);
        }
        let own = container.env.iter().rev();
        for (name, value) in own.filter_map(|(name, value)| Some((flag_of(name)?, value))) {
            self.add(&name, value, source);
        }
    }

    fn variables(&mut self, path: &Path, shown: &Path) {
        let Ok(bytes) = read_bounded(path, env_file::MAX_BYTES) else {
            return;
        };
        let Ok(file) = EnvFile::parse(&bytes) else {
            return;
        };
        let source = shown.display().to_string();
        for variable in file.variables().iter().rev() {
            if let Some(name) = flag_of(&variable.name) {
                self.add(&name, &variable.value, &source);
            }
        }
    }

    fn config(&mut self, path: &Path, shown: &Path) {
        let Ok(bytes) = read_bounded(path, CONFIG_MAX) else {
            return;
        };
        let Ok(serde_yaml_ng::Value::Mapping(settings)) = yaml::from_slice(&bytes) else {
            return;
        };
        let source = shown.display().to_string();
        for (name, value) in settings {
            let value = match value {
                serde_yaml_ng::Value::String(text) => text,
                serde_yaml_ng::Value::Bool(flag) => flag.to_string(),
                serde_yaml_ng::Value::Number(number) => number.to_string(),
                _ => continue,
            };
            if let Some(name) = name.as_str() {
                self.add(name, &value, &source);
            }
        }
    }
}

/// The live manifest of etcd, or of one that is disabled.
fn manifest(layout: &NodeLayout, profile: Profile) -> Option<(PodManifest, PathBuf)> {
    let places = [
        layout.manifest(Component::Etcd, profile),
        layout.disabled_manifest(Component::Etcd, profile),
    ];
    places.into_iter().flatten().find_map(|path| {
        let bytes = read_bounded(&path, pod::MAX_BYTES).ok()?;
        Some((PodManifest::parse(&bytes).ok()?, path))
    })
}

/// `ETCD_LISTEN_METRICS_URLS` is what etcd reads where `--listen-metrics-urls` is absent.
fn flag_of(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("ETCD_")?;
    Some(name.to_lowercase().replace('_', "-"))
}

fn listening(url: &str) -> Option<Endpoint> {
    if let Some(endpoint) = Endpoint::parse(url) {
        return Some(endpoint);
    }
    let (scheme, rest) = url.split_once("://")?;
    let (_, port) = rest.trim_end_matches('/').rsplit_once(':')?;
    rest.contains('$')
        .then(|| Endpoint::parse(&format!("{scheme}://0.0.0.0:{port}")))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::for_tests::node;

    fn urls(settings: &Settings) -> Vec<String> {
        let urls = settings.metrics_urls().into_iter();
        urls.map(|(url, _)| url.to_string()).collect()
    }

    #[test]
    fn metrics_are_served_where_the_manifest_says() {
        let kubeadm = "kind: Pod\nmetadata: {name: etcd}\nspec: {containers: [{name: etcd, image: \
                       'registry.k8s.io/etcd:3.6.4-0', command: [etcd, '--listen-metrics-urls=\
                       http://127.0.0.1:2381', '--data-dir=/var/lib/etcd']}]}";
        let (_dir, layout) = node(&[("etc/kubernetes/manifests/etcd.yaml", kubeadm)]);
        let settings = Settings::read(&layout, Profile::Kubeadm);
        assert_eq!(urls(&settings), ["http://127.0.0.1:2381"]);
        let image = settings.image.as_deref();
        assert_eq!(image, Some("registry.k8s.io/etcd:3.6.4-0"));

        let openshift = r#"{"kind":"Pod","metadata":{"name":"etcd"},"spec":{"containers":[
            {"name":"etcd-metrics","command":["x","--listen-metrics-urls=https://1.2.3.4:1"]},
            {"name":"etcd","image":"quay.io/e","command":["/bin/sh","-c"],"args":[
            "exec nice -n -19 etcd \\\n  --listen-client-http-urls=https://[::]:2381 \\\n  --experimental-initial-corrupt-check=true \\\n  --listen-metrics-urls=https://${LISTEN_ON_ALL_IPS}:9978 ||  mv /x"]}]}}"#;
        let (_dir, layout) = node(&[("etc/kubernetes/manifests/etcd-pod.yaml", openshift)]);
        let settings = Settings::read(&layout, Profile::Openshift);
        assert_eq!(
            urls(&settings),
            ["https://0.0.0.0:9978", "https://[::]:2381"]
        );
        let flag = settings.get("experimental-initial-corrupt-check");
        assert_eq!(flag.map(|flag| flag.value.as_str()), Some("true"));
    }

    #[test]
    fn variables_and_configuration_files_count_too() {
        let (_dir, layout) = node(&[
            (
                "etc/etcd.env",
                "ETCD_LISTEN_METRICS_URLS=http://10.0.0.1:2381\n",
            ),
            (
                "var/lib/etcd/config.yaml",
                "experimental-max-learners: 2\nlisten-metrics-urls: https://10.0.0.1:9978\n",
            ),
        ]);
        let settings = Settings::read(&layout, Profile::Bare);
        assert_eq!(urls(&settings), ["http://10.0.0.1:2381"]);
        let learners = settings.get("experimental-max-learners").unwrap();
        assert_eq!(learners.value, "2");
        assert_eq!(learners.source, "/var/lib/etcd/config.yaml");
        let (_dir, layout) = node(&[("etc/etcd.env", "broken line\n")]);
        assert_eq!(Settings::read(&layout, Profile::Bare), Settings::default());
    }
}
