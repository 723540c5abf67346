//! `PodManifest`: the few parts of a static pod's manifest that a backup or a restore needs.
//!
//! OpenShift writes one line of JSON into a file called `.yaml`; kubeadm and people write YAML
//! (Kubernetes documentation, "Create static Pods"). Both are read, up to
//! [`MAX_BYTES`]; what is not needed is ignored.

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
    /// `command` followed by `args`.
    pub words: Vec<String>,
    /// Variables with a literal value; those taken from elsewhere are absent.
    pub env: Vec<(String, String)>,
    /// Volume mounts.
    pub mounts: Vec<Mount>,
    /// The user and the group that its own `securityContext` names.
    pub run_as: RunAs,
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

    /// A flag's value, written `--name=value` or `--name value`; of several the last, as the
    /// programs of Kubernetes and etcd take it.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let mut found = None;
        let mut words = self.words.iter().peekable();
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
    value_from: Option<serde::de::IgnoredAny>,
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
        Ok(Self {
            name,
            namespace: meta
                .namespace
                .filter(|namespace| !namespace.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            labels: meta.labels.unwrap_or_default(),
            containers,
            init_containers: convert(spec.init_containers)?,
            host_paths,
            run_as: spec.security_context.into(),
        })
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
            .filter(|variable| variable.value_from.is_none())
            .map(|variable| (variable.name, variable.value.unwrap_or_default()))
            .collect();
        Ok(Self {
            name: raw.name.unwrap_or_default(),
            image: raw.image.unwrap_or_default(),
            words,
            env,
            mounts,
            run_as: raw.security_context.into(),
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
