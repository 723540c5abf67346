//! `get`.

use std::collections::BTreeSet;
use std::io::Write as _;

use serde_json::{Value, json};

use super::{Unpacked, fixture};

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_database_is_shown_in_numbers() {
    let set = Unpacked::of("objects");
    let shown = set.run("get", &["-o", "json"]).expect(0).json();
    assert_eq!(shown["objects"], 803);
    assert_eq!(shown["otherKeys"]["objects"], 4);
    let kinds = shown["kinds"].as_array().expect("kinds");
    assert_eq!(kinds.len(), 70);
    for kind in kinds {
        let of_kind = set.objects(kind["kind"].as_str().expect("a kind"));
        assert_eq!(kind["objects"], of_kind.len(), "{kind}");
        let namespaces: BTreeSet<&str> = of_kind
            .iter()
            .map(|o| namespace(o))
            .filter(|n| !n.is_empty())
            .collect();
        let shown: BTreeSet<&str> = kind["namespaces"]
            .as_object()
            .expect("a map")
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(shown, namespaces);
    }
    let text = set.run("get", &[]).expect(0).stdout;
    assert!(text.contains("803 objects of 70 kinds"), "{text}");
    assert!(
        text.lines()
            .any(|line| line.starts_with("widgets.example.com ")),
        "{text}"
    );
    let shop = set
        .run("get", &["-n", "kube-system", "-o", "json"])
        .expect(0)
        .json();
    let expected = set
        .answers
        .iter()
        .filter(|a| namespace(&a["object"]) == "kube-system")
        .count();
    assert_eq!(
        shown_objects(&shop),
        expected + 1,
        "with the namespace itself"
    );
}

fn shown_objects(overview: &Value) -> usize {
    overview["objects"].as_u64().expect("a number") as usize
}

#[test]
fn names_and_ages_are_a_table_and_names_alone_a_list() {
    let set = Unpacked::of("objects");
    let pods = set.objects("Pod");
    let table = set.run("get", &["po"]).expect(0).stdout;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), pods.len() + 1);
    assert_eq!(
        rows[0].split_whitespace().collect::<Vec<_>>(),
        ["NAMESPACE", "NAME", "AGE"]
    );
    for pod in &pods {
        let row = format!("{} {}", namespace(pod), name(pod));
        let squeezed = |line: &&str| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
                == row
        };
        assert!(rows.iter().any(squeezed), "{row} in {table}");
    }
    let names = set
        .run("get", &["deployments,nodes", "-o", "name"])
        .expect(0)
        .stdout;
    let mut expected: Vec<String> = set
        .objects("Deployment")
        .iter()
        .map(|o| format!("deployment.apps/{}", name(o)))
        .collect();
    expected.extend(
        set.objects("Node")
            .iter()
            .map(|o| format!("node/{}", name(o))),
    );
    let mut found: Vec<&str> = names.lines().collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn an_object_is_printed_as_the_api_server_answers_it() {
    let set = Unpacked::of("objects");
    for (word, kind) in [
        ("deploy", "Deployment"),
        ("crd", "CustomResourceDefinition"),
        ("widgets", "Widget"),
        ("svc", "Service"),
    ] {
        let object = set.objects(kind)[0];
        let (of, id) = (namespace(object), format!("{word}/{}", name(object)));
        let mut args = vec![id.as_str(), "-o", "json"];
        if !of.is_empty() {
            args.extend(["-n", of]);
        }
        assert_eq!(
            &parsed(&set.run("get", &args).expect(0).stdout),
            object,
            "{id}"
        );
        args[2] = "yaml";
        let yaml = set.run("get", &args).expect(0).stdout;
        let read: Value = serde_yaml_ng::from_str(&yaml).expect("YAML");
        assert_eq!(&read, object, "{id}");
    }
    let list = parsed(&set.run("get", &["cm", "-A", "-o", "json"]).expect(0).stdout);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("List"), &json!("v1"))
    );
    let items = list["items"].as_array().expect("items");
    let expected = set.objects("ConfigMap");
    assert_eq!(items.len(), expected.len());
    assert!(expected.iter().all(|object| items.contains(object)));
    let yaml = set.run("get", &["cm", "-o", "yaml"]).expect(0).stdout;
    let read: Value = serde_yaml_ng::from_str(&yaml).expect("YAML");
    assert_eq!(read, list);
}

