//! What a real API server 1.36 stored, and what it answered for each object.

use serde_json::Value;

use super::*;
use crate::etcd::keyspace::{Database, Keyspace};
use crate::objects::kinds::{Kinds, place};

/// A file of `fixtures/objects`.
fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/objects/{name}", env!("CARGO_MANIFEST_DIR"));
    match name.ends_with(".zst") {
        true => zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap(),
        false => std::fs::read(path).unwrap(),
    }
}

/// The database of a fixture, and the answers of its API server.
fn database(name: &str) -> (Vec<u8>, Vec<Value>) {
    let answers = serde_json::from_slice(&fixture(&format!("{name}.json.zst"))).unwrap();
    (fixture(&format!("{name}.db.zst")), answers)
}

/// Where two JSON values differ.
fn differences(path: &str, found: &Value, expected: &Value, into: &mut Vec<String>) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for name in found
                .keys()
                .chain(expected.keys().filter(|name| !found.contains_key(*name)))
            {
                let path = format!("{path}.{name}");
                match (found.get(name), expected.get(name)) {
                    (Some(found), Some(expected)) => differences(&path, found, expected, into),
                    (found, expected) => {
                        into.push(format!("{path}: {found:?} instead of {expected:?}"))
                    }
                }
            }
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                differences(&format!("{path}[{index}]"), found, expected, into);
            }
        }
        _ if found == expected => {}
        _ => into.push(format!("{path}: {found} instead of {expected}")),
    }
}

