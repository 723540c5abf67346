//! Which kind is stored under which key, and by which names people call it.
//!
//! A key is `PREFIX/RESOURCE/[NAMESPACE/]NAME`. The prefix is the API server's `--etcd-prefix`: `/registry` by default,
//! `/kubernetes.io` and `/openshift.io` on OpenShift. The resource is the plural name for a built-in kind, with a few
//! exceptions, and `GROUP/PLURAL` for CustomResourceDefinitions, APIServices and custom resources (k8s.io/kubernetes,
//! `pkg/kubeapiserver/default_storage_factory_builder.go`).

mod builtin;
mod place;
mod resource;
mod table;

pub use place::{Place, place};
pub use resource::Resource;
pub use table::Kinds;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn called(kinds: &Kinds, word: &str) -> Vec<String> {
        kinds.called(word).into_iter().map(Resource::name).collect()
    }

    #[test]
    fn a_kind_answers_to_all_of_its_names() {
        let kinds = Kinds::default();
        for word in [
            "deployments",
            "deployment",
            "deploy",
            "Deployment",
            "deploy.apps",
            "deployments.v1.apps",
        ] {
            assert_eq!(called(&kinds, word), ["deployments.apps"], "{word}");
        }
        assert_eq!(called(&kinds, "po"), ["pods"]);
        assert_eq!(called(&kinds, "no"), ["nodes"]);
        assert_eq!(called(&kinds, "pods.v1"), ["pods"]);
        assert_eq!(called(&kinds, "svc"), ["services"]);
        assert!(called(&kinds, "deploy.batch").is_empty());
        assert!(called(&kinds, "widgets").is_empty());
    }

    #[test]
    fn definitions_add_their_kinds() {
        let mut kinds = Kinds::default();
        let definition = json!({"spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]}}});
        kinds.define(definition.as_object().unwrap());
        assert_eq!(called(&kinds, "wd"), ["widgets.example.com"]);
        assert_eq!(
            called(&kinds, "widget.example.com"),
            ["widgets.example.com"]
        );
        // A custom kind of a built-in one's name is meant only with its group.
        let definition = json!({"spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "pods", "kind": "Pod"}}});
        kinds.define(definition.as_object().unwrap());
        assert_eq!(called(&kinds, "pods"), ["pods"]);
        assert_eq!(called(&kinds, "pods.example.com"), ["pods.example.com"]);
        kinds.define(json!({"spec": {}}).as_object().unwrap());
    }
}
