//! What an API server changes in an object as it reads it from etcd.
//!
//! It answers with an object at a version that it serves. So a CustomResourceDefinition, which API servers still store as
//! `apiextensions.k8s.io/v1beta1` although they serve only `v1` since 1.22, is converted (k8s.io/apiextensions-apiserver,
//! `pkg/apis/apiextensions/v1beta1/conversion.go` and `v1/conversion.go`). And it fills in defaults (k8s.io/kubernetes,
//! `pkg/apis/core/v1/defaults.go`, `pkg/apis/apps/v1/conversion.go`).

use serde_json::{Map, Value, json};

use super::decode::Object;

/// Makes an object what the API server answers for it.
pub fn as_served(object: &mut Object) {
    if object.kind() == "CustomResourceDefinition"
        && object.api_version() == "apiextensions.k8s.io/v1beta1"
    {
        let version = json!("apiextensions.k8s.io/v1");
        object.json.insert("apiVersion".to_owned(), version);
        if let Some(spec) = object.json.get_mut("spec").and_then(Value::as_object_mut) {
            definition(spec);
        }
    }
    match (object.api_version(), object.kind()) {
        ("v1", "PersistentVolumeClaim") => claim(&mut object.json),
        ("apps/v1", "StatefulSet") => claim_templates(&mut object.json),
        _ => {}
    }
}

/// A claim that no controller has seen is pending.
fn claim(claim: &mut Map<String, Value>) {
    if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
        status.entry("phase").or_insert_with(|| "Pending".into());
    }
}

/// Claims within another object say what they are, which protobuf does not store.
fn claim_templates(set: &mut Map<String, Value>) {
    let spec = set.get_mut("spec").and_then(Value::as_object_mut);
    let templates = spec.and_then(|spec| spec.get_mut("volumeClaimTemplates"));
    let templates = templates
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    for template in templates.filter_map(Value::as_object_mut) {
        for (field, value) in [("apiVersion", "v1"), ("kind", "PersistentVolumeClaim")] {
            template.entry(field).or_insert_with(|| value.into());
        }
    }
}

/// What v1beta1 says of all versions at once, v1 says of each.
fn definition(spec: &mut Map<String, Value>) {
    let first = spec.remove("version");
    if spec
        .get("versions")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
        && let Some(name) = first
    {
        let only = json!([{"name": name, "served": true, "storage": true}]);
        spec.insert("versions".to_owned(), only);
    }
    for (all, each) in [
        ("validation", "schema"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ] {
        let Some(value) = spec.remove(all) else {
            continue;
        };
        for version in versions(spec) {
            version.entry(each).or_insert_with(|| value.clone());
        }
    }
    for version in versions(spec) {
        let columns = version
            .get_mut("additionalPrinterColumns")
            .and_then(Value::as_array_mut);
        for column in columns
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            if let Some(path) = column.remove("JSONPath") {
                column.insert("jsonPath".to_owned(), path);
            }
        }
    }
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        let config = conversion.remove("webhookClientConfig");
        let reviews = conversion.remove("conversionReviewVersions");
        if config.is_some() || reviews.is_some() {
            let mut webhook = Map::new();
            if let Some(config) = config {
                webhook.insert("clientConfig".to_owned(), config);
            }
            webhook.insert(
                "conversionReviewVersions".to_owned(),
                reviews.unwrap_or(Value::Null),
            );
            conversion.insert("webhook".to_owned(), Value::Object(webhook));
        }
    }
}

fn versions(spec: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let versions = spec.get_mut("versions").and_then(Value::as_array_mut);
    versions
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}
