//! `PodManifest`: the few parts of a static pod's manifest that a backup or a restore needs.
//!
//! OpenShift writes one line of JSON into a file called `.yaml`; kubeadm and people write YAML
//! (Kubernetes documentation, "Create static Pods"). Both are read, up to
//! [`MAX_BYTES`]; what is not needed is ignored.

mod expand;
mod shell;

use std::collections::BTreeMap;
use std::path::{Component as Part, Path, PathBuf};

use serde::Deserialize;

use super::component::{Component, PodRevision};
use super::layout::{KUBERNETES, STATIC_POD_RESOURCES};
use crate::error::{Failure, Kind, Result};
use crate::sys::yaml;

/// Longer manifests are not read.
pub const MAX_BYTES: u64 = 1 << 20;

/// The volume whose host path names the revision in use.
const RESOURCE_DIR: &str = "resource-dir";
/// What only a restore pod of OpenShift mounts.
const RESTORE_POD_VOLUME: &str = "backup-dir";

/// A static pod as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodManifest {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; the kubelet's `default` if the manifest has none.
    pub namespace: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Containers, in order.
    pub containers: Vec<Container>,
    /// Init containers, in order.
    pub init_containers: Vec<Container>,
    /// Volumes that are host paths, by name.
    pub host_paths: BTreeMap<String, PathBuf>,
    /// The user and the group that the pod's `securityContext` names.
    pub run_as: RunAs,
}

/// A container of a [`PodManifest`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// `command` followed by `args`, with the variables replaced that are known.
    pub words: Vec<String>,
    /// Variables whose value is known; those that only the kubelet knows are absent.
    pub env: Vec<(String, String)>,
    /// Volume mounts.
    pub mounts: Vec<Mount>,
    /// The user and the group that its own `securityContext` names.
    pub run_as: RunAs,
    /// Variables that only the kubelet knows: references to them are still in `words`.
    unknown: Vec<String>,
    /// The program's words, where a shell starts it by a plain script.
    program: Vec<String>,
    /// What all that is made from.
    written: Written,
}

/// A container's command and variables as the manifest has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Written {
    words: Vec<String>,
    env: Vec<(String, Value)>,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    /// A field of the pod, such as `spec.nodeName`.
    Field(String),
    /// Something else, which a static pod cannot have.
    Other,
}

/// What the kubelet fills into a pod's fields on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `spec.nodeName`.
    pub node_name: Option<String>,
    /// `status.hostIP`, which is `status.podIP` too on the host's network.
    pub host_ip: Option<String>,
}

/// Whom a `securityContext` lets processes run as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunAs {
    /// `runAsUser`.
    pub user: Option<u32>,
    /// `runAsGroup`.
    pub group: Option<u32>,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name.
    pub volume: String,
    /// The path inside the container.
    pub path: PathBuf,
    /// The part of the volume that is mounted; empty for all of it.
    pub sub_path: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// Which revision a live manifest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionInUse {
    /// The revision its `resource-dir` volume names.
    Revision(PodRevision),
    /// A restore pod of OpenShift's scripts: it runs no revision until the operator rolls out a
    /// normal pod. Its `revision` label tells only which installer laid its template down.
    RestorePod {
        /// The `revision` label.
        label: Option<String>,
    },
}

