//! From a message to the JSON that the API server makes of it.
//!
//! The API server decodes a message into a Go type and writes that as JSON, so that the rules are Go's: a field is
//! left out if it is empty and its tag says `omitempty`, a pointer is left out if it is nil, a struct is never left
//! out, and a nil list that must be there is `null`. In a message, a field that is not a pointer is always present; so
//! whether an empty one is shown depends on its shape alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage,
    Value as Field,
};
use serde_json::{Map, Number, Value};

use super::descriptors::{Descriptors, Shape};
use super::scalars::Special;

/// Unknown fields that are named one by one.
const MAX_UNKNOWN: usize = 1000;

/// A walk over one object.
pub(super) struct Walk<'a> {
    descriptors: &'a Descriptors,
    /// Fields that the descriptors do not know, as paths that end in a number.
    pub(super) unknown: Vec<String>,
    path: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(descriptors: &'a Descriptors) -> Self {
        Self {
            descriptors,
            unknown: Vec::new(),
            path: Vec::new(),
        }
    }

    /// The JSON object of a message.
    ///
    /// # Errors
    /// Where, and what was expected and found.
    pub(super) fn object(
        &mut self,
        message: &DynamicMessage,
    ) -> Result<Map<String, Value>, String> {
        let mut object = Map::new();
        self.fields(message, &mut object)?;
        Ok(object)
    }

    fn fields(
        &mut self,
        message: &DynamicMessage,
        object: &mut Map<String, Value>,
    ) -> Result<(), String> {
        for field in message.unknown_fields() {
            if self.unknown.len() < MAX_UNKNOWN {
                let number = field.number().to_string();
                let path = self.path.iter().chain(std::iter::once(&number));
                let path = path.map(String::as_str).collect::<Vec<_>>().join(".");
                if !self.unknown.contains(&path) {
                    self.unknown.push(path);
                }
            }
        }
        for field in message.descriptor().fields() {
            let shape = self.descriptors.shape(&field);
            if shape.inline() {
                if let Some(inner) = Self::inline(message, &field, shape) {
                    self.fields(&inner, object)?;
                }
                continue;
            }
            self.path.push(field.json_name().to_owned());
            let value = self.field(message, &field, shape)?;
            self.path.pop();
            if let Some(value) = value {
                object.insert(field.json_name().to_owned(), value);
            }
        }
        Ok(())
    }

    fn inline(
        message: &DynamicMessage,
        field: &FieldDescriptor,
        shape: Shape,
    ) -> Option<DynamicMessage> {
        if shape.pointer() && !message.has_field(field) {
            return None;
        }
        match message.get_field(field).into_owned() {
            Field::Message(inner) => Some(inner),
            _ => None,
        }
    }

    /// The JSON of a field; none if it is left out.
    fn field(
        &mut self,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        shape: Shape,
    ) -> Result<Option<Value>, String> {
        let present = message.has_field(field);
        if field.is_map() || field.cardinality() == Cardinality::Repeated {
            if !present {
                return Ok(shape.always().then_some(Value::Null));
            }
            return self.collection(&message.get_field(field)).map(Some);
        }
        if shape.pointer() && !present {
            return Ok(shape.always().then_some(Value::Null));
        }
        if let Kind::Message(descriptor) = field.kind() {
            return self.message(message, field, &descriptor, shape);
        }
        let value = message.get_field(field);
        let shown = match value.as_ref() {
            _ if shape.pointer() => true,
            // A nil slice that must be there is null.
            Field::Bytes(_) if !present => return Ok(shape.always().then_some(Value::Null)),
            Field::Bytes(bytes) => shape.always() || !bytes.is_empty(),
            Field::String(text) => shape.always() || !text.is_empty(),
            Field::Bool(value) => shape.always() || *value,
            Field::I32(value) => shape.always() || *value != 0,
            Field::I64(value) => shape.always() || *value != 0,
            Field::U32(value) => shape.always() || *value != 0,
            Field::U64(value) => shape.always() || *value != 0,
            _ => true,
        };
        match shown {
            true => self.value(&value).map(Some),
            false => Ok(None),
        }
    }

    fn message(
        &mut self,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        descriptor: &MessageDescriptor,
        shape: Shape,
    ) -> Result<Option<Value>, String> {
        let present = message.has_field(field);
        // A list or a map by another name is nil if it is absent.
        if self.descriptors.is_items(descriptor) && !present {
            return Ok(shape.always().then_some(Value::Null));
        }
        let inner = message.get_field(field);
        let value = self.value(&inner)?;
        // Only times have this tag so far, and a zero time is null.
        let omitted = value.is_null() && shape.omit_zero();
        Ok((!omitted).then_some(value))
    }

    fn collection(&mut self, value: &Field) -> Result<Value, String> {
        match value {
            Field::List(list) => {
                let mut values = Vec::with_capacity(list.len());
                for (index, item) in list.iter().enumerate() {
                    self.path.push(index.to_string());
                    values.push(self.value(item)?);
                    self.path.pop();
                }
                Ok(Value::Array(values))
            }
            Field::Map(map) => {
                let mut object = Map::new();
                for (key, item) in map {
                    let key = key_text(key);
                    self.path.push(key.clone());
                    let value = self.value(item)?;
                    self.path.pop();
                    object.insert(key, value);
                }
                Ok(Value::Object(object))
            }
            other => self.value(other),
        }
    }

    fn value(&mut self, value: &Field) -> Result<Value, String> {
        Ok(match value {
            Field::Bool(value) => Value::Bool(*value),
            Field::I32(value) | Field::EnumNumber(value) => (*value).into(),
            Field::I64(value) => (*value).into(),
            Field::U32(value) => (*value).into(),
            Field::U64(value) => (*value).into(),
            Field::F32(value) => float(f64::from(*value)),
            Field::F64(value) => float(*value),
            Field::String(text) => Value::String(text.clone()),
            Field::Bytes(bytes) => Value::String(STANDARD.encode(bytes)),
            Field::Message(message) => self.any_message(message)?,
            Field::List(_) | Field::Map(_) => self.collection(value)?,
        })
    }

    fn any_message(&mut self, message: &DynamicMessage) -> Result<Value, String> {
        let descriptor = message.descriptor();
        if let Some(special) = Special::of(descriptor.full_name()) {
            let json = special.json(message);
            return json.map_err(|what| format!("{}: {what}", self.path.join(".")));
        }
        if self.descriptors.is_items(&descriptor) {
            let Some(items) = descriptor.get_field(1) else {
                return Ok(Value::Null);
            };
            return self.collection(&message.get_field(&items));
        }
        self.object(message).map(Value::Object)
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// Go writes a whole number without a point.
pub(super) fn float(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Value::Number(Number::from(value as i64));
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
