//! The result of `diff` as text.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::output::table::{Table, nothing, terminal_width};
use super::super::output::words;
use crate::inspect::look::Differing;
use crate::objects::{Object, unified};
use crate::sys::quote::printable;

/// The four ways to differ, as the columns of tables.
pub(super) const COLUMNS: [&str; 4] = ["added", "removed", "replaced", "changed"];

/// How an object differs, as a unified difference of its YAML.
pub(super) fn unified(differing: &Differing<'_>, show_secrets: bool) -> String {
    let text = |object: &Option<Object>| {
        let object = object.as_ref();
        object.map_or_else(String::new, |object| {
            unified::text(object.json.clone(), show_secrets)
        })
    };
    let (before, after) = &differing.objects;
    unified::unified(&text(before), &text(after))
}

/// The text of a document.
pub(super) fn text(document: &Value) -> String {
    let side = |name: &str| {
        let side = &document[name];
        format!(
            "{} (revision {})",
            side["name"].as_str().unwrap_or_default(),
            side["revision"]
        )
    };
    let mut text = printable(format!(
        "from {} to {}: {}",
        side("first"),
        side("second"),
        verdict(document)
    ));
    text.push('\n');
    for (title, field) in [("KIND", "kinds"), ("NAMESPACE", "namespaces")] {
        let Some(rows) = document[field].as_object().filter(|rows| !rows.is_empty()) else {
            continue;
        };
        let mut table = Table::new(&[title, "ADDED", "REMOVED", "REPLACED", "CHANGED"]);
        for (name, counts) in rows {
            let mut cells = vec![name.clone()];
            cells.extend(COLUMNS.map(|column| match counts[column].as_u64() {
                None | Some(0) => nothing(),
                Some(count) => count.to_string(),
            }));
            table.row(cells);
        }
        text.push('\n');
        text.push_str(&table.render(terminal_width()));
    }
    let losses = losses(&document["loss"]);
    if !losses.is_empty() {
        let _ = writeln!(text, "\nIf {} is restored now:", side("first"));
        for loss in losses {
            let _ = writeln!(text, "  {}", printable(loss));
        }
    }
    let listed = document["objects"].as_array().into_iter().flatten();
    let lines: Vec<String> = listed.map(line).collect();
    if !lines.is_empty() {
        text.push('\n');
        text.push_str(&lines.concat());
    }
    if let Some(unread) = document["unread"].as_u64().filter(|unread| *unread > 0) {
        let _ = writeln!(
            text,
            "\n{unread} cannot be decoded and count as changed: give --encryption-config"
        );
    }
    text
}

/// What a list of names means for one of them and for several.
const LISTS: [(&str, &str, &str); 4] = [
    (
        "volumes",
        "volume, claim or attachment is not in the backup, and its storage would be orphaned",
        "volumes, claims and attachments are not in the backup, and their storage would be orphaned",
    ),
    (
        "loadBalancers",
        "LoadBalancer Service is not in the backup, and its load balancer would stay",
        "LoadBalancer Services are not in the backup, and their load balancers would stay",
    ),
    (
        "machines",
        "Node, Machine or CertificateSigningRequest is newer than the backup",
        "Nodes, Machines and CertificateSigningRequests are newer than the backup",
    ),
    (
        "changedSecrets",
        "Secret was changed since, and would be the old one again",
        "Secrets were changed since, and would be the old ones again",
    ),
];

/// What a restore would lose or leave behind, a sentence each.
pub(super) fn losses(loss: &Value) -> Vec<String> {
    let count = |list: &Value| list["count"].as_u64().unwrap_or_default();
    let mut lines = Vec::new();
    for (node, pods) in loss["phantomPods"].as_object().into_iter().flatten() {
        let what = match count(pods) {
            1 => format!("1 pod runs on {node} and is not in the backup"),
            several => format!("{several} pods run on {node} and are not in the backup"),
        };
        lines.push(format!(
            "{what}; restart its kubelet after the restore: {}",
            names(pods)
        ));
    }
    for (field, one, several) in LISTS {
        let list = &loss[field];
        match count(list) {
            0 => {}
            1 => lines.push(format!("1 {one}: {}", names(list))),
            count => lines.push(format!("{count} {several}: {}", names(list))),
        }
    }
    for (definition, objects) in loss["definitions"].as_object().into_iter().flatten() {
        let objects = match objects.as_u64() {
            Some(1) => "1 object".to_owned(),
            _ => format!("{objects} objects"),
        };
        lines.push(format!(
            "CustomResourceDefinition {definition} would vanish with its {objects}"
        ));
    }
    for (namespace, revision) in loss["staticPodRevisions"].as_object().into_iter().flatten() {
        lines.push(format!(
            "the static pods of {namespace} have revision {revision}, which is not in the backup"
        ));
    }
    lines
}

/// The first names of a list.
fn names(list: &Value) -> String {
    const SHOWN: usize = 5;
    let all = list["names"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut names: Vec<&str> = all.iter().take(SHOWN).filter_map(Value::as_str).collect();
    if list["count"]
        .as_u64()
        .is_some_and(|count| count > SHOWN as u64)
    {
        names.push("…");
    }
    names.join(", ")
}

/// What differs, in a few words.
pub(super) fn verdict(document: &Value) -> String {
    let counts = &document["counts"];
    match document["same"].as_bool() {
        Some(true) => format!("the same, {} objects", document["sameObjects"]),
        _ => COLUMNS
            .map(|column| format!("{} {column}", counts[column]))
            .join(", "),
    }
}

/// `+ deployments.apps/web -n shop`, and how it differs.
fn line(entry: &Value) -> String {
    let mark = match entry["difference"].as_str() {
        Some("added") => '+',
        Some("removed") => '-',
        Some("replaced") => '!',
        _ => '~',
    };
    let of = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let namespace = match entry["namespace"].as_str() {
        Some(namespace) => format!(" -n {namespace}"),
        None => String::new(),
    };
    let mut line = printable(format!("{mark} {}/{}{namespace}", of("kind"), of("name")));
    line.push('\n');
    if let Some(diff) = entry["diff"].as_str() {
        line.push_str(&words::clean(diff));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_a_line_and_its_difference_follows() {
        let document = json!({"first": {"name": "a", "revision": 1}, "second": {"name": "<b>", "revision": 2},
            "same": false, "counts": {"added": 1, "removed": 0, "replaced": 0, "changed": 0},
            "kinds": {"pods": {"added": 1}}, "namespaces": {},
            "objects": [{"difference": "added", "kind": "pods", "name": "<script>", "namespace": "n", "diff": "+ a<b"}]});
        assert!(text(&document).contains("+ pods/<script> -n n\n+ a<b"));
    }
}
