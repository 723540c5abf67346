//! The messages of the built-in kinds.
//!
//! `descriptors.binpb.zst` is a `FileDescriptorSet` that `scripts/descriptors.sh` makes of Debian's packages of
//! k8s.io/api, k8s.io/apimachinery (both 1.36, and 1.32 for versions of groups that are gone since) and
//! github.com/openshift/api. Protobuf only ever adds fields, so that objects of older releases read the same; what
//! is newer than the descriptors is reported by number.

use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, Value,
};

static COMPRESSED: &[u8] = include_bytes!("descriptors.binpb.zst");
/// The set is a third of this; the bound is for the decompressor.
const MAX_BYTES: usize = 1 << 20;

/// How a field's Go type differs from what protobuf says of it: a sum of these.
const POINTER: u32 = 1;
const ALWAYS: u32 = 2;
const INLINE: u32 = 4;
const OMITZERO: u32 = 8;

/// What a field's JSON depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape(u32);

impl Shape {
    /// Its Go type is a pointer: it is shown where it is present, even if it is zero.
    pub(super) fn pointer(self) -> bool {
        self.0 & POINTER != 0
    }

    /// It is shown even if it is empty.
    pub(super) fn always(self) -> bool {
        self.0 & ALWAYS != 0
    }

    /// Its fields are shown as its parent's.
    pub(super) fn inline(self) -> bool {
        self.0 & INLINE != 0
    }

    /// It is left out if all of it is zero.
    pub(super) fn omit_zero(self) -> bool {
        self.0 & OMITZERO != 0
    }
}

/// The descriptors and what was added to them.
pub(super) struct Descriptors {
    pool: DescriptorPool,
    shape: ExtensionDescriptor,
    items: ExtensionDescriptor,
}

static DESCRIPTORS: LazyLock<Option<Descriptors>> = LazyLock::new(Descriptors::read);

/// The descriptors; none would be a fault of the build, which a test excludes.
pub(super) fn descriptors() -> Option<&'static Descriptors> {
    DESCRIPTORS.as_ref()
}

impl Descriptors {
    fn read() -> Option<Self> {
        let set = zstd::bulk::decompress(COMPRESSED, MAX_BYTES).ok()?;
        let pool = DescriptorPool::decode(set.as_slice()).ok()?;
        Some(Self {
            shape: pool.get_extension_by_name("etcd_dr.shape")?,
            items: pool.get_extension_by_name("etcd_dr.items")?,
            pool,
        })
    }

    /// The message of a kind.
    pub(super) fn of_kind(&self, api_version: &str, kind: &str) -> Option<MessageDescriptor> {
        let package = package(api_version)?;
        self.pool.get_message_by_name(&format!("{package}.{kind}"))
    }

    /// What a field's JSON depends on.
    pub(super) fn shape(&self, field: &FieldDescriptor) -> Shape {
        match field.options().get_extension(&self.shape).as_ref() {
            Value::U32(bits) => Shape(*bits),
            _ => Shape::default(),
        }
    }

    /// Whether a message stands for its only field, a list or a map.
    pub(super) fn is_items(&self, message: &MessageDescriptor) -> bool {
        matches!(
            message.options().get_extension(&self.items).as_ref(),
            Value::Bool(true)
        )
    }
}

/// The package of a group's messages: its directory in k8s.io/api is the group's first label.
fn package(api_version: &str) -> Option<String> {
    let Some((group, version)) = api_version.split_once('/') else {
        return Some(format!("k8s.io.api.core.{api_version}"));
    };
    let (first, domain) = group.split_once('.').unwrap_or((group, ""));
    Some(match domain {
        "openshift.io" => format!("github.com.openshift.api.{first}.{version}"),
        "apiserver.k8s.io" if first == "internal" => {
            format!("k8s.io.api.apiserverinternal.{version}")
        }
        "" | "k8s.io" | "apiserver.k8s.io" | "authorization.k8s.io" | "networking.k8s.io" => {
            format!("k8s.io.api.{first}.{version}")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_all_groups_have_a_message() {
        let all = descriptors().expect("descriptors that can be read");
        for (api_version, kind) in [
            ("v1", "Pod"),
            ("apps/v1", "Deployment"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole"),
            ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema"),
            ("internal.apiserver.k8s.io/v1alpha1", "StorageVersion"),
            ("extensions/v1beta1", "Ingress"),
            ("route.openshift.io/v1", "Route"),
            ("apps.openshift.io/v1", "DeploymentConfig"),
        ] {
            assert!(
                all.of_kind(api_version, kind).is_some(),
                "{api_version} {kind}"
            );
        }
        assert!(all.of_kind("example.com/v1", "Widget").is_none());
        assert!(all.of_kind("v1", "Route").is_none());
    }

    #[test]
    fn a_field_knows_its_shape_and_its_name() {
        let all = descriptors().unwrap();
        let pod = all.of_kind("v1", "Volume").unwrap();
        let source = pod.get_field(2).unwrap();
        assert!(all.shape(&source).inline() && !all.shape(&source).pointer());
        let meta = all.of_kind("v1", "Pod").unwrap().get_field(1).unwrap();
        let prost_reflect::Kind::Message(meta) = meta.kind() else {
            panic!("no message")
        };
        assert!(all.shape(&meta.get_field(8).unwrap()).omit_zero());
        assert!(all.shape(&meta.get_field(9).unwrap()).pointer());
        let reference = all.of_kind("v1", "TypedLocalObjectReference").unwrap();
        assert_eq!(reference.get_field(1).unwrap().json_name(), "apiGroup");
        assert!(all.is_items(&all.of_kind("certificates.k8s.io/v1", "ExtraValue").unwrap()));
        assert!(!all.is_items(&meta));
    }
}
