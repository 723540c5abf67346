//! Results as JSON: one document on standard output, with `schemaVersion`.

use serde::Serialize;
use serde_json::{Value, json};

/// The version of every document and event line.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// A command's result as its document.
pub(crate) fn document(command: &str, result: &impl Serialize) -> Value {
    let mut value =
        serde_json::to_value(result).unwrap_or_else(|e| json!({"error": e.to_string()}));
    if let Some(object) = value.as_object_mut() {
        object.insert("schemaVersion".into(), SCHEMA_VERSION.into());
        object.insert("command".into(), command.into());
    }
    value
}

/// A document as it is written.
///
/// # Errors
/// Never in practice: what cannot be JSON.
pub(crate) fn text(document: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}
