//! A container's variables, as far as their values are known.

use super::expand;

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A field of the pod, such as `spec.nodeName`.
    Field(String),
    /// Something else, which a static pod cannot have.
    Other,
}

/// Variables with a value, and the names of those that only the kubelet knows.
#[derive(Default)]
pub(super) struct Variables {
    known: Vec<(String, String)>,
    unknown: Vec<String>,
}

impl Variables {
    /// Those that a manifest writes; `field` gives the values of the pod's fields.
    pub(super) fn new(written: &[(String, Value)], field: impl Fn(&str) -> Option<String>) -> Self {
        let mut variables = Self::default();
        for (name, value) in written {
            let value = match value {
                // A variable sees those before it.
                Value::Text(text) => {
                    let text = variables.expand(text);
                    let unknown = expand::refers_to(&text, &variables.unknown).is_some();
                    (!unknown).then_some(text)
                }
                Value::Field(path) => field(path),
                Value::Other => None,
            };
            variables.set(name, value);
        }
        variables
    }

    /// The last of a name counts.
    fn set(&mut self, name: &str, value: Option<String>) {
        self.unknown.retain(|unknown| unknown != name);
        self.known.retain(|(known, _)| known != name);
        match value {
            Some(value) => self.known.push((name.to_owned(), value)),
            None => self.unknown.push(name.to_owned()),
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        let (_, value) = self.known.iter().find(|(known, _)| known == name)?;
        Some(value.clone())
    }

    /// A text with the references replaced whose values are known.
    pub(super) fn expand(&self, text: &str) -> String {
        expand::expand(text, |name| self.value(name))
    }

    /// The known ones, and the names of the others.
    pub(super) fn into_parts(self) -> (Vec<(String, String)>, Vec<String>) {
        (self.known, self.unknown)
    }
}
