//! Label selectors as kubectl takes them (`-l`): `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`, joined by
//! commas (k8s.io/apimachinery, `pkg/labels/selector.go`).

use serde_json::{Map, Value};

/// A label selector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    label: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl std::str::FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = split(text)?;
        let parts = parts.iter().map(|part| requirement(part.trim()));
        parts.collect::<Result<_, _>>().map(Self)
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(format!("expected parentheses in pairs in {text:?}")),
            ',' if !inside => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("expected a closing parenthesis in {text:?}"));
    }
    parts.push(text.get(start..).unwrap_or_default());
    Ok(parts)
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let made = |label: &str, rule: Rule| match label.trim() {
        label if label.is_empty() || label.contains(char::is_whitespace) => {
            Err(format!("expected a label's name in {text:?}"))
        }
        label => Ok(Requirement {
            label: label.to_owned(),
            rule,
        }),
    };
    if let Some((label, value)) = text.split_once("!=") {
        return made(label, Rule::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((label, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return made(label, Rule::In(vec![value.trim().to_owned()]));
    }
    if let Some((head, list)) = text.split_once('(') {
        let list = list
            .strip_suffix(')')
            .ok_or_else(|| format!("expected a closing parenthesis in {text:?}"))?;
        let values = list
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let head = head.trim_end();
        if let Some(label) = head.strip_suffix(" notin") {
            return made(label, Rule::NotIn(values));
        }
        if let Some(label) = head.strip_suffix(" in") {
            return made(label, Rule::In(values));
        }
        return Err(format!("expected `in` or `notin` in {text:?}"));
    }
    match text.strip_prefix('!') {
        Some(label) => made(label, Rule::Absent),
        None => made(text, Rule::Exists),
    }
}

impl Selector {
    /// Whether an object's labels are selected.
    pub fn selects(&self, object: &Map<String, Value>) -> bool {
        let labels = object
            .get("metadata")
            .and_then(|metadata| metadata.get("labels"));
        self.0.iter().all(|requirement| {
            let value = labels
                .and_then(|labels| labels.get(&requirement.label))
                .and_then(Value::as_str);
            match (&requirement.rule, value) {
                (Rule::In(values), Some(value)) => values.iter().any(|known| known == value),
                (Rule::NotIn(values), Some(value)) => values.iter().all(|known| known != value),
                (Rule::Exists, value) => value.is_some(),
                (Rule::Absent, value) => value.is_none(),
                (Rule::In(_), None) => false,
                (Rule::NotIn(_), None) => true,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_as_kubectl_does() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": ""}}});
        let object = object.as_object().unwrap();
        for (selector, expected) in [
            ("app=web", true),
            ("app==web,tier", true),
            ("app=web,tier=front", false),
            ("app!=db", true),
            ("missing!=x", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("missing notin (a)", true),
            ("missing in (a)", false),
            ("!missing", true),
            ("!app", false),
            ("tier=", true),
        ] {
            let parsed: Selector = selector.parse().unwrap();
            assert_eq!(parsed.selects(object), expected, "{selector}");
        }
        assert!(!"app".parse::<Selector>().unwrap().selects(&Map::new()));
    }

    #[test]
    fn what_is_not_a_selector_is_refused() {
        for bad in [
            "",
            "a=b,",
            "a in b",
            "a in (b",
            "a b",
            "(a)",
            "a like (b)",
            "=b",
            "a)",
        ] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
