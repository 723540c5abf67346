//! The few Kubernetes objects a backup needs, as etcd stores them.
//!
//! Custom resources (ClusterVersion, ClusterOperator) are stored as JSON; built-in kinds (Node)
//! as `k8s\0` followed by protobuf `runtime.Unknown` (k8s.io/apimachinery,
//! `pkg/runtime/serializer/protobuf`). The keys begin with the API server's `--etcd-prefix`:
//! `/kubernetes.io` on OpenShift, `/registry` by default.

use jiff::Timestamp;
use prost::Message;
use serde::Deserialize;

/// The prefixes that are tried, in this order.
pub const PREFIXES: [&str; 2] = ["/kubernetes.io", "/registry"];
/// What a built-in kind's stored bytes begin with.
const PROTOBUF_MAGIC: &[u8] = b"k8s\0";
/// What an encrypted value begins with (k8s.io/apiserver, `pkg/storage/value`).
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// The key of OpenShift's ClusterVersion under a prefix.
pub fn cluster_version_key(prefix: &str) -> String {
    format!("{prefix}/config.openshift.io/clusterversions/version")
}

/// The key of one of OpenShift's ClusterOperators under a prefix.
pub fn cluster_operator_key(prefix: &str, name: &str) -> String {
    format!("{prefix}/config.openshift.io/clusteroperators/{name}")
}

/// The key of a Node under a prefix.
pub fn node_key(prefix: &str, name: &str) -> String {
    // The name of nodes before Kubernetes 1.0, which their keys still have (`pkg/kubeapiserver`,
    // `SpecialDefaultResourcePrefixes`).
    format!("{prefix}/minions/{name}")
}

/// The key of the namespace `kube-system` under a prefix. Its uid stays for a cluster's life.
pub fn kube_system_key(prefix: &str) -> String {
    format!("{prefix}/namespaces/kube-system")
}

/// What a backup records of a ClusterVersion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterVersion {
    /// `spec.clusterID`.
    pub uuid: Option<String>,
    /// The version last installed completely; the desired one where none has been yet.
    pub version: Option<String>,
    /// When the object was made, which is when the cluster was installed.
    pub created: Option<Timestamp>,
}

/// What a backup asks of a ClusterOperator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterOperator {
    /// Its `Progressing` condition; `None` if it has none.
    pub progressing: Option<bool>,
    /// The condition's message.
    pub message: String,
}

/// Reads a ClusterVersion.
///
/// # Errors
/// What was expected and found, in a sentence.
pub fn cluster_version(bytes: &[u8]) -> Result<ClusterVersion, String> {
    let object: Object = json(bytes)?;
    let completed = object
        .status
        .history
        .iter()
        // The history has the newest version first (openshift/api, `config/v1`).
        .find(|entry| entry.state == "Completed");
    let version = completed
        .map(|entry| entry.version.clone())
        .or(object.status.desired.version);
    Ok(ClusterVersion {
        uuid: object.spec.cluster_id.filter(|id| !id.is_empty()),
        version: version.filter(|version| !version.is_empty()),
        created: object.metadata.creation_timestamp,
    })
}

/// Reads a ClusterOperator.
///
/// # Errors
/// What was expected and found, in a sentence.
pub fn cluster_operator(bytes: &[u8]) -> Result<ClusterOperator, String> {
    let object: Object = json(bytes)?;
    let condition = object
        .status
        .conditions
        .into_iter()
        .find(|condition| condition.kind == "Progressing");
    Ok(match condition {
        Some(condition) => ClusterOperator {
            progressing: match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            },
            message: condition.message,
        },
        None => ClusterOperator {
            progressing: None,
            message: String::new(),
        },
    })
}

/// Reads an object's uid.
///
/// # Errors
/// What was expected and found, in a sentence.
pub fn uid(bytes: &[u8]) -> Result<String, String> {
    let uid = if bytes.starts_with(b"{") {
        json::<Object>(bytes)?.metadata.uid
    } else {
        stored_metadata(bytes)?.map(|metadata| metadata.uid)
    };
    let uid = uid.filter(|uid| !uid.is_empty());
    uid.ok_or_else(|| "the object has no uid".to_owned())
}

