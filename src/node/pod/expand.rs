//! The kubelet's references to variables, `$(NAME)`, in a container's command and variables.
//!
//! As the kubelet does it (kubernetes, `third_party/forked/golang/expansion`): `$$` is a dollar
//! sign, so that `$$(NAME)` is not a reference, and a name that no variable has stays as it is
//! written.

/// The text with each reference replaced by what `value` says; if it says nothing the reference
/// stays.
pub(super) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            after
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|a| a.split_once(')'))
        {
            match value(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&format!("$({name})")),
            }
            after
        } else {
            expanded.push('$');
            after
        };
    }
    expanded + rest
}

/// Whether a text refers to one of these variables.
pub(super) fn refers_to<'a>(text: &str, names: &'a [String]) -> Option<&'a String> {
    names
        .iter()
        .find(|name| text.contains(&format!("$({name})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_the_kubelet_does() {
        let value = |name: &str| (name == "A").then(|| "1$(A)".to_owned());
        for (text, expected) in [
            ("x", "x"),
            ("$(A)", "1$(A)"),
            ("--n=$(A):$(A)", "--n=1$(A):1$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1$(A)"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$A ${A} $", "$A ${A} $"),
            ("$()", "$()"),
            ("$(ä)$(A)", "$(ä)1$(A)"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }
}
