//! The manifests, validated offline by programs that have their schemas.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_yaml_ng::Value;

use crate::{deploy, ran, rendered_text, text};
use testbench::bins::{schemas, skip};
use testbench::process::expect_success;

/// What a validator says of a text on its standard input.
fn judged(mut command: Command, text: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting it");
    let mut stdin = child.stdin.take().expect("its stdin");
    stdin.write_all(text.as_bytes()).expect("telling it");
    drop(stdin);
    child.wait_with_output().expect("waiting for it")
}

/// Whether a validator is installed.
fn there(path: &Path) -> bool {
    if !path.exists() {
        let what = format!(
            "there is no {}: run scripts/fetch-schemas.sh",
            path.display()
        );
        skip(&what);
    }
    path.exists()
}

fn kubernetes(file: &Path) -> Option<Output> {
    let program = schemas().join("venv/bin/kubernetes-validate");
    let mut command = Command::new(&program);
    command.args(["--strict", "--no-warn"]).arg(file);
    ran("kubernetes-validate", &mut command)
}

#[test]
fn kubernetes_knows_every_field_of_every_overlay() {
    if !there(&schemas().join("venv/bin/kubernetes-validate")) {
        return;
    }
    let scratch = tempfile::tempdir().expect("a folder");
    let file = scratch.path().join("rendered.yaml");
    let overlays = std::fs::read_dir(deploy("kubernetes/overlays")).expect("overlays");
    let mut count = 0;
    for overlay in overlays.map(|entry| entry.expect("an entry").file_name()) {
        let Some(text) = rendered_text(overlay.to_str().expect("UTF-8")) else {
            return;
        };
        std::fs::write(&file, &text).expect("writing it");
        let output = kubernetes(&file).expect("it is there");
        expect_success(&format!("{overlay:?}"), &output);
        // It really validates: an unknown field is reported.
        let altered = text.replace("hostNetwork", "hostNetwrok");
        assert_ne!(altered, text);
        std::fs::write(&file, altered).expect("writing it");
        let output = kubernetes(&file).expect("it is there");
        assert!(!output.status.success(), "{overlay:?}");
        count += 1;
    }
    assert_eq!(count, 7);
}

/// Takes the folder of packages, and the object on standard input.
const PROMETHEUS_RULE: &str = r"
const [folder] = process.argv.slice(1);
const models = `file://${folder}/@kubernetes-models/prometheus-operator`;
const { PrometheusRule } = await import(`${models}/monitoring.coreos.com/v1/index.js`);
let text = '';
for await (const piece of process.stdin) text += piece;
new PrometheusRule(JSON.parse(text)).validate();
";

#[test]
fn the_rule_is_one_that_the_prometheus_operator_takes() {
    // Nothing here installs node: it is left out by name, even if all else must run.
    if let Err(error) = Command::new("node").arg("--version").output() {
        eprintln!("SKIPPED deploy: there is no node: {error}");
        return;
    }
    let packages = schemas().join("node_modules");
    if !there(&packages.join("@kubernetes-models/prometheus-operator")) {
        return;
    }
    let packages = packages.canonicalize().expect("a folder");
    let judge = |rule: &Value| {
        let mut command = Command::new("node");
        command.args(["--input-type=module", "-e", PROMETHEUS_RULE]);
        command.arg(&packages);
        judged(command, &serde_json::to_string(rule).expect("JSON"))
    };
    let mut rule: Value =
        serde_yaml_ng::from_str(&text("monitoring/prometheusrule.yaml")).expect("YAML");
    expect_success("the schema of PrometheusRule", &judge(&rule));
    rule["spec"]["groups"][0]["rules"][0]["labels"] = 3.into();
    let output = judge(&rule);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("labels must be object"),
        "{said}"
    );
}

#[test]
fn ignition_takes_what_the_machine_configs_hold() {
    let program = schemas().join("ignition-validate");
    if !there(&program) {
        return;
    }
    let judge = |config: &Value| {
        let mut command = Command::new(&program);
        command.arg("-");
        judged(command, &serde_json::to_string(config).expect("JSON"))
    };
    for form in ["timer", "schedule"] {
        let name = format!("machineconfig/99-master-etcd-dr-{form}.yaml");
        let machine: Value = serde_yaml_ng::from_str(&text(&name)).expect("YAML");
        let mut config = machine["spec"]["config"].clone();
        let output = judge(&config);
        expect_success(&name, &output);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
        config["storage"]["files"][0]["path"] = "relative".into();
        assert!(!judge(&config).status.success(), "{name}");
    }
}
