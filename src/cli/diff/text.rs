//! The result of `diff` as text, and as one page for a browser.

use std::fmt::Write as _;

use serde_json::Value;
use similar::TextDiff;

use super::super::output::table::{Table, nothing, terminal_width};
use super::super::output::words;
use crate::inspect::look::Differing;
use crate::objects::{Object, mask, yaml};
use crate::sys::quote::printable;

/// The four ways to differ, as the columns of tables.
const COLUMNS: [&str; 4] = ["added", "removed", "replaced", "changed"];

/// How an object differs, as a unified difference of its YAML.
pub(super) fn unified(differing: &Differing<'_>, show_secrets: bool) -> String {
    let text = |object: &Option<Object>| {
        let mut text = String::new();
        if let Some(object) = object {
            let mut json = object.json.clone();
            if !show_secrets {
                mask::mask(&mut json);
            }
            if let Some(metadata) = json.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            yaml::write(&mut text, &Value::Object(json));
        }
        text
    };
    let (before, after) = (text(&differing.objects.0), text(&differing.objects.1));
    TextDiff::from_lines(&before, &after)
        .unified_diff()
        .to_string()
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

/// What a restore would lose or leave behind, a sentence each.
pub(super) fn losses(loss: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (node, pods) in loss["phantomPods"].as_object().into_iter().flatten() {
        lines.push(format!(
            "{} pods run on {node} and are not in the backup; restart its kubelet after the restore: {}",
            pods["count"],
            names(pods)
        ));
    }
    for (field, what) in [
        (
            "volumes",
            "volumes, claims and attachments are not in the backup, and their storage would be orphaned",
        ),
        (
            "loadBalancers",
            "LoadBalancer Services are not in the backup, and their load balancers would stay",
        ),
        (
            "machines",
            "Nodes, Machines and CertificateSigningRequests are newer than the backup",
        ),
        (
            "changedSecrets",
            "Secrets were changed since, and would be the old ones again",
        ),
    ] {
        if loss[field]["count"].as_u64().is_some_and(|count| count > 0) {
            lines.push(format!(
                "{} {what}: {}",
                loss[field]["count"],
                names(&loss[field])
            ));
        }
    }
    for (definition, objects) in loss["definitions"].as_object().into_iter().flatten() {
        lines.push(format!(
            "CustomResourceDefinition {definition} would vanish with its {objects} objects"
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

fn verdict(document: &Value) -> String {
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

/// One page, without references to anything outside of it.
pub(super) fn page(document: &Value) -> String {
    let side = |name: &str| {
        let side = &document[name];
        format!(
            "{}, revision {}",
            escaped(side["name"].as_str().unwrap_or_default()),
            side["revision"]
        )
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{0} to {1}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>What differs</h1>\n<p>From <b>{0}</b> to <b>{1}</b>: {2}.</p>\n",
        side("first"),
        side("second"),
        escaped(&verdict(document))
    );
    for (title, field) in [("Kind", "kinds"), ("Namespace", "namespaces")] {
        let Some(rows) = document[field].as_object().filter(|rows| !rows.is_empty()) else {
            continue;
        };
        let _ = write!(page, "<table>\n<tr><th>{title}</th>");
        for column in COLUMNS {
            let _ = write!(page, "<th class=\"n\">{column}</th>");
        }
        page.push_str("</tr>\n");
        for (name, counts) in rows {
            let _ = write!(page, "<tr><td>{}</td>", escaped(name));
            for column in COLUMNS {
                let count = counts[column].as_u64().filter(|count| *count > 0);
                let count = count.map(|count| count.to_string()).unwrap_or_default();
                let _ = write!(page, "<td class=\"n {column}\">{count}</td>");
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table>\n");
    }
    let losses = losses(&document["loss"]);
    if !losses.is_empty() {
        let _ = write!(
            page,
            "<h2>If {} is restored now</h2>\n<ul>\n",
            side("first")
        );
        for loss in losses {
            let _ = writeln!(page, "<li>{}</li>", escaped(&loss));
        }
        page.push_str("</ul>\n");
    }
    for entry in document["objects"].as_array().into_iter().flatten() {
        object(&mut page, entry);
    }
    page.push_str("</body>\n</html>\n");
    page
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;margin:1rem 0}th,td{text-align:left;padding:.2rem .8rem;border-bottom:1px solid #8886}.n{text-align:right}.added{color:#1a7f37}.removed{color:#cf222e}.replaced{color:#9a6700}pre{overflow:auto;padding:.5rem;background:#8881}@media(prefers-color-scheme:dark){.added{color:#3fb950}.removed{color:#f85149}.replaced{color:#d29922}}";

fn object(page: &mut String, entry: &Value) {
    let of = |field: &str| escaped(entry[field].as_str().unwrap_or_default());
    let namespace = match entry["namespace"].as_str() {
        Some(namespace) => format!(" in {}", escaped(namespace)),
        None => String::new(),
    };
    let difference = of("difference");
    let head = format!(
        "<b class=\"{difference}\">{difference}</b> {}/{}{namespace}",
        of("kind"),
        of("name")
    );
    match entry["diff"].as_str() {
        Some(diff) => {
            let _ = writeln!(
                page,
                "<details><summary>{head}</summary><pre>{}</pre></details>",
                escaped(diff)
            );
        }
        None => {
            let _ = writeln!(page, "<p>{head}</p>");
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_is_one_file_and_shows_names_as_text() {
        let document = json!({"first": {"name": "a", "revision": 1}, "second": {"name": "<b>", "revision": 2},
            "same": false, "counts": {"added": 1, "removed": 0, "replaced": 0, "changed": 0},
            "kinds": {"pods": {"added": 1}}, "namespaces": {},
            "objects": [{"difference": "added", "kind": "pods", "name": "<script>", "namespace": "n", "diff": "+ a<b"}]});
        let page = page(&document);
        assert!(
            !page.contains("<script>") && page.contains("&lt;script&gt;"),
            "{page}"
        );
        assert!(!page.contains("http"), "{page}");
        assert!(text(&document).contains("+ pods/<script> -n n\n+ a<b"));
    }
}
