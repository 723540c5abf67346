//! Programs read what docs/schemas promises: every JSON document and event that a suite reads is
//! validated against its schema, and may have no field that the schema does not name.

use std::cell::RefCell;
use std::collections::BTreeMap;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

/// The folder of the schemas.
pub fn folder() -> std::path::PathBuf {
    crate::project().join("docs/schemas")
}

/// The names of all schemas, without their ending.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .expect("docs/schemas")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// A schema as it is there.
pub fn read(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A reader must ignore fields that are added later; here one that no schema names is a failure.
fn closed(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(closed);
            if object.get("properties").is_some_and(is_properties)
                && !object.contains_key("additionalProperties")
            {
                object.insert("additionalProperties".to_owned(), false.into());
            }
        }
        Value::Array(list) => list.iter_mut().for_each(closed),
        _ => {}
    }
}

/// The keyword, not a property of that name.
fn is_properties(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|properties| properties.values().all(Value::is_object))
}

fn url(name: &str) -> String {
    format!("file:///docs/schemas/{name}.json")
}

fn compiler(strict: bool) -> Compiler {
    let mut compiler = Compiler::new();
    compiler.enable_format_assertions();
    for name in names() {
        let mut schema = read(&name);
        if strict {
            closed(&mut schema);
        }
        compiler.add_resource(&url(&name), schema).expect("a URL");
    }
    compiler
}

/// What is wrong with a document by its schema; with `strict` a field that is not named is wrong.
pub fn complaint(name: &str, document: &Value, strict: bool) -> Option<String> {
    thread_local! {
        static COMPILED: RefCell<BTreeMap<(String, bool), (Schemas, SchemaIndex)>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let (schemas, index) = compiled
            .entry((name.to_owned(), strict))
            .or_insert_with(|| {
                let mut schemas = Schemas::new();
                let index = compiler(strict)
                    .compile(&url(name), &mut schemas)
                    .unwrap_or_else(|error| panic!("docs/schemas/{name}.json: {error:#}"));
                (schemas, index)
            });
        let wrong = schemas.validate(document, *index).err()?;
        Some(format!("{wrong:#}"))
    })
}

/// Demands that a document is as its schema says, and has nothing else.
#[track_caller]
pub fn check(name: &str, document: &Value) {
    // Open too, as a reader holds it: then two alternatives might fit that differ in a field only.
    for strict in [true, false] {
        if let Some(wrong) = complaint(name, document, strict) {
            panic!("it is not as docs/schemas/{name}.json says: {wrong}\n{document:#}");
        }
    }
}

/// The schema of what a command prints with `-o json`. A result may have an `error` too, where it
/// was done in part; a failure has a plan at most.
pub fn of_output(document: &Value) -> &str {
    let fields = document.as_object().map_or(0, serde_json::Map::len);
    let alone = ["schemaVersion", "command", "error", "plan"];
    let failed = alone
        .iter()
        .filter(|name| document.get(name).is_some())
        .count()
        == fields;
    match document["command"].as_str() {
        Some("schedule") if document.get("run").is_some() => "schedule",
        _ if failed && document.get("error").is_some() => "error",
        Some(command) => command,
        None => "text",
    }
}

/// Requires it of whatever a command printed.
#[track_caller]
pub fn check_output(document: &Value) {
    check(of_output(document), document);
}

/// Demands it of each line of `--progress json`; how many there were.
#[track_caller]
pub fn check_events(lines: &str) -> usize {
    for line in lines.lines() {
        let event = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        check("event", &event);
    }
    lines.lines().count()
}
