//! How two states of an object differ, as a unified difference of their YAML.

use std::time::Duration;

use serde_json::{Map, Value};
use similar::TextDiff;

use super::{mask, yaml};

/// How long the smallest difference is searched for. Two texts of a megabyte without a line in common would take minutes; what
/// is found until then is a difference as well, only not the smallest one.
const LIMIT: Duration = Duration::from_millis(500);

/// An object as it is compared: without managedFields, and without the values of a Secret unless they are to be shown.
pub fn text(mut object: Map<String, Value>, show_secrets: bool) -> String {
    if !show_secrets {
        mask::mask(&mut object);
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let mut text = String::new();
    yaml::write(&mut text, &Value::Object(object));
    text
}

/// The difference of two such texts; an object that is not there is an empty one.
pub fn unified(before: &str, after: &str) -> String {
    let mut config = TextDiff::configure();
    let diff = config.timeout(LIMIT).diff_lines(before, after);
    diff.unified_diff().to_string()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::Instant;

    use super::*;

    #[test]
    fn large_texts_without_a_common_line_do_not_take_long() {
        let lines = |word: &str| {
            (0..30_000).fold(String::new(), |mut text, i| {
                let _ = writeln!(text, "{word}: {i}");
                text
            })
        };
        let (before, after) = (lines("a"), lines("b"));
        let began = Instant::now();
        let diff = unified(&before, &after);
        assert!(diff.lines().filter(|line| line.starts_with('+')).count() >= 30_000);
        // A minute even where the machine is busy: without the limit it is many.
        assert!(began.elapsed() < Duration::from_secs(60));
        assert_eq!(unified("a: 1\n", "a: 1\n"), "");
        assert_eq!(unified("", "a: 1\n"), "@@ -0,0 +1 @@\n+a: 1\n");
    }
}
