//! The result of `diff` as one page for a browser.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::output::page::{escaped, page};
use super::text::{COLUMNS, losses, verdict};

/// One page, without references to anything outside of it.
pub(super) fn of(document: &Value) -> String {
    let side = |name: &str| {
        let side = &document[name];
        let name = escaped(side["name"].as_str().unwrap_or_default());
        format!("<b>{name}</b>, revision {}", side["revision"])
    };
    let plain = |name: &str| document[name]["name"].as_str().unwrap_or_default();
    let mut content = format!(
        "<h1>What differs</h1>\n<p class=\"soft\">From {} to {}</p>\n",
        side("first"),
        side("second")
    );
    match document["same"].as_bool() {
        Some(true) => {
            let _ = writeln!(content, "<p>{}</p>", escaped(&verdict(document)));
        }
        _ => cards(&mut content, &document["counts"]),
    }
    let losses = losses(&document["loss"]);
    if !losses.is_empty() {
        let _ = write!(
            content,
            "<section class=\"warn\">\n<h2>If {} is restored now</h2>\n<ul>\n",
            escaped(plain("first"))
        );
        for loss in losses {
            let _ = writeln!(content, "<li>{}</li>", escaped(&loss));
        }
        content.push_str("</ul>\n</section>\n");
    }
    content.push_str("<div class=\"side\">\n");
    for (title, field) in [("Kind", "kinds"), ("Namespace", "namespaces")] {
        table(&mut content, title, &document[field]);
    }
    content.push_str("</div>\n");
    if let Some(unread) = document["unread"].as_u64().filter(|unread| *unread > 0) {
        let _ = writeln!(
            content,
            "<p>{unread} cannot be decoded and count as changed: give --encryption-config</p>"
        );
    }
    let objects = document["objects"].as_array().map(Vec::as_slice);
    let objects = objects.unwrap_or_default();
    if !objects.is_empty() {
        content.push_str("<h2>Objects</h2>\n");
        for entry in objects {
            object(&mut content, entry);
        }
    }
    page(
        &format!("{} to {}", plain("first"), plain("second")),
        &content,
    )
}

fn cards(content: &mut String, counts: &Value) {
    content.push_str("<div class=\"cards\">\n");
    for column in COLUMNS {
        let _ = writeln!(
            content,
            "<div><b class=\"{column}\">{}</b>{column}</div>",
            counts[column]
        );
    }
    content.push_str("</div>\n");
}

fn table(content: &mut String, title: &str, rows: &Value) {
    let Some(rows) = rows.as_object().filter(|rows| !rows.is_empty()) else {
        return;
    };
    let _ = write!(
        content,
        "<div class=\"wide\">\n<table>\n<tr><th>{title}</th>"
    );
    for column in COLUMNS {
        let _ = write!(content, "<th class=\"n\">{column}</th>");
    }
    content.push_str("</tr>\n");
    for (name, counts) in rows {
        let _ = write!(content, "<tr><td>{}</td>", escaped(name));
        for column in COLUMNS {
            let count = counts[column].as_u64().filter(|count| *count > 0);
            let count = count.map(|count| count.to_string()).unwrap_or_default();
            let _ = write!(content, "<td class=\"n {column}\">{count}</td>");
        }
        content.push_str("</tr>\n");
    }
    content.push_str("</table>\n</div>\n");
}

fn object(content: &mut String, entry: &Value) {
    let of = |field: &str| escaped(entry[field].as_str().unwrap_or_default());
    let namespace = match entry["namespace"].as_str() {
        Some(namespace) => format!(" <span class=\"soft\">in {}</span>", escaped(namespace)),
        None => String::new(),
    };
    let difference = of("difference");
    let head = format!(
        "<b class=\"{difference}\">{difference}</b> {}/{}{namespace}",
        of("kind"),
        of("name")
    );
    let Some(diff) = entry["diff"].as_str() else {
        let _ = writeln!(content, "<div class=\"row\">{head}</div>");
        return;
    };
    let _ = write!(content, "<details><summary>{head}</summary><pre>");
    for line in diff.lines() {
        let class = match line.as_bytes().first() {
            Some(b'+') => "added",
            Some(b'-') => "removed",
            Some(b'@') => "soft",
            _ => "",
        };
        let line = escaped(line);
        let _ = match class {
            "" => writeln!(content, "{line}"),
            class => writeln!(content, "<span class=\"{class}\">{line}</span>"),
        };
    }
    content.push_str("</pre></details>\n");
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
        let page = of(&document);
        assert!(
            !page.contains("<script>") && page.contains("&lt;script&gt;"),
            "{page}"
        );
        assert!(page.contains("<span class=\"added\">+ a&lt;b</span>"));
        // The policy is the only attribute of that name, and there is no address in the page.
        assert!(
            !page.contains("http:") && !page.contains("https:"),
            "{page}"
        );
    }
}
