//! Fields of objects.

use serde_json::{Map, Value};

/// Removes entries of a map, and the map when it is empty.
pub(super) fn clean_map(parent: &mut Map<String, Value>, field: &str, names: &[&str]) {
    let Some(map) = parent.get_mut(field).and_then(Value::as_object_mut) else {
        return;
    };
    for name in names {
        map.remove(*name);
    }
    if map.is_empty() {
        parent.remove(field);
    }
}
