//! OpenShift's encryption at rest: kube-apiserver's key is in the backup's archive, and those of the other two API servers
//! are in Secrets that it encrypted. All three name their keys "1" and "2" (fixtures/make-two-step.py).

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testbench::golden::{Run, run};

use super::get::pair;
use super::{Unpacked, fixture};

const CONFIG: &str = "two-step-config.json";

fn list(run: Run) -> Vec<Value> {
    let list: Value = serde_json::from_str(&run.expect(0).stdout).expect("JSON");
    list["items"].as_array().expect("items").clone()
}

fn encrypted(path: &str) -> Vec<Value> {
    let verified = run(&["verify", path, "-o", "json"], &[]).expect(0).json();
    let encrypted = verified["sets"][0]["encrypted"].as_array();
    encrypted.expect("encrypted objects").clone()
}

#[test]
fn the_keys_of_all_api_servers_are_found() {
    let set = Unpacked::database("two-step");
    let config = fixture(CONFIG).display().to_string();
    let (routes, tokens) = (
        ["routes", "-n", "shop", "-o", "json"],
        ["oauthaccesstokens", "-o", "json"],
    );
    // Nothing but the file: none of the three has a key.
    let locked = set.run("get", &routes).expect(12);
    assert!(
        locked
            .stderr
            .contains("aescbc with key \"2\", which is missing"),
        "{locked}"
    );
    let keys: Vec<_> = encrypted(&set.path())
        .iter()
        .map(|with| {
            (
                with["key"].clone(),
                with["under"].clone(),
                with["objects"].clone(),
            )
        })
        .collect();
    let of = |key: &str, under: &str, objects: u64| (json!(key), json!(under), json!(objects));
    let expected = [
        of("aescbc:v1:1", "/kubernetes.io/", 1),
        of("aescbc:v1:1", "/openshift.io/", 1),
        of("aescbc:v1:2", "/kubernetes.io/", 3),
        of("aescbc:v1:2", "/openshift.io/", 3),
        of("aescbc:v1:2", "/openshift.io/oauth/", 1),
    ];
    assert_eq!(keys, expected);
    // kube-apiserver's keys by hand: keys of that name are there, and are not those of the routes.
    let given = [&routes[..], &["--encryption-config", &config]].concat();
    assert_eq!(list(set.run("get", &given)).len(), 4);
    let dir = pair(&set, CONFIG);
    let of_backup = |args: &[&str]| list(run(&[&["get", &dir], args].concat(), &[]));
    let hosts: BTreeSet<String> = of_backup(&routes)
        .iter()
        .map(|route| route["spec"]["host"].as_str().expect("a host").to_owned())
        .collect();
    let expected = ["api", "docs", "first", "web"].map(|name| format!("{name}.apps.example.com"));
    assert_eq!(hosts, BTreeSet::from(expected));
    assert_eq!(of_backup(&tokens)[0]["userName"], "alice");
    let secrets = of_backup(&["secrets", "-n", "shop", "-o", "json", "--show-secrets"]);
    let words: Vec<&Value> = secrets
        .iter()
        .map(|secret| &secret["data"]["word"])
        .collect();
    assert_eq!(words, [&json!("YXV0dW1u"), &json!("d2ludGVy")]);
    assert!(encrypted(&dir).iter().all(|with| with["why"].is_null()));
}
