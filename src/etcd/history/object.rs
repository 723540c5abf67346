//! Kubernetes' keys: `/registry/pods/NAMESPACE/NAME`.
//!
//! The API server's `--etcd-prefix` comes first (`/registry`; `/kubernetes.io` and `/openshift.io` on
//! OpenShift), then the resource, the namespace unless the resource is cluster-wide, and the name.
//! Custom resources, and few others, have their API group before the resource. Services and endpoints
//! are below `services/`, and nodes are called `minions` (k8s.io/kubernetes, `pkg/registry/core/rest`).

use std::fmt;

/// A key taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey<'a> {
    /// The API group, where the key has one.
    pub group: Option<&'a str>,
    /// The resource as the API calls it: `pods`, `nodes`, `services`.
    pub resource: &'a str,
    /// The namespace.
    pub namespace: Option<&'a str>,
    /// The name; it may have slashes.
    pub name: &'a str,
}

impl<'a> ObjectKey<'a> {
    /// Takes a key apart; `None` if it is not of this form.
    pub fn parse(key: &'a [u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        let (_, rest) = key.strip_prefix('/')?.split_once('/')?;
        let (first, rest) = rest.split_once('/')?;
        let (group, resource, rest) = match rest.split_once('/') {
            Some((resource, rest)) if first.contains('.') => (Some(first), resource, rest),
            _ => (None, first, rest),
        };
        let (resource, rest) = match (resource, rest.split_once('/')) {
            ("services", Some(("specs", rest))) => ("services", rest),
            ("services", Some(("endpoints", rest))) => ("endpoints", rest),
            ("minions", _) => ("nodes", rest),
            _ => (resource, rest),
        };
        let (namespace, name) = match rest.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, rest),
        };
        let all = [Some(resource), namespace, Some(name)];
        all.iter()
            .flatten()
            .all(|part| !part.is_empty())
            .then_some(Self {
                group,
                resource,
                namespace,
                name,
            })
    }

    /// Whether an operator's word names this resource: its plural, its singular, its usual short
    /// name, or either with the group behind a dot.
    pub fn is_a(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        let (kind, group) = match word.split_once('.') {
            Some((kind, group)) => (kind, Some(group)),
            None => (word.as_str(), None),
        };
        let same_group = group.is_none() || self.group.is_none() || group == self.group;
        same_group && (self.resource == kind || plural(kind).iter().any(|p| p == self.resource))
    }
}

/// What the plural of a kind, in lower case, may be.
fn plural(kind: &str) -> Vec<String> {
    let short = SHORT_NAMES.iter().find(|(short, _)| *short == kind);
    if let Some((_, resource)) = short {
        return vec![(*resource).to_owned()];
    }
    let mut plurals = vec![format!("{kind}s"), format!("{kind}es")];
    if let Some(stem) = kind.strip_suffix('y') {
        plurals.push(format!("{stem}ies"));
    }
    plurals
}

/// kubectl's short names of the resources that people delete by accident.
const SHORT_NAMES: [(&str, &str); 22] = [
    ("cm", "configmaps"),
    ("crd", "customresourcedefinitions"),
    ("cj", "cronjobs"),
    ("deploy", "deployments"),
    ("ds", "daemonsets"),
    ("ep", "endpoints"),
    ("ev", "events"),
    ("hpa", "horizontalpodautoscalers"),
    ("ing", "ingresses"),
    ("limits", "limitranges"),
    ("netpol", "networkpolicies"),
    ("no", "nodes"),
    ("ns", "namespaces"),
    ("pdb", "poddisruptionbudgets"),
    ("po", "pods"),
    ("pv", "persistentvolumes"),
    ("pvc", "persistentvolumeclaims"),
    ("quota", "resourcequotas"),
    ("rs", "replicasets"),
    ("sa", "serviceaccounts"),
    ("sts", "statefulsets"),
    ("svc", "services"),
];

impl fmt::Display for ObjectKey<'_> {
    /// `pods/prod/web-0`, as `--to-before` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if let Some(group) = self.group {
            write!(f, ".{group}")?;
        }
        if let Some(namespace) = self.namespace {
            write!(f, "/{namespace}")?;
        }
        write!(f, "/{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart() {
        for (key, shown) in [
            ("/registry/pods/prod/web-0", "pods/prod/web-0"),
            ("/kubernetes.io/pods/prod/web-0", "pods/prod/web-0"),
            ("/registry/namespaces/prod", "namespaces/prod"),
            ("/registry/minions/n1", "nodes/n1"),
            ("/registry/services/specs/prod/web", "services/prod/web"),
            (
                "/registry/services/endpoints/prod/web",
                "endpoints/prod/web",
            ),
            (
                "/registry/leases/kube-node-lease/n1",
                "leases/kube-node-lease/n1",
            ),
            (
                "/registry/apps.example.com/things/prod/x",
                "things.apps.example.com/prod/x",
            ),
            (
                "/registry/apiregistration.k8s.io/apiservices/v1.apps",
                "apiservices.apiregistration.k8s.io/v1.apps",
            ),
            ("/openshift.io/routes/prod/web", "routes/prod/web"),
        ] {
            let parsed = ObjectKey::parse(key.as_bytes()).unwrap();
            assert_eq!(parsed.to_string(), shown);
        }
        for other in [
            "compact_rev_key",
            "/registry/health",
            "/",
            "//a/",
            "",
            "/a/b/",
        ] {
            assert_eq!(ObjectKey::parse(other.as_bytes()), None, "{other}");
        }
        assert_eq!(ObjectKey::parse(b"/registry/pods/\xff/x"), None);
    }

    #[test]
    fn words_name_resources() {
        let of = |key: &'static str| ObjectKey::parse(key.as_bytes()).unwrap();
        let pod = of("/registry/pods/prod/web-0");
        for word in ["pods", "pod", "po", "Pod", "Pods"] {
            assert!(pod.is_a(word), "{word}");
        }
        assert!(!pod.is_a("podtemplate"));
        assert!(of("/registry/networkpolicies/prod/x").is_a("NetworkPolicy"));
        assert!(of("/registry/ingress/prod/x").is_a("ingress"));
        assert!(of("/registry/namespaces/prod").is_a("ns"));
        let thing = of("/registry/apps.example.com/things/prod/x");
        assert!(thing.is_a("thing") && thing.is_a("things.apps.example.com"));
        assert!(!thing.is_a("things.other.example.com"));
    }
}
