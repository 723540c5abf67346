//! The files under deploy/ are valid: kubectl renders them, systemd and promtool read them if they
//! are installed, and this binary accepts every command line in them.

mod containers;
mod pipeline;
mod schemas;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Parser;
use etcd_dr::cli::args::{Cli, Command as Asked};
use serde::Deserialize;
use serde_yaml_ng::Value;
use testbench::bins::{promtool, skip};
use testbench::golden::binary;
use testbench::process::expect_success;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a program printed, or nothing if it is not installed.
fn ran(program: &str, command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        // Neither kubectl nor systemd comes with Debian's minimal image, and nothing here installs
        // them: what they would check is left out by name, even if all else must run.
        Err(error) if ["kubectl", "systemd-analyze"].contains(&program) => {
            eprintln!("SKIPPED deploy: there is no {program}: {error}");
            None
        }
        Err(error) => {
            skip(&format!("there is no {program}: {error}"));
            None
        }
    }
}

/// What an overlay renders to.
fn rendered_text(overlay: &str) -> Option<String> {
    let at = deploy("kubernetes/overlays").join(overlay);
    let output = ran("kubectl", Command::new("kubectl").arg("kustomize").arg(at))?;
    Some(expect_success("kubectl kustomize", &output))
}

/// The same, read.
fn rendered(overlay: &str) -> Option<Vec<Value>> {
    let text = rendered_text(overlay)?;
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let read = |document| Value::deserialize(document).expect("YAML");
    Some(documents.map(read).collect())
}

fn kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let found = documents.iter().find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

fn words(list: &Value) -> Vec<String> {
    let word = |word: &Value| word.as_str().expect("a word").to_owned();
    list.as_sequence()
        .expect("a list")
        .iter()
        .map(word)
        .collect()
}

/// The arguments as the binary reads them, once the kubelet has put the variables in.
fn asked(args: &[String]) -> Cli {
    let filled = args.iter().map(|arg| {
        arg.replace("$(NODE_NAME)", "master-0")
            .replace("$(ETCD_DR_COPY_TO)", "s3://bucket/path")
            .replace(
                "$(ETCD_DR_COPY_FROM)",
                "s3://bucket/path/uuid/master-0/latest",
            )
    });
    let line = std::iter::once("etcd-dr".to_owned()).chain(filled);
    Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// What every pod of ours must be, and the command it runs.
fn pod(spec: &Value) -> Cli {
    assert_eq!(spec["hostNetwork"], true);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["serviceAccountName"], "etcd-dr");
    assert!(spec["priorityClassName"].as_str().is_some());
    assert!(spec["nodeSelector"]["node-role.kubernetes.io/control-plane"].is_string());
    assert!(
        spec["tolerations"]
            .as_sequence()
            .is_some_and(|list| !list.is_empty())
    );
    let container = &spec["containers"][0];
    assert_eq!(container["securityContext"]["privileged"], true);
    assert!(
        container["image"]
            .as_str()
            .is_some_and(|image| image.contains('/'))
    );
    let mounts = container["volumeMounts"].as_sequence().expect("mounts");
    let volumes = spec["volumes"].as_sequence().expect("volumes");
    for mount in mounts {
        let there = volumes.iter().any(|volume| volume["name"] == mount["name"]);
        assert!(there, "{mount:?} has no volume");
    }
    let host = mounts.iter().find(|mount| mount["mountPath"] == "/host");
    assert!(host.is_some(), "the node is not mounted");
    let cli = asked(&words(&container["args"]));
    assert_eq!(cli.global.root.as_deref(), Some(Path::new("/host")));
    assert_eq!(cli.global.node_name.as_deref(), Some("master-0"));
    cli
}

