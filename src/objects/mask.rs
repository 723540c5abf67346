//! Hiding what is secret in an object.

use serde_json::{Map, Value};

/// What replaces a secret value.
pub const MASK: &str = "***";

/// Fields whose values are secret, by group and kind. Those of a map hide each value and show its name.
const SECRET: [(&str, &str, &[&str]); 4] = [
    ("", "Secret", &["data", "stringData"]),
    (
        "oauth.openshift.io",
        "OAuthClient",
        &["secret", "additionalSecrets"],
    ),
    (
        "oauth.openshift.io",
        "OAuthAccessToken",
        &["authorizeToken", "refreshToken"],
    ),
    (
        "oauth.openshift.io",
        "OAuthAuthorizeToken",
        &["codeChallenge", "state"],
    ),
];
/// Where kubectl keeps a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether a kind has values that are secret.
pub fn is_secret(object: &Map<String, Value>) -> bool {
    !fields(object).is_empty()
}

fn fields(object: &Map<String, Value>) -> &'static [&'static str] {
    let text = |field: &str| {
        object
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let group = text("apiVersion")
        .split_once('/')
        .map_or("", |(group, _)| group);
    let row = SECRET
        .iter()
        .find(|(of, kind, _)| *of == group && *kind == text("kind"));
    row.map_or(&[], |(_, _, fields)| fields)
}

/// Replaces the secret values of an object, and the copy of it that kubectl keeps in an annotation.
pub fn mask(object: &mut Map<String, Value>) {
    let fields = fields(object);
    for field in fields {
        if let Some(value) = object.get_mut(*field) {
            hide(value);
        }
    }
    if fields.is_empty() {
        return;
    }
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let annotations = metadata.and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(copy) = annotations.and_then(|annotations| annotations.get_mut(LAST_APPLIED)) {
        *copy = MASK.into();
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(hide),
        Value::Array(list) => list.iter_mut().for_each(hide),
        Value::Null => {}
        other => *other = MASK.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secrets_values_and_their_copies_are_hidden() {
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "s", "annotations": {LAST_APPLIED: "{\"data\":{\"a\":\"c2VjcmV0\"}}", "other": "x"}},
            "data": {"a": "c2VjcmV0", "b": "c2VjcmV0"}});
        let secret = secret.as_object_mut().unwrap();
        assert!(is_secret(secret));
        mask(secret);
        assert_eq!(secret["data"], json!({"a": "***", "b": "***"}));
        assert_eq!(
            secret["metadata"]["annotations"],
            json!({LAST_APPLIED: "***", "other": "x"})
        );
        assert!(!serde_json::to_string(secret).unwrap().contains("c2Vj"));
    }

    #[test]
    fn other_kinds_stay_as_they_are() {
        let before = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}});
        let mut after = before.clone();
        mask(after.as_object_mut().unwrap());
        assert_eq!(after, before);
        let custom = json!({"apiVersion": "example.com/v1", "kind": "Secret", "data": {"a": "b"}});
        assert!(!is_secret(custom.as_object().unwrap()));
    }
}