#[test]
fn secrets_are_masked_unless_asked_for() {
    let set = Unpacked::of("objects");
    let secrets = set.objects("Secret");
    let values: BTreeSet<&str> = secrets
        .iter()
        .filter_map(|secret| secret["data"].as_object())
        .flat_map(|data| data.values().filter_map(Value::as_str))
        .filter(|value| value.len() > 8)
        .collect();
    assert!(values.len() > 20);
    for form in ["yaml", "json", "name", "text"] {
        let shown = set.run("get", &["secrets", "-o", form]).expect(0);
        for value in &values {
            assert!(!shown.stdout.contains(value), "-o {form} shows {value}");
        }
    }
    let secret = secrets
        .iter()
        .find(|secret| secret["data"].is_object())
        .expect("one with data");
    let id = format!("secret/{}", name(secret));
    let shown = set
        .run(
            "get",
            &[&id, "-n", namespace(secret), "-o", "json", "--show-secrets"],
        )
        .expect(0);
    assert_eq!(&&parsed(&shown.stdout), secret);
    let refused = set
        .run("get", &[&id, "-n", namespace(secret), "-o", "raw"])
        .expect(2);
    assert_eq!(refused.stdout, "");
    assert!(refused.stderr.contains("--show-secrets"), "{refused}");
}

#[test]
fn labels_select() {
    let set = Unpacked::of("encrypted-aescbc");
    let config = fixture("encrypted-aescbc-config.json")
        .display()
        .to_string();
    let with = [
        "-l",
        "tier=back",
        "-o",
        "json",
        "--encryption-config",
        &config,
    ];
    let shown = set.run("get", &[&["cm"][..], &with].concat()).expect(0);
    let list = parsed(&shown.stdout);
    let expected = set
        .objects("ConfigMap")
        .into_iter()
        .filter(|o| o["metadata"]["labels"]["tier"] == "back");
    assert_eq!(
        list["items"].as_array().expect("items").len(),
        expected.count()
    );
    let bad = set.run("get", &["cm", "-l", "a in b"]).expect(2);
    assert!(bad.stderr.contains("reading --selector"), "{bad}");
}