#[test]
fn the_daemonset_renders_with_each_of_its_overlays() {
    for overlay in ["hostpath", "rehearse", "s3", "mirrors"] {
        let Some(documents) = rendered(overlay) else {
            return;
        };
        kind(&documents, "Namespace");
        assert_eq!(
            kind(&documents, "ServiceAccount")["automountServiceAccountToken"],
            false
        );
        let set = &kind(&documents, "DaemonSet")["spec"];
        let labels = &set["template"]["metadata"]["labels"];
        assert_eq!(labels, &set["selector"]["matchLabels"]);
        let spec = &set["template"]["spec"];
        let Asked::Schedule(args) = pod(spec).command else {
            panic!("{overlay} runs another command")
        };
        let address = args.metrics_listen.expect("metrics for the probes");
        assert!(address.ip().is_loopback());
        for probe in ["livenessProbe", "readinessProbe"] {
            let asked = &spec["containers"][0][probe]["httpGet"];
            assert_eq!(asked["port"], u64::from(address.port()), "{probe}");
            assert_eq!(asked["host"], address.ip().to_string(), "{probe}");
        }
        assert!(args.backup.keep.is_given());
        let role = &spec["nodeSelector"]["etcd-dr/role"];
        assert_eq!(role.as_str(), (overlay == "mirrors").then_some("snapshot"));
        let week = std::time::Duration::from_secs(7 * 86_400);
        let rehearses = overlay == "rehearse";
        assert_eq!(args.rehearse, rehearses.then_some(week));
        assert_eq!(spec["hostPID"].as_bool(), rehearses.then_some(true));
        if !["hostpath", "rehearse"].contains(&overlay) {
            assert_eq!(args.backup.copy_to, ["s3://bucket/path"]);
            let secret = &spec["containers"][0]["envFrom"][0]["secretRef"]["name"];
            assert_eq!(secret, "etcd-dr-s3");
        } else {
            assert_eq!(args.backup.store.as_deref(), Some(Path::new("/backups")));
        }
        let roles = documents.iter().filter(|document| {
            document["kind"]
                .as_str()
                .is_some_and(|kind| kind.contains("Role"))
        });
        assert_eq!(roles.count(), 0, "no role is needed");
    }
}

#[test]
fn the_cronjob_renders_with_its_volume() {
    let Some(documents) = rendered("pvc") else {
        return;
    };
    let job = &kind(&documents, "CronJob")["spec"];
    assert_eq!(job["concurrencyPolicy"], "Forbid");
    for limit in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        assert!(job[limit].as_u64().is_some(), "{limit}");
    }
    assert!(
        job["jobTemplate"]["spec"]["activeDeadlineSeconds"]
            .as_u64()
            .is_some()
    );
    let spec = &job["jobTemplate"]["spec"]["template"]["spec"];
    let Asked::Backup(args) = pod(spec).command else {
        panic!("it runs another command")
    };
    assert_eq!(args.store.as_deref(), Some(Path::new("/backups")));
    let claim = &kind(&documents, "PersistentVolumeClaim")["metadata"]["name"];
    let volumes = spec["volumes"].as_sequence().expect("volumes");
    let claimed = |volume: &Value| &volume["persistentVolumeClaim"]["claimName"] == claim;
    assert!(volumes.iter().any(claimed));
}

#[test]
fn mirrors_are_chosen_by_label_one_pod_a_node() {
    let Some(documents) = rendered("mirrors") else {
        return;
    };
    let job = &kind(&documents, "CronJob")["spec"]["jobTemplate"]["spec"];
    assert_eq!(job["parallelism"], job["completions"]);
    let spec = &job["template"]["spec"];
    assert_eq!(spec["nodeSelector"]["etcd-dr/role"], "mirror");
    let apart = &spec["affinity"]["podAntiAffinity"];
    let apart = &apart["requiredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
    let labels = &job["template"]["metadata"]["labels"];
    for (name, value) in apart["labelSelector"]["matchLabels"]
        .as_mapping()
        .expect("labels")
    {
        assert_eq!(&labels[name], value);
    }
    // The DaemonSet's selector must not take them for its own.
    let selector = &kind(&documents, "DaemonSet")["spec"]["selector"]["matchLabels"];
    assert_ne!(
        labels["app.kubernetes.io/name"],
        selector["app.kubernetes.io/name"]
    );
    let Asked::Copy(args) = pod(spec).command else {
        panic!("it runs another command")
    };
    assert!(args.keep.is_given());
}

#[test]
fn the_second_container_begins_when_the_first_has_succeeded() {
    for overlay in ["two-containers", "own-store"] {
        let Some(documents) = rendered(overlay) else {
            return;
        };
        let job = &kind(&documents, "CronJob")["spec"]["jobTemplate"]["spec"];
        let spec = &job["template"]["spec"];
        assert_eq!(spec["restartPolicy"], "Never");
        let (first, second) = (&spec["initContainers"], &spec["containers"]);
        assert_eq!(first.as_sequence().map(Vec::len), Some(1));
        assert_eq!(second.as_sequence().map(Vec::len), Some(1));
        assert_eq!(first[0]["securityContext"]["privileged"], true);
        // Only the first sees the node.
        let context = &second[0]["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"]["drop"][0], "ALL");
        let mounts = |container: &Value| -> Vec<String> {
            let mounts = container["volumeMounts"].as_sequence().expect("mounts");
            let path = |mount: &Value| mount["mountPath"].as_str().expect("a path").to_owned();
            mounts.iter().map(path).collect()
        };
        assert_eq!(mounts(&first[0]), ["/host", "/shared"]);
        assert!(mounts(&second[0]).contains(&"/shared".to_owned()));
        assert!(!mounts(&second[0]).contains(&"/host".to_owned()));
    }
}