impl PodManifest {
    /// Reads a manifest from JSON or YAML.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(bad(format!("larger than {MAX_BYTES} bytes")));
        }
        let raw: RawPod = yaml::from_slice(bytes)
            .map_err(|e| Failure::wrap(Kind::Unexpected, e, "reading it as JSON or YAML"))?;
        raw.try_into()
    }

    /// The pod with its references to variables replaced as the kubelet of this node does.
    pub fn resolved(mut self, facts: &NodeFacts) -> Self {
        let (labels, annotations) = (self.labels.clone(), self.annotations.clone());
        let (name, namespace) = (self.name.clone(), self.namespace.clone());
        let field = |path: &str| {
            let entry = |of: &BTreeMap<String, String>, prefix: &str| {
                let key = path
                    .strip_prefix(prefix)?
                    .strip_prefix("['")?
                    .strip_suffix("']")?;
                Some(of.get(key).cloned().unwrap_or_default())
            };
            match path {
                "metadata.namespace" => Some(namespace.clone()),
                "metadata.name" => {
                    let node = facts.node_name.as_ref()?;
                    Some(format!("{name}-{}", node.to_lowercase()))
                }
                "spec.nodeName" => facts.node_name.clone(),
                "status.hostIP" | "status.podIP" | "status.hostIPs" | "status.podIPs" => {
                    facts.host_ip.clone()
                }
                _ => entry(&labels, "metadata.labels")
                    .or_else(|| entry(&annotations, "metadata.annotations")),
            }
        };
        for container in self.containers.iter_mut().chain(&mut self.init_containers) {
            container.resolve(field);
        }
        self
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The revision that the manifest runs, for a component on OpenShift.
    pub fn revision(&self, component: Component) -> Result<RevisionInUse> {
        let Some(dir) = self.host_paths.get(RESOURCE_DIR) else {
            if component == Component::Etcd && self.host_paths.contains_key(RESTORE_POD_VOLUME) {
                return Ok(RevisionInUse::RestorePod {
                    label: self.labels.get("revision").cloned(),
                });
            }
            return Err(bad(format!(
                "expected a host path volume \"{RESOURCE_DIR}\" that names the revision in use, \
                 found none"
            )));
        };
        let resources = Path::new(KUBERNETES).join(STATIC_POD_RESOURCES);
        let revision = (dir.parent() == Some(resources.as_path()))
            .then(|| PodRevision::from_dir_name(dir.file_name()?.to_str()?))
            .flatten()
            .filter(|revision| revision.component == component);
        match revision {
            Some(revision) => Ok(RevisionInUse::Revision(revision)),
            None => Err(bad(format!(
                "expected \"{RESOURCE_DIR}\" to be {}/{}N, found {}",
                resources.display(),
                component.revision_prefix(),
                dir.display()
            ))),
        }
    }

    /// The user and, where it is named, the group that a container runs as, its own choice before
    /// the pod's; none where only the image tells. Where no container has this name the first is
    /// meant.
    pub fn runs_as(&self, name: &str) -> Option<(u32, Option<u32>)> {
        let own = self.container(name).or(self.containers.first())?.run_as;
        let user = own.user.or(self.run_as.user)?;
        Some((user, own.group.or(self.run_as.group)))
    }

    /// The node path behind a path inside a container, if a host path is mounted there.
    pub fn node_path(&self, container: &Container, inside: &Path) -> Option<PathBuf> {
        let inside = plain_absolute(inside)?;
        container
            .mounts
            .iter()
            .filter(|mount| inside.starts_with(&mount.path))
            .max_by_key(|mount| mount.path.components().count())
            .and_then(|mount| {
                let below = inside.strip_prefix(&mount.path).ok()?;
                let mut path = self.host_paths.get(&mount.volume)?.clone();
                path.extend(mount.sub_path.iter());
                path.extend(below.iter());
                Some(path)
            })
    }
}

impl Container {
    /// A variable's literal value; of several the last.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Replaces the references to variables; `field` says what the pod's fields are.
    fn resolve(&mut self, field: impl Fn(&str) -> Option<String>) {
        let mut known: Vec<(String, String)> = Vec::new();
        self.unknown.clear();
        let find = |known: &[(String, String)], name: &str| {
            let (_, value) = known.iter().rev().find(|(n, _)| n == name)?;
            Some(value.clone())
        };
        for (name, value) in &self.written.env {
            let value = match value {
                // A variable sees those before it.
                Value::Text(text) => {
                    let text = expand::expand(text, |name| find(&known, name));
                    let refers = expand::refers_to(&text, &self.unknown).is_some();
                    (!refers).then_some(text)
                }
                Value::Field(path) => field(path),
                Value::Other => None,
            };
            self.unknown.retain(|unknown| unknown != name);
            known.retain(|(known, _)| known != name);
            match value {
                Some(value) => known.push((name.clone(), value)),
                None => self.unknown.push(name.clone()),
            }
        }
        let expanded = self.written.words.iter();
        self.words = expanded
            .map(|word| expand::expand(word, |name| find(&known, name)))
            .collect();
        let value = |name: &str| find(&known, name);
        self.program = shell::script(&self.words)
            .and_then(|script| shell::command(script, value))
            .unwrap_or_default();
        self.env = known;
    }

