//! The clusters that must have backups: a file of names, since what is absent from every store shows nowhere else.

use std::collections::BTreeSet;

use crate::error::{Failure, Kind, Result};

/// The most clusters that a file may list.
const MOST: usize = 100_000;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// The cluster, as its folder in a store is called.
    pub cluster: String,
    /// The node; none: one recent backup of any node is enough.
    pub node: Option<String>,
    /// What people call the cluster.
    pub label: Option<String>,
}

/// Reads the file: a cluster a line, `CLUSTER` or `CLUSTER/NODE`, then what to call it; `#` starts a comment.
///
/// # Errors
/// [`Kind::Usage`], with the line.
pub fn parse(text: &str) -> Result<Vec<Expected>> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: &str| Failure::new(Kind::Usage, format!("line {number}: {what}"));
        let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
        if line.is_empty() {
            continue;
        }
        let (word, label) = match line.split_once(char::is_whitespace) {
            Some((word, label)) => (word, Some(label.trim().to_owned())),
            None => (line, None),
        };
        let (cluster, node) = match word.split_once('/') {
            Some((cluster, node)) => (cluster, Some(node)),
            None => (word, None),
        };
        let empty = cluster.is_empty() || node.is_some_and(str::is_empty);
        if empty || node.is_some_and(|node| node.contains('/')) {
            return Err(wrong(
                "expected CLUSTER or CLUSTER/NODE, then a name to show",
            ));
        }
        if !known.insert(word.to_owned()) {
            return Err(wrong(&format!("{word} is listed twice")));
        }
        if found.len() >= MOST {
            return Err(wrong(&format!("more than {MOST} clusters are listed")));
        }
        found.push(Expected {
            cluster: cluster.to_owned(),
            node: node.map(str::to_owned),
            label,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_cluster_a_node_and_what_to_call_it() {
        let text = "# all\n\nc1\nc2/m0   prod eu 1 # the old one\n c3  stage\n";
        let expected = |cluster: &str, node: Option<&str>, label: Option<&str>| Expected {
            cluster: cluster.to_owned(),
            node: node.map(str::to_owned),
            label: label.map(str::to_owned),
        };
        let all = [
            expected("c1", None, None),
            expected("c2", Some("m0"), Some("prod eu 1")),
            expected("c3", None, Some("stage")),
        ];
        assert_eq!(parse(text).unwrap(), all);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for (text, what) in [
            ("c1\n/m0", "line 2: expected CLUSTER"),
            ("c1/", "line 1: expected CLUSTER"),
            ("c1/m0/x", "line 1: expected CLUSTER"),
            ("c1\nc2\nc1 again", "line 3: c1 is listed twice"),
        ] {
            let failure = parse(text).unwrap_err();
            assert_eq!(failure.kind(), Kind::Usage);
            assert!(failure.to_string().starts_with(what), "{failure}");
        }
    }
}