/// The metadata of a built-in kind's object: the first field of all of them.
fn stored_metadata(bytes: &[u8]) -> Result<Option<ObjectMeta>, String> {
    let message = bytes
        .strip_prefix(PROTOBUF_MAGIC)
        .ok_or_else(|| not_readable(bytes))?;
    let unknown = Unknown::decode(message).map_err(|e| format!("expected runtime.Unknown: {e}"))?;
    let object = ObjectMessage::decode(unknown.raw.as_slice())
        .map_err(|e| format!("expected an object with metadata: {e}"))?;
    Ok(object.metadata)
}

/// Reads when a Node was made.
///
/// # Errors
/// What was expected and found, in a sentence.
pub fn node_created(bytes: &[u8]) -> Result<Timestamp, String> {
    if bytes.starts_with(b"{") {
        let object: Object = json(bytes)?;
        return object
            .metadata
            .creation_timestamp
            .ok_or_else(|| "the Node has no creationTimestamp".to_owned());
    }
    let metadata = stored_metadata(bytes)?;
    let time = metadata.and_then(|metadata| metadata.creation_timestamp);
    let seconds = time
        .map(|time| time.seconds)
        .ok_or_else(|| "the Node has no creationTimestamp".to_owned())?;
    Timestamp::from_second(seconds).map_err(|e| format!("the Node's creationTimestamp: {e}"))
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    if !bytes.starts_with(b"{") {
        return Err(not_readable(bytes));
    }
    serde_json::from_slice(bytes).map_err(|e| format!("expected a JSON object: {e}"))
}

fn not_readable(bytes: &[u8]) -> String {
    if bytes.starts_with(ENCRYPTED) {
        "the value is encrypted at rest".to_owned()
    } else {
        format!(
            "expected JSON or Kubernetes protobuf, found {} bytes of neither",
            bytes.len()
        )
    }
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(rename = "creationTimestamp")]
    creation_timestamp: Option<Timestamp>,
    #[serde(default)]
    uid: Option<String>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(rename = "clusterID")]
    cluster_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    desired: Desired,
    #[serde(default)]
    history: Vec<History>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
struct Desired {
    version: Option<String>,
}

#[derive(Deserialize)]
struct History {
    #[serde(default)]
    state: String,
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unknown {
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ObjectMessage {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ObjectMeta {
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(message, optional, tag = "8")]
    creation_timestamp: Option<Time>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_last_completed() {
        let text = br#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"clusterID":"c-1"},
            "status":{"desired":{"version":"4.19.0"},"history":[
              {"state":"Partial","version":"4.19.0"},{"state":"Completed","version":"4.18.3"}]}}"#;
        let version = cluster_version(text).unwrap();
        assert_eq!(version.version.as_deref(), Some("4.18.3"));
        assert_eq!(version.uuid.as_deref(), Some("c-1"));
        assert_eq!(version.created.unwrap().to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(
            cluster_version(b"k8s:enc:aescbc:v1:x:..").unwrap_err(),
            "the value is encrypted at rest"
        );
        assert!(cluster_version(b"{").is_err());
    }

    #[test]
    fn an_operator_progresses_or_not_or_does_not_say() {
        let of = |status: &str| {
            let text = format!(
                r#"{{"status":{{"conditions":[{{"type":"Progressing","status":"{status}","message":"m"}}]}}}}"#
            );
            cluster_operator(text.as_bytes()).unwrap().progressing
        };
        assert_eq!(
            (of("True"), of("False"), of("Unknown")),
            (Some(true), Some(false), None)
        );
        assert_eq!(cluster_operator(b"{}").unwrap().progressing, None);
    }

    #[test]
    fn a_stored_node_tells_when_it_was_made() {
        let node = ObjectMessage {
            metadata: Some(ObjectMeta {
                uid: "u-1".to_owned(),
                creation_timestamp: Some(Time {
                    seconds: 1_700_000_000,
                }),
            }),
        };
        let mut bytes = PROTOBUF_MAGIC.to_vec();
        bytes.extend(
            Unknown {
                raw: node.encode_to_vec(),
            }
            .encode_to_vec(),
        );
        assert_eq!(node_created(&bytes).unwrap().as_second(), 1_700_000_000);
        assert_eq!(uid(&bytes).unwrap(), "u-1");
        assert_eq!(uid(br#"{"metadata":{"uid":"u-2"}}"#).unwrap(), "u-2");
        assert!(uid(b"{}").is_err());
        for cut in 0..bytes.len() {
            let _ = node_created(&bytes[..cut]);
        }
        assert!(node_created(b"rubbish").is_err());
    }
}