    /// The words of the program: those of the shell's one command, where a shell starts it.
    fn program(&self) -> &[String] {
        match self.program.is_empty() {
            true => &self.words,
            false => &self.program,
        }
    }

    /// Whether a shell starts the program, by a script that does not plainly tell its flags.
    pub fn is_scripted(&self) -> bool {
        self.program.is_empty() && shell::script(&self.words).is_some()
    }

    /// Whether it runs a program of this name.
    pub fn runs(&self, program: &str) -> bool {
        let words = self.program().iter();
        let mut names = words.take_while(|word| !word.starts_with("--"));
        names.any(|word| word.rsplit('/').next() == Some(program))
    }

    /// A flag's value, written `--name=value` or `--name value`; of several the last, as the
    /// programs of Kubernetes and etcd take it. One that only the kubelet knows is absent.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let text = self.flag_text(name)?;
        self.is_known(text).then_some(text)
    }

    /// Whether a text has no reference that only the kubelet can replace.
    pub fn is_known(&self, text: &str) -> bool {
        expand::refers_to(text, &self.unknown).is_none()
    }

    /// A flag's value, also one with references that only the kubelet can replace.
    pub fn flag_text(&self, name: &str) -> Option<&str> {
        let mut found = None;
        let mut words = self.program().iter().peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                continue;
            };
            if let Some((flag, value)) = flag.split_once('=') {
                if flag == name {
                    found = Some(value);
                }
            } else if flag == name
                && let Some(value) = words.next_if(|next| !next.starts_with('-'))
            {
                found = Some(value.as_str());
            }
        }
        found
    }

    /// The flags and variables that only the kubelet knows, as they are written.
    pub fn unknown_words(&self) -> Vec<&str> {
        let words = self.program().iter().map(String::as_str);
        words.filter(|word| !self.is_known(word)).collect()
    }
}

fn bad(what: String) -> Failure {
    Failure::new(Kind::Unexpected, what)
}

/// An absolute path without `.` and `..`, or nothing.
fn plain_absolute(path: &Path) -> Option<PathBuf> {
    let plain = path.is_absolute() && !path.components().any(|part| part == Part::ParentDir);
    plain.then(|| path.components().collect())
}

#[derive(Deserialize)]
struct RawPod {
    kind: Option<String>,
    metadata: Option<RawMeta>,
    spec: Option<RawSpec>,
}

