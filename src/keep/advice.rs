//! Warnings that stop nothing: what a backup alone does not bring back, and what its release is known
//! for. They are the same when a backup is taken and when it is restored.

use crate::backup::manifest::{Manifest, OtherEtcd};
use crate::etcd::known::{Effect, Known};
use crate::etcd::release::Release;
use crate::node::apiserver::{ApiServer, Shard};
use crate::node::settings::{Setting, Settings};

/// Some objects are in their own etcd.
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
            "objects are encrypted with the KMS plugin {}: no backup of this node can be read without its key; keep the key for as long as the backups",
            plugins.join(", ")
        )
    })
}

/// Flags in etcd's manifest with which its image does not start.
pub const FLAG_REMOVED: &str = "flag-removed";

/// Names the flags of a manifest with which the etcd of its image does not start.
pub fn removed_flags(settings: &Settings) -> Option<String> {
    let image = settings.image.as_deref();
    // Nothing is known of an image that is named by its digest.
    let tag = image.and_then(|image| image.rsplit_once(':'));
    let release = tag.and_then(|(_, tag)| tag.parse::<Release>().ok());
    release.filter(|release| *release >= Release::first(3, 7))?;
    let removed = settings.iter();
    let removed = removed.filter(|setting| setting.name.starts_with("experimental-"));
    let removed: Vec<&Setting> = removed.collect();
    let source = removed.first().map(|flag| flag.source.clone())?;
    let flags: Vec<String> = removed
        .iter()
        .map(|flag| format!("--{}", flag.name))
        .collect();
    Some(format!(
        "{source} has {}, with which etcd 3.7 and later do not start: edit it first (etcd-dr verify --upgrade-to 3.7 names the replacements)",
        flags.join(", ")
    ))
}

/// What another etcd keeps, by an API server's own account.
pub fn others_of(api: &ApiServer) -> Vec<OtherEtcd> {
    let other = |shard: &Shard| OtherEtcd {
        resource: shard.resource.clone(),
        servers: shard.servers.clone(),
    };
    api.shards.iter().map(other).collect()
}

/// All warnings about a backup before it is restored, by name. What no Manifest says (the set is
/// older, or of OpenShift's scripts) the API server's manifest in the set may.
pub fn of_set(manifest: Option<&Manifest>, api: &ApiServer) -> Vec<(&'static str, String)> {
    let told = manifest.map(|manifest| manifest.other_etcds.clone());
    let others = told.filter(|others| !others.is_empty());
    let others = others.unwrap_or_else(|| others_of(api));
    let told = manifest.map(|manifest| manifest.kms_plugins.as_slice());
    let plugins = told.filter(|plugins| !plugins.is_empty());
    let known = manifest.and_then(|manifest| {
        let known = Known::of(&manifest.member.etcd_version, Effect::Data)?;
        Some(format!("the backup is of {}", known.sentence()))
    });
    [
        (PARTIAL_CLUSTER, partial_cluster(&others)),
        (KMS_ENCRYPTION, kms(plugins.unwrap_or(&api.kms))),
        (KNOWN_BAD_VERSION, known),
    ]
    .into_iter()
    .filter_map(|(name, what)| Some((name, what?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::layout::NodeLayout;
    use crate::node::profile::Profile;

    #[test]
    fn a_set_without_a_manifest_is_judged_by_its_own_api_server() {
        let api = ApiServer {
            shards: vec![Shard {
                resource: "/events".to_owned(),
                servers: vec!["https://10.0.0.8:2379".to_owned()],
            }],
            kms: vec!["vault".to_owned()],
        };
        let told = of_set(None, &api);
        let names: Vec<&str> = told.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [PARTIAL_CLUSTER, KMS_ENCRYPTION]);
        assert!(
            told[0].1.contains("events in https://10.0.0.8:2379"),
            "{told:?}"
        );
        assert_eq!(of_set(None, &ApiServer::default()), []);
    }

    #[test]
    fn flags_that_an_image_does_not_know_are_named() {
        for (image, told) in [
            ("registry.k8s.io/etcd:3.6.4-0", false),
            ("registry.k8s.io/etcd:3.7.1-0", true),
            ("registry:5000/etcd@sha256:3456", false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let manifests = dir.path().join("etc/kubernetes/manifests");
            std::fs::create_dir_all(&manifests).unwrap();
            let pod = format!(
                "kind: Pod\nmetadata: {{name: etcd}}\nspec: {{containers: [{{name: etcd, image: \
                 '{image}', command: [etcd, '--experimental-initial-corrupt-check=true']}}]}}"
            );
            std::fs::write(manifests.join("etcd.yaml"), pod).unwrap();
            let settings = Settings::read(&NodeLayout::new(dir.path()), Profile::Kubeadm);
            let warning = removed_flags(&settings);
            assert_eq!(warning.is_some(), told, "{image}: {warning:?}");
        }
    }
}