const UNITS: [&str; 3] = [
    "etcd-dr-backup.service",
    "etcd-dr-backup.timer",
    "etcd-dr-schedule.service",
];

#[test]
fn systemd_has_no_complaint_about_the_units() {
    let scratch = tempfile::tempdir().expect("a folder");
    for name in UNITS {
        let unit = text(&format!("systemd/{name}"));
        // It looks whether the program is there.
        let unit = unit.replace("/usr/local/bin/etcd-dr", &binary().display().to_string());
        std::fs::write(scratch.path().join(name), unit).expect("writing a unit");
    }
    // The drop-in is judged with the units that it is for.
    for name in ["etcd-dr-backup.service", "etcd-dr-schedule.service"] {
        let dir = scratch.path().join(format!("{name}.d"));
        std::fs::create_dir(&dir).expect("a folder");
        std::fs::write(dir.join("store.conf"), text("systemd/store.conf")).expect("a drop-in");
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=no"]);
    command.args(UNITS.map(|name| scratch.path().join(name)));
    let Some(output) = ran("systemd-analyze", &mut command) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("etcd-dr"))
        .collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

/// The lines of a unit that begin with a key.
fn settings(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_unit_finds_the_credentials_of_a_copy() {
    for name in ["etcd-dr-backup.service", "etcd-dr-schedule.service"] {
        let unit = text(&format!("systemd/{name}"));
        // The unit finds what a copy by hand finds: its home is known, and it is not hidden.
        let environment = settings(&unit, "Environment=");
        assert!(
            environment.contains(&"HOME=/root".to_owned()),
            "{name}: {environment:?}"
        );
        assert_eq!(settings(&unit, "ProtectHome="), ["read-only"], "{name}");
        let file = settings(&unit, "EnvironmentFile=");
        assert_eq!(file, ["-/etc/etcd-dr/store.env"], "{name}");
    }
    // Each variable of the drop-in is a credential that it loads.
    let conf = text("systemd/store.conf");
    let loaded = settings(&conf, "LoadCredential=");
    let named = settings(&conf, "Environment=");
    assert_eq!((loaded.len(), named.len()), (3, 3));
    for setting in named {
        let (_, credential) = setting.split_once("=%d/").expect("a credential");
        let prefix = format!("{credential}:");
        assert!(
            loaded.iter().any(|line| line.starts_with(&prefix)),
            "{setting}"
        );
    }
}

#[test]
fn the_units_run_commands_that_exist() {
    for name in ["etcd-dr-backup.service", "etcd-dr-schedule.service"] {
        let unit = text(&format!("systemd/{name}"));
        let values = |key: &str| -> Vec<String> {
            let lines = unit.lines().filter_map(|line| line.strip_prefix(key));
            lines.map(|value| value.replace('"', "")).collect()
        };
        let mut line = values("ExecStart=").concat();
        for setting in values("Environment=") {
            let (name, value) = setting.split_once('=').expect("a setting");
            line = line.replace(&format!("${{{name}}}"), value);
            line = line.replace(&format!("${name}"), value);
        }
        assert!(!line.contains('$'), "{line}");
        let args: Vec<String> = line.split(' ').skip(1).map(str::to_owned).collect();
        match asked(&args).command {
            Asked::Backup(args) => assert!(args.keep.is_given()),
            Asked::Schedule(args) => {
                assert!(args.backup.keep.is_given());
                assert!(unit.contains("Type=notify") && unit.contains("WatchdogSec="));
            }
            _ => panic!("{line}"),
        }
    }
}

#[test]
fn the_machine_configs_are_those_of_the_units() {
    for form in ["timer", "schedule"] {
        let script = deploy("machineconfig/render.sh");
        let output = Command::new(script)
            .arg(form)
            .output()
            .expect("running bash");
        let fresh = expect_success("render.sh", &output);
        let committed = text(&format!("machineconfig/99-master-etcd-dr-{form}.yaml"));
        assert_eq!(
            fresh, committed,
            "run deploy/machineconfig/render.sh {form}"
        );
        let value: Value = serde_yaml_ng::from_str(&fresh).expect("YAML");
        assert_eq!(value["kind"], "MachineConfig");
        let files = value["spec"]["config"]["storage"]["files"].as_sequence();
        for file in files.expect("files") {
            let path = file["path"].as_str().expect("a path");
            let name = path.rsplit('/').next().expect("a name");
            let source = file["contents"]["source"].as_str().expect("a source");
            let (_, encoded) = source.split_once("base64,").expect("base64");
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
            let unit = text(&format!("systemd/{name}"));
            assert_eq!(bytes.expect("base64"), unit.as_bytes(), "{name}");
        }
    }
}

/// Every name of a metric in a text.
fn metrics(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_word(c))
        .filter(|word| word.starts_with("etcd_dr_") || word.starts_with("etcd_backup_"))
        .map(|word| {
            let suffixes = ["_total", "_bucket", "_count", "_sum"];
            let cut = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
            cut.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let source = concat!(
        include_str!("../../src/keep/metrics/mod.rs"),
        include_str!("../../src/keep/metrics/fleet.rs"),
        include_str!("../../src/keep/metrics/recording.rs")
    );
    for file in [
        "monitoring/prometheusrule.yaml",
        "monitoring/dashboard.json",
    ] {
        let asked = metrics(&text(file));
        assert!(asked.len() > 5, "{file}");
        for name in asked {
            assert!(source.contains(&format!("\"{name}\"")), "{file}: {name}");
        }
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("monitoring/dashboard.json")).expect("JSON");
    assert_eq!(dashboard["panels"].as_array().map(Vec::len), Some(13));
}

#[test]
fn the_alerts_fire_when_they_should() {
    let rules: Value =
        serde_yaml_ng::from_str(&text("monitoring/prometheusrule.yaml")).expect("YAML");
    let scratch = tempfile::tempdir().expect("a folder");
    let plain = serde_yaml_ng::to_string(&rules["spec"]).expect("YAML");
    std::fs::write(scratch.path().join("rules.yaml"), plain).expect("writing the rules");
    let tests = text("monitoring/rules_test.yaml");
    let groups = rules["spec"]["groups"].as_sequence().expect("groups");
    let rules = |group: &Value| group["rules"].as_sequence().expect("rules").clone();
    for rule in groups.iter().flat_map(rules) {
        let name = rule["alert"].as_str().expect("a name");
        assert!(
            tests.contains(&format!("alertname: {name}\n")),
            "{name} has no test"
        );
        assert!(
            rule["labels"]["severity"].is_string() && rule["annotations"]["summary"].is_string()
        );
    }
    std::fs::write(scratch.path().join("rules_test.yaml"), tests).expect("writing the tests");
    for args in [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "rules_test.yaml"],
    ] {
        let mut command = Command::new(promtool());
        let Some(output) = ran("promtool", command.args(args).current_dir(scratch.path())) else {
            return;
        };
        expect_success("promtool", &output);
    }
}

#[test]
fn the_image_holds_all_that_the_binary_needs() {
    let scratch = tempfile::tempdir().expect("a folder");
    let output = Command::new(deploy("container/context.sh"))
        .arg(binary())
        .arg(scratch.path())
        .output()
        .expect("running bash");
    expect_success("context.sh", &output);
    assert!(text("container/Containerfile").contains("\nFROM scratch\nCOPY rootfs/ /\n"));
    if !rustix::process::geteuid().is_root() {
        return skip("another root directory is root's to try");
    }
    let mut command = Command::new("chroot");
    command
        .arg(scratch.path().join("rootfs"))
        .args(["/etcd-dr", "--version"]);
    let Some(output) = ran("chroot", &mut command) else {
        return;
    };
    let said = expect_success("chroot", &output);
    assert_eq!(said, format!("etcd-dr {}\n", env!("CARGO_PKG_VERSION")));
}