#[derive(Deserialize)]
struct RawMeta {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    containers: Option<Vec<RawContainer>>,
    init_containers: Option<Vec<RawContainer>>,
    volumes: Option<Vec<RawVolume>>,
    security_context: Option<RawSecurity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSecurity {
    run_as_user: Option<u32>,
    run_as_group: Option<u32>,
}

impl From<Option<RawSecurity>> for RunAs {
    fn from(raw: Option<RawSecurity>) -> Self {
        raw.map_or_else(Self::default, |raw| Self {
            user: raw.run_as_user,
            group: raw.run_as_group,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainer {
    name: Option<String>,
    image: Option<String>,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    env: Option<Vec<RawEnv>>,
    volume_mounts: Option<Vec<RawMount>>,
    security_context: Option<RawSecurity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEnv {
    name: String,
    value: Option<String>,
    value_from: Option<RawSource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSource {
    field_ref: Option<RawField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawField {
    field_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMount {
    name: String,
    mount_path: PathBuf,
    sub_path: Option<PathBuf>,
    read_only: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVolume {
    name: String,
    host_path: Option<RawHostPath>,
}

#[derive(Deserialize)]
struct RawHostPath {
    path: PathBuf,
}

impl TryFrom<RawPod> for PodManifest {
    type Error = Failure;

    fn try_from(raw: RawPod) -> Result<Self> {
        if raw.kind.as_deref() != Some("Pod") {
            let found = raw.kind.unwrap_or_else(|| "no kind".to_owned());
            return Err(bad(format!(
                "expected a manifest of kind Pod, found {found:?}"
            )));
        }
        let (Some(meta), Some(spec)) = (raw.metadata, raw.spec) else {
            return Err(bad(
                "expected a pod with metadata and spec, found one without".into(),
            ));
        };
        let name = meta
            .name
            .filter(|name| !name.is_empty())
            .ok_or_else(|| bad("expected metadata.name, found none".into()))?;
        let containers = convert(spec.containers)?;
        if containers.is_empty() {
            return Err(bad("expected at least one container, found none".into()));
        }
        let mut host_paths = BTreeMap::new();
        for volume in spec.volumes.unwrap_or_default() {
            let Some(host_path) = volume.host_path else {
                continue;
            };
            let path = plain_absolute(&host_path.path).ok_or_else(|| {
                bad(format!(
                    "expected volume {:?} to be an absolute host path, found {:?}",
                    volume.name, host_path.path
                ))
            })?;
            if host_paths.insert(volume.name.clone(), path).is_some() {
                return Err(bad(format!(
                    "expected one volume {:?}, found two",
                    volume.name
                )));
            }
        }
        let pod = Self {
            name,
            namespace: meta
                .namespace
                .filter(|namespace| !namespace.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            containers,
            init_containers: convert(spec.init_containers)?,
            host_paths,
            run_as: spec.security_context.into(),
        };
        Ok(pod.resolved(&NodeFacts::default()))
    }
}

fn convert(raw: Option<Vec<RawContainer>>) -> Result<Vec<Container>> {
    raw.unwrap_or_default()
        .into_iter()
        .map(Container::try_from)
        .collect()
}

impl TryFrom<RawContainer> for Container {
    type Error = Failure;

    fn try_from(raw: RawContainer) -> Result<Self> {
        let mut words = raw.command.unwrap_or_default();
        words.extend(raw.args.unwrap_or_default());
        let mut mounts = Vec::new();
        for mount in raw.volume_mounts.unwrap_or_default() {
            let sub_path = mount.sub_path.unwrap_or_default();
            let inner = sub_path.components().all(|p| matches!(p, Part::Normal(_)));
            let path = plain_absolute(&mount.mount_path).filter(|_| inner).ok_or_else(|| {
                bad(format!(
                    "expected an absolute mount path and a sub path below its volume, found {:?} \
                     and {sub_path:?}",
                    mount.mount_path
                ))
            })?;
            mounts.push(Mount {
                volume: mount.name,
                path,
                sub_path,
                read_only: mount.read_only.unwrap_or_default(),
            });
        }
        let env = raw
            .env
            .unwrap_or_default()
            .into_iter()
            .map(|variable| {
                let value = match variable.value_from {
                    None => Value::Text(variable.value.unwrap_or_default()),
                    Some(source) => source
                        .field_ref
                        .map_or(Value::Other, |field| Value::Field(field.field_path)),
                };
                (variable.name, value)
            })
            .collect();
        Ok(Self {
            name: raw.name.unwrap_or_default(),
            image: raw.image.unwrap_or_default(),
            mounts,
            run_as: raw.security_context.into(),
            written: Written { words, env },
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"etcd","namespace":"openshift-etcd","creationTimestamp":null,"labels":{"app":"etcd","revision":"7"}},"spec":{"volumes":[{"name":"resource-dir","hostPath":{"path":"/etc/kubernetes/static-pod-resources/etcd-pod-7"}},{"name":"cert-dir","hostPath":{"path":"/etc/kubernetes/static-pod-resources/etcd-certs"}},{"name":"tmp","emptyDir":{}}],"containers":[{"name":"etcd","image":"quay.io/x@sha256:1","command":["/bin/sh","-c","exec etcd --name a\u003cb"],"env":[{"name":"A","value":"1"},{"name":"POD","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],"volumeMounts":[{"name":"resource-dir","mountPath":"/etc/kubernetes/static-pod-resources"},{"name":"cert-dir","mountPath":"/etc/kubernetes/static-pod-certs"}]}]},"status":{}}
"#;

    #[test]
    fn one_line_json_and_yaml_mean_the_same() {
        let json = PodManifest::parse(JSON.as_bytes()).unwrap();
        let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(JSON).unwrap();
        let yaml = serde_yaml_ng::to_string(&value).unwrap();
        assert!(yaml.lines().count() > 20);
        assert_eq!(PodManifest::parse(yaml.as_bytes()).unwrap(), json);
        let etcd = json.container("etcd").unwrap();
        assert_eq!(etcd.env("A"), Some("1"));
        assert_eq!(etcd.env("POD"), None);
        assert_eq!(etcd.image, "quay.io/x@sha256:1");
        assert_eq!(
            json.revision(Component::Etcd).unwrap(),
            RevisionInUse::Revision(PodRevision {
                component: Component::Etcd,
                number: 7
            })
        );
    }

    #[test]
    fn references_have_the_values_that_the_kubelet_gives_them() {
        let text = r#"
kind: Pod
metadata: {name: etcd, namespace: kube-system, annotations: {a/b: ann}, labels: {l: lab}}
spec:
  containers:
  - name: etcd
    command: [etcd, "--name=$(NODE)", "--peer=https://$(IP):$(PORT)", "--plain=$(URL)"]
    args: ["--escaped=$$(NODE)", "--none=$(NOTHING)", --two, "$(NODE)", "--pod=$(POD).$(NS)", "--m=$(A)$(L)"]
    env:
    - {name: PORT, value: "2380"}
    - {name: URL, value: "https://x:$(PORT)/$(LATER)"}
    - {name: LATER, value: "later"}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: IP, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: status.hostIP}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: A, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['a/b']"}}}
    - {name: L, valueFrom: {fieldRef: {fieldPath: "metadata.labels['l']"}}}
    - {name: ETCD_NAME, value: "$(NODE)"}
"#;
        let pod = PodManifest::parse(text.as_bytes()).unwrap();
        let here = pod.clone().resolved(&NodeFacts {
            node_name: Some("cp-0".to_owned()),
            host_ip: Some("10.0.0.1".to_owned()),
        });
        let flag = |pod: &PodManifest, name: &str| {
            let value = pod.containers[0].flag(name);
            value.map(str::to_owned)
        };
        for (name, there, value) in [
            ("name", None, "cp-0"),
            ("peer", None, "https://10.0.0.1:2380"),
            (
                "plain",
                Some("https://x:2380/$(LATER)"),
                "https://x:2380/$(LATER)",
            ),
            ("none", Some("$(NOTHING)"), "$(NOTHING)"),
            ("two", None, "cp-0"),
            ("pod", None, "etcd-cp-0.kube-system"),
            ("m", Some("annlab"), "annlab"),
        ] {
            assert_eq!(flag(&pod, name).as_deref(), there, "{name}");
            assert_eq!(flag(&here, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(flag(&here, "escaped").as_deref(), Some("$(NODE)"));
        assert_eq!(pod.containers[0].env("ETCD_NAME"), None);
        assert_eq!(here.containers[0].env("ETCD_NAME"), Some("cp-0"));
        assert_eq!(pod.containers[0].flag_text("name"), Some("$(NODE)"));
        assert!(here.containers[0].runs("etcd"));
    }

    #[test]
    fn a_program_that_a_shell_starts_has_its_flags() {
        let pod = |script: &str| {
            let script = serde_json::to_string(script).unwrap();
            let text = format!(
                "kind: Pod\nmetadata: {{name: etcd}}\nspec: {{containers: [{{name: etcd, command: \
                 [/bin/sh, -ec, {script}], env: [{{name: IP, value: 10.0.0.1}}]}}]}}"
            );
            PodManifest::parse(text.as_bytes()).unwrap().containers[0].clone()
        };
        let plain = pod("exec etcd --name=a --data-dir /data \\\n --peer=https://$IP:2380\n");
        assert_eq!(plain.flag("name"), Some("a"));
        assert_eq!(plain.flag("data-dir"), Some("/data"));
        assert_eq!(plain.flag("peer"), Some("https://10.0.0.1:2380"));
        assert!(plain.runs("etcd") && !plain.is_scripted());
        let other = pod("if test -e /x; then exec etcd --name=a; else exec etcd --name=b; fi");
        assert_eq!(other.flag("name"), None);
        assert!(other.is_scripted());
    }

    #[test]
    fn the_revision_is_the_resource_dirs_and_never_the_labels() {
        let other = JSON.replace("etcd-pod-7", "etcd-pod-12");
        let manifest = PodManifest::parse(other.as_bytes()).unwrap();
        assert_eq!(manifest.labels["revision"], "7");
        assert_eq!(
            manifest.revision(Component::Etcd).unwrap(),
            RevisionInUse::Revision(PodRevision {
                component: Component::Etcd,
                number: 12
            })
        );
        for wrong in [
            "kube-apiserver-pod-7",
            "etcd-pod-x",
            "sub/etcd-pod-7",
            "../etcd-pod-7",
        ] {
            let text = JSON.replace("etcd-pod-7", wrong);
            let result =
                PodManifest::parse(text.as_bytes()).and_then(|m| m.revision(Component::Etcd));
            assert!(result.is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_restore_pod_is_told_apart_from_a_pod_without_revision() {
        let restore = JSON.replace("resource-dir", "backup-dir");
        let manifest = PodManifest::parse(restore.as_bytes()).unwrap();
        assert_eq!(
            manifest.revision(Component::Etcd).unwrap(),
            RevisionInUse::RestorePod {
                label: Some("7".into())
            }
        );
        let none = JSON.replace("resource-dir", "data");
        let manifest = PodManifest::parse(none.as_bytes()).unwrap();
        let text = manifest.revision(Component::Etcd).unwrap_err().to_string();
        assert!(text.contains("resource-dir"), "{text}");
    }

    #[test]
    fn paths_inside_a_container_lead_to_the_node() {
        let manifest = PodManifest::parse(JSON.as_bytes()).unwrap();
        let etcd = manifest.container("etcd").unwrap();
        let at = |path: &str| manifest.node_path(etcd, Path::new(path));
        assert_eq!(
            at("/etc/kubernetes/static-pod-certs/secrets/a.crt"),
            Some("/etc/kubernetes/static-pod-resources/etcd-certs/secrets/a.crt".into())
        );
        assert_eq!(at("/etc/kubernetes/static-pod-certs-other"), None);
        assert_eq!(at("/etc/kubernetes/static-pod-certs/../x"), None);
        assert_eq!(at("relative"), None);
    }

    #[test]
    fn a_container_runs_as_itself_says_or_its_pod() {
        let runs_as = |pod: &str, container: &str| {
            let text = format!(
                "kind: Pod\nmetadata: {{name: a}}\nspec:\n  securityContext: {pod}\n  containers:\n  \
                 - {{name: etcd, securityContext: {container}}}\n"
            );
            PodManifest::parse(text.as_bytes()).unwrap().runs_as("etcd")
        };
        assert_eq!(runs_as("{}", "{}"), None);
        assert_eq!(runs_as("{runAsUser: 7}", "{}"), Some((7, None)));
        let both = runs_as("{runAsUser: 7, runAsGroup: 9}", "{runAsUser: 8}");
        assert_eq!(both, Some((8, Some(9))));
    }

    #[test]
    fn flags_in_both_spellings() {
        let container = Container {
            words: [
                "etcd",
                "--name=a",
                "--data-dir",
                "/d",
                "--verbose",
                "--name",
                "b",
                "-peer=c",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Container::default()
        };
        assert_eq!(container.flag("name"), Some("b"));
        assert_eq!(container.flag("data-dir"), Some("/d"));
        assert_eq!(container.flag("verbose"), None);
        assert_eq!(container.flag("peer"), Some("c"));
        assert_eq!(container.flag("absent"), None);
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                      c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                      e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        for text in [
            "",
            "{}",
            "[]",
            "kind: Pod",
            "kind: List\nmetadata: {name: a}\nspec: {containers: [{name: a}]}",
            "kind: Pod\nmetadata: {name: a}\nspec: {}",
            "kind: Pod\nmetadata: {}\nspec: {containers: [{name: a}]}",
            "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}], volumes: [{name: v, hostPath: {path: ../x}}]}",
            "\u{0}",
            deep.as_str(),
            laughs,
        ] {
            assert!(PodManifest::parse(text.as_bytes()).is_err(), "{:.40}", text);
        }
        assert!(PodManifest::parse(&vec![b' '; (1 << 20) + 1]).is_err());
        for end in 0..JSON.len() - 2 {
            assert!(
                PodManifest::parse(&JSON.as_bytes()[..end]).is_err(),
                "{end}"
            );
        }
    }
}