/// Decodes each object of a fixture and compares it with the answer; returns how many there were.
fn compare(name: &str, keys: &atrest::Keys) -> usize {
    let (bytes, answers) = database(name);
    let database = Database::open(&bytes).unwrap();
    let space = Keyspace::read(&database, None, &|_| true).unwrap();
    let mut wrong = Vec::new();
    for answer in &answers {
        let name = answer["key"].as_str().unwrap();
        let key = space
            .keys()
            .find(|key| key.name == name.as_bytes())
            .unwrap();
        let mut object = match decode(key.name, &space.value(key.value).unwrap(), keys) {
            Ok(object) => object,
            Err(why) => {
                wrong.push(format!("{name}: {why}"));
                continue;
            }
        };
        object.set_resource_version(key.mod_revision);
        wrong.extend(
            object
                .unknown_fields
                .iter()
                .map(|field| format!("{name}: unknown field {field}")),
        );
        served::as_served(&mut object);
        differences(
            name,
            &Value::Object(object.json),
            &answer["object"],
            &mut wrong,
        );
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    answers.len()
}

#[test]
fn every_object_is_what_the_api_server_answers() {
    assert_eq!(compare("objects", &atrest::Keys::default()), 803);
}

#[test]
fn every_encoding_is_read() {
    assert_eq!(compare("encodings", &atrest::Keys::default()), 261);
}

#[test]
fn encrypted_objects_are_read_with_their_keys() {
    for cipher in ["aescbc", "aesgcm", "secretbox"] {
        let mut keys = atrest::Keys::default();
        keys.add(&fixture(&format!("encrypted-{cipher}-config.json")))
            .unwrap();
        assert_eq!(
            compare(&format!("encrypted-{cipher}"), &keys),
            53,
            "{cipher}"
        );
    }
}

#[test]
fn a_value_without_its_key_names_provider_and_key() {
    let (bytes, answers) = database("encrypted-kms-v2");
    let database = Database::open(&bytes).unwrap();
    let space = Keyspace::read(&database, None, &|_| true).unwrap();
    let mut keys = atrest::Keys::default();
    keys.add(&fixture("encrypted-kms-v2-config.json")).unwrap();
    assert_eq!(keys.plugins(), ["plug-2", "plug-1"]);
    for answer in answers {
        let key = space
            .keys()
            .find(|key| key.name == answer["key"].as_str().unwrap().as_bytes())
            .unwrap();
        let read = decode(key.name, &space.value(key.value).unwrap(), &keys);
        let number = match answer["storedBy"].as_str().unwrap() {
            "plain" => {
                assert!(read.is_ok());
                continue;
            }
            by => by.strip_prefix("k8s:enc:kms:v2:plug-").unwrap(),
        };
        let why = read.unwrap_err().to_string();
        assert_eq!(
            why,
            format!(
                "encrypted by KMS v2 plugin \"plug-{number}\" with its key \"kek-{number}\"; only the plugin can decrypt it"
            )
        );
    }
}

#[test]
fn a_value_moved_to_another_key_or_changed_is_not_decrypted() {
    let (bytes, answers) = database("encrypted-aesgcm");
    let database = Database::open(&bytes).unwrap();
    let space = Keyspace::read(&database, None, &|_| true).unwrap();
    let mut keys = atrest::Keys::default();
    keys.add(&fixture("encrypted-aesgcm-config.json")).unwrap();
    let answer = answers
        .iter()
        .find(|answer| answer["storedBy"] != "plain")
        .unwrap();
    let name = answer["key"].as_str().unwrap().as_bytes();
    let key = space.keys().find(|key| key.name == name).unwrap();
    let mut value = space.value(key.value).unwrap();
    assert!(decode(name, &value, &keys).is_ok());
    let moved = decode(b"/registry/secrets/a/b", &value, &keys).unwrap_err();
    assert!(moved.to_string().contains("does not decrypt it"), "{moved}");
    *value.last_mut().unwrap() ^= 1;
    assert!(decode(name, &value, &keys).is_err());
}

#[test]
fn keys_name_the_kind_namespace_and_name_of_their_objects() {
    let (bytes, answers) = database("objects");
    let mut kinds = Kinds::default();
    for answer in answers
        .iter()
        .filter(|answer| answer["object"]["kind"] == "CustomResourceDefinition")
    {
        kinds.define(answer["object"].as_object().unwrap());
    }
    for answer in &answers {
        let (key, object) = (answer["key"].as_str().unwrap(), &answer["object"]);
        let place = place(key.as_bytes(), &kinds).unwrap();
        let kind = kinds.at(place.path).unwrap();
        assert_eq!(kind.kind, object["kind"].as_str().unwrap(), "{key}");
        let api_version = object["apiVersion"].as_str().unwrap();
        assert_eq!(
            kind.group,
            api_version.split_once('/').map_or("", |(group, _)| group)
        );
        assert_eq!(
            place.namespace,
            object["metadata"]["namespace"].as_str(),
            "{key}"
        );
        assert_eq!(kind.namespaced, place.namespace.is_some(), "{key}");
        assert_eq!(Some(place.name), object["metadata"]["name"].as_str());
    }
    let database = Database::open(&bytes).unwrap();
    let space = Keyspace::read(&database, None, &|_| true).unwrap();
    let others: Vec<_> = space
        .keys()
        .filter(|key| place(key.name, &kinds).is_none())
        .collect();
    let expected: Vec<Value> = serde_json::from_slice(&fixture("objects-other-keys.json")).unwrap();
    assert_eq!(others.len(), expected.len());
}

#[test]
fn a_field_that_is_not_known_is_named() {
    // A Pod with metadata.name, spec.98 = 1, and 99 = "x".
    let mut value = envelope::PROTOBUF.to_vec();
    let raw = b"\x0a\x03\x0a\x01p\x12\x03\x90\x06\x01\x9a\x06\x01x";
    value.extend(b"\x0a\x09\x0a\x02v1\x12\x03Pod\x12");
    value.push(raw.len() as u8);
    value.extend(raw);
    let object = decode(b"/registry/pods/a/p", &value, &atrest::Keys::default()).unwrap();
    assert_eq!(object.unknown_fields, ["99", "spec.98"]);
    assert_eq!(object.meta("name"), "p");
}

#[test]
fn no_cut_and_no_changed_byte_makes_it_panic() {
    let (bytes, answers) = database("encodings");
    let database = Database::open(&bytes).unwrap();
    let space = Keyspace::read(&database, None, &|_| true).unwrap();
    let keys = atrest::Keys::default();
    for key in space.keys().step_by(answers.len() / 20) {
        let mut value = space.value(key.value).unwrap();
        for cut in (0..value.len()).step_by(7) {
            let _ = decode(key.name, &value[..cut], &keys);
        }
        for at in (0..value.len()).step_by(11) {
            value[at] ^= 0x2a;
            let _ = decode(key.name, &value, &keys);
            value[at] ^= 0x2a;
        }
    }
}

/// Kubernetes' own test data: every kind with every field set, as protobuf and as JSON (k8s.io/api, `testdata/HEAD`).
/// Debian's golang-k8s-api-dev has it; it is not committed here.
#[test]
fn every_field_of_every_kind_is_what_kubernetes_own_test_data_says() {
    let Some(dir) = std::env::var_os("ETCD_DR_K8S_TESTDATA") else {
        println!("SKIPPED --lib: no ETCD_DR_K8S_TESTDATA (k8s.io/api, testdata/HEAD)");
        return;
    };
    let (mut wrong, mut kinds, mut others) = (Vec::new(), 0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "pb") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let expected: Value =
            serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
        match decode(
            b"/registry/x/y",
            &std::fs::read(&path).unwrap(),
            &atrest::Keys::default(),
        ) {
            Ok(object) => {
                kinds += 1;
                wrong.extend(
                    object
                        .unknown_fields
                        .iter()
                        .map(|field| format!("{name}: unknown {field}")),
                );
                differences(&name, &Value::Object(object.json), &expected, &mut wrong);
            }
            // Options, lists of versions and reviews of images are sent, never stored.
            Err(Unread::UnknownKind { .. }) => others += 1,
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    println!("{kinds} kinds compared");
    assert!(
        wrong.is_empty() && kinds > 150 && others < 12,
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
