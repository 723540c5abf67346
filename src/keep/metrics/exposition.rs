//! From OpenMetrics' text, which the library writes, to Prometheus' own (version 0.0.4), which is
//! all that node_exporter reads. They differ for what is written here in two ways: a counter's
//! family bears the suffix `_total` itself, and there is no end mark.

use std::collections::BTreeSet;

/// The same in the other format.
pub(super) fn classic(text: &str) -> String {
    let counter = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
        Some(name.to_owned())
    };
    let counters: BTreeSet<String> = text.lines().filter_map(counter).collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let head = ["# HELP ", "# TYPE "].into_iter().find_map(|head| {
            let (name, rest) = line.strip_prefix(head)?.split_once(' ')?;
            counters.contains(name).then_some((head, name, rest))
        });
        match head {
            Some((head, name, rest)) => {
                out.push_str(&format!("{head}{name}_total {rest}\n"));
            }
            None => {
                // A family without labels.
                match line.split_once("{} ") {
                    Some((name, value)) if !name.contains(['{', '#']) => {
                        out.push_str(&format!("{name} {value}"));
                    }
                    _ => out.push_str(line),
                }
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_bear_their_suffix_and_nothing_else_changes() {
        let text = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\"} 1\n\
                    # HELP b B {} .\n# TYPE b gauge\nb{} 2\nb{x=\"{} \"} 3\n# EOF\n";
        let expected = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\"} 1\n\
                        # HELP b B {} .\n# TYPE b gauge\nb 2\nb{x=\"{} \"} 3\n";
        assert_eq!(classic(text), expected);
    }
}