#[test]
fn an_object_is_shown_at_each_of_its_revisions() {
    let set = Unpacked::of("history");
    let of = |key: &str| {
        set.answers
            .iter()
            .filter(|change| change["key"] == key)
            .cloned()
            .collect::<Vec<_>>()
    };
    let key = set
        .answers
        .iter()
        .filter(|change| change["object"].is_object() && change["object"]["kind"] == "Deployment")
        .map(|change| change["key"].as_str().expect("a key"))
        .max_by_key(|key| of(key).len())
        .expect("a Deployment");
    let changes = of(key);
    let object = &changes[0]["object"];
    let (id, space) = (format!("deploy/{}", name(object)), namespace(object));
    let shown = set
        .run("get", &[&id, "-n", space, "--history", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(shown["key"], key);
    let revisions = shown["revisions"].as_array().expect("revisions");
    assert_eq!(revisions.len(), changes.len());
    for (revision, change) in revisions.iter().zip(&changes) {
        assert_eq!(revision["revision"], change["revision"]);
        if change["type"] == "delete" {
            assert_eq!(revision["change"], "deleted");
            continue;
        }
        if change["object"].is_object() {
            assert_eq!(revision["object"], change["object"]);
        }
        let at = change["revision"].to_string();
        let then = set
            .run("get", &[&id, "-n", space, "--revision", &at, "-o", "json"])
            .expect(0);
        assert_eq!(parsed(&then.stdout), revision["object"]);
    }
    let text = set
        .run("get", &[&id, "-n", space, "--history", "-v"])
        .expect(0)
        .stdout;
    assert!(
        text.contains("REVISION") && text.contains("created") && text.contains("\n+"),
        "{text}"
    );
    let future = set
        .run("get", &[&id, "-n", space, "--revision", "100000"])
        .expect(2);
    assert!(future.stderr.contains("it holds 1 to 492"), "{future}");
}

#[test]
fn encrypted_objects_need_their_keys() {
    for cipher in ["aescbc", "aesgcm", "secretbox"] {
        let set = Unpacked::of(&format!("encrypted-{cipher}"));
        let without = set.run("get", &["secrets", "-o", "json"]).expect(12);
        assert!(
            without
                .stderr
                .contains(&format!("encrypted by {cipher} with key \"key1\"")),
            "{without}"
        );
        let config = fixture(&format!("encrypted-{cipher}-config.json"))
            .display()
            .to_string();
        let with = [
            "secrets",
            "-o",
            "json",
            "--show-secrets",
            "--encryption-config",
            &config,
        ];
        let list = parsed(&set.run("get", &with).expect(0).stdout);
        let expected = set.objects("Secret");
        let items = list["items"].as_array().expect("items");
        assert_eq!(items.len(), expected.len());
        assert!(
            expected.iter().all(|object| items.contains(object)),
            "{cipher}"
        );
        let keys: Value =
            serde_json::from_slice(&std::fs::read(&config).expect("the file")).expect("JSON");
        for key in keys["resources"][0]["providers"][0][cipher]["keys"]
            .as_array()
            .expect("keys")
        {
            let secret = key["secret"].as_str().expect("a key");
            assert!(!without.stderr.contains(secret));
        }
    }
    let set = Unpacked::of("encrypted-kms-v2");
    let shown = set.run("get", &["secrets", "-o", "name"]).expect(0);
    assert!(!shown.stdout.is_empty());
    let locked = set.run("get", &["secrets", "-o", "json"]).expect(12);
    assert!(
        locked
            .stderr
            .contains("KMS v2 plugin \"plug-1\" with its key \"kek-1\""),
        "{locked}"
    );
}

/// Makes a pair as OpenShift's script does, whose archive has an EncryptionConfiguration; returns its folder.
pub(crate) fn pair(set: &Unpacked, config: &str) -> String {
    let stamp = "2026-11-29_141712";
    let dir = set.dir.path().join("backup");
    std::fs::create_dir(&dir).expect("a folder");
    std::fs::rename(set.path(), dir.join(format!("snapshot_{stamp}.db"))).expect("the snapshot");
    let archive = dir.join(format!("static_kuberesources_{stamp}.tar.gz"));
    let out = std::fs::File::create(archive).expect("an archive");
    let packed = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    let mut archive = tar::Builder::new(packed);
    let config = std::fs::read(fixture(config)).expect("the file");
    let mut header = tar::Header::new_gnu();
    header.set_size(config.len() as u64);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let path =
        "static-pod-resources/kube-apiserver-pod-7/secrets/encryption-config/encryption-config";
    archive
        .append_data(&mut header, path, config.as_slice())
        .expect("an entry");
    let packed = archive.into_inner().expect("tar");
    packed.finish().expect("gzip").flush().expect("the file");
    dir.display().to_string()
}

#[test]
fn the_keys_are_found_in_the_backup_itself() {
    let set = Unpacked::of("encrypted-aesgcm");
    let dir = pair(&set, "encrypted-aesgcm-config.json");
    let args = ["get", &dir, "secrets", "-o", "json", "--show-secrets"];
    let list = parsed(&testbench::golden::run(&args, &[]).expect(0).stdout);
    let expected = set.objects("Secret");
    let items = list["items"].as_array().expect("items");
    assert!(expected.iter().all(|object| items.contains(object)) && items.len() == expected.len());
}

#[test]
fn a_backup_says_whether_it_can_decrypt_itself() {
    let set = Unpacked::of("encrypted-secretbox");
    let run = |args: &[&str]| testbench::golden::run(args, &[]).expect(0);
    let alone = run(&["verify", &set.path(), "-o", "json"]).json();
    let encrypted = alone["sets"][0]["encrypted"].as_array().expect("keys");
    let keys: Vec<_> = encrypted
        .iter()
        .map(|with| (with["key"].as_str(), with["objects"].as_u64()))
        .collect();
    assert_eq!(
        keys,
        [
            (Some("secretbox:v1:key1"), Some(17)),
            (Some("secretbox:v1:key2"), Some(23))
        ]
    );
    assert!(encrypted.iter().all(|with| {
        with["why"]
            .as_str()
            .is_some_and(|why| why.contains("which is missing"))
    }));
    let dir = pair(&set, "encrypted-secretbox-config.json");
    let whole = run(&["verify", &dir, "-o", "json"]).json();
    let encrypted = whole["sets"][0]["encrypted"].as_array().expect("keys");
    assert!(
        encrypted.len() == 2 && encrypted.iter().all(|with| with["why"].is_null()),
        "{whole}"
    );
    let text = run(&["verify", &dir]).stdout;
    assert!(
        text.contains("17 objects under /registry/ by secretbox:v1:key1: can be decrypted"),
        "{text}"
    );
    let plain = Unpacked::of("objects");
    let plain = run(&["verify", &plain.path(), "-o", "json"]).json();
    assert!(plain["sets"][0]["encrypted"].is_null());
}

#[test]
fn a_namespace_is_printed_for_another_cluster() {
    let set = Unpacked::of("objects");
    let live = set
        .objects("Deployment")
        .into_iter()
        .map(namespace)
        .find(|n| n.starts_with("live-"))
        .expect("live");
    let shown = set
        .run("get", &["-n", live, "--for-apply", "-o", "json"])
        .expect(10);
    assert!(
        shown.stderr.contains("Secrets are left out"),
        "{}",
        shown.stderr
    );
    assert!(
        shown.stderr.contains("left out: made by a controller"),
        "{}",
        shown.stderr
    );
    let list = parsed(&shown.stdout);
    let items = list["items"].as_array().expect("items");
    assert_eq!(
        (&items[0]["kind"], name(&items[0])),
        (&json!("Namespace"), live)
    );
    let kinds: BTreeSet<&str> = items
        .iter()
        .filter_map(|item| item["kind"].as_str())
        .collect();
    for gone in [
        "Pod",
        "ReplicaSet",
        "EndpointSlice",
        "Secret",
        "ControllerRevision",
        "Event",
    ] {
        let uncontrolled = set
            .objects(gone)
            .into_iter()
            .any(|o| namespace(o) == live && o["metadata"]["ownerReferences"].is_null());
        assert!(
            !kinds.contains(gone) || (gone == "Pod" && uncontrolled),
            "{gone} in {kinds:?}"
        );
    }
    assert!(
        kinds.contains("Deployment") && kinds.contains("Service"),
        "{kinds:?}"
    );
    for item in items {
        let metadata = item["metadata"].as_object().expect("metadata");
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "managedFields",
            "generation",
        ] {
            assert!(!metadata.contains_key(field), "{field} in {item}");
        }
        assert!(item.get("status").is_none(), "{item}");
    }
    let with = set
        .run("get", &["-n", live, "--for-apply", "--show-secrets"])
        .expect(0);
    assert!(
        with.stdout.starts_with("apiVersion: v1\nkind: Namespace\n"),
        "{}",
        with.stdout
    );
    assert!(with.stdout.contains("\n---\n"));
}

#[test]
fn what_is_missing_is_reported() {
    let set = Unpacked::of("objects");
    for (args, status, words) in [
        (&["deploymnets"][..], 2, "there is no kind \"deploymnets\""),
        (
            &["deploy/none", "-n", "default"],
            2,
            "has no deployments.apps \"none\"",
        ),
        (&["po", "-n", "none"], 0, "no objects found"),
        (&["po", "-o", "raw"], 2, "-o raw writes one object"),
        (&["po", "--history"], 2, "--history shows one object"),
        (
            &["po", "--encryption-config", "/nonexistent"],
            2,
            "there is no such file",
        ),
    ] {
        let shown = set.run("get", args).expect(status);
        assert!(shown.stderr.contains(words), "{shown}");
        assert_eq!(shown.stdout, "");
    }
    let other = testbench::golden::run(&["list", "-o", "yaml"], &[]).expect(2);
    assert!(
        other.stderr.contains("expected -o text or -o json"),
        "{other}"
    );
}

#[test]
fn a_damaged_database_is_named_and_nothing_of_it_is_shown() {
    let set = Unpacked::of("objects");
    let mut bytes = std::fs::read(set.path()).expect("the database");
    let half = bytes.len() / 2 / 4096 * 4096;
    for byte in &mut bytes[half..] {
        *byte = 0x5a;
    }
    std::fs::write(set.path(), &bytes).expect("the database");
    let shown = set.run("get", &["po", "-o", "json"]);
    let document = parsed(&shown.stdout);
    assert_eq!(
        (shown.status, &document["error"]["kind"]),
        (Some(3), &json!("bad-backup")),
        "{shown}"
    );
}
