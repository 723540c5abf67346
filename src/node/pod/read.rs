//! Reads manifests.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

use serde::Deserialize;

use super::container::{Container, Mount, RunAs, Written};
use super::fields::NodeFacts;
use super::manifest::PodManifest;
use super::path::plain_absolute;
use super::variables::Value;
use crate::error::{Failure, Kind, Result};
use crate::sys::yaml;

/// Longer manifests are not read.
pub const MAX_BYTES: u64 = 1 << 20;

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
}

fn bad(what: String) -> Failure {
    Failure::new(Kind::Unexpected, what)
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
        // Without `command`, the image's entry point would come first; it cannot be known here.
        words.extend(raw.args.unwrap_or_default());
        let mut mounts = Vec::new();
        for mount in raw.volume_mounts.unwrap_or_default() {
            let sub_path = mount.sub_path.unwrap_or_default();
            let inner = sub_path
                .components()
                .all(|p| matches!(p, Component::Normal(_)));
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
