//! Warnings that stop nothing: what a backup alone does not bring back, and what its release is known
//! for. They are the same when a backup is taken and when it is restored.

use crate::backup::manifest::{Manifest, OtherEtcd};
use crate::etcd::known::{Effect, Known};

/// Some objects are in an etcd of their own.
pub const PARTIAL_CLUSTER: &str = "partial-cluster";
/// Objects are encrypted by keys that a KMS holds.
pub const KMS_ENCRYPTION: &str = "kms-encryption";
/// The release has known faults.
pub const KNOWN_BAD_VERSION: &str = "known-bad-version";

/// Names the objects that another etcd keeps.
pub fn partial_cluster(others: &[OtherEtcd]) -> Option<String> {
    let one = |other: &OtherEtcd| {
        let resource = other.resource.trim_start_matches('/');
        format!("{resource} in {}", other.servers.join(", "))
    };
    let all: Vec<String> = others.iter().map(one).collect();
    (!all.is_empty()).then(|| {
        format!(
            "the API server keeps some objects in another etcd ({}): back that one up too, and \
             restore both to the same time",
            all.join("; ")
        )
    })
}

/// Names the KMS plugins that hold keys.
pub fn kms(plugins: &[String]) -> Option<String> {
    (!plugins.is_empty()).then(|| {
        format!(
            "objects are encrypted with the KMS plugin {}: no backup of this node can be read \
             without its key, so keep that key as long as the backups",
            plugins.join(", ")
        )
    })
}

/// All that is to be told of a set before it is restored, by name.
pub fn of_set(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let known = Known::of(&manifest.member.etcd_version, Effect::Data);
    let known = known.map(|known| format!("the backup is of {}", known.sentence()));
    [
        (PARTIAL_CLUSTER, partial_cluster(&manifest.other_etcds)),
        (KMS_ENCRYPTION, kms(&manifest.kms_plugins)),
        (KNOWN_BAD_VERSION, known),
    ]
    .into_iter()
    .filter_map(|(name, what)| Some((name, what?)))
    .collect()
}
