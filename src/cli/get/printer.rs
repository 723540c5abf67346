//! Writing objects one by one, so that memory does not grow with their number.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde_json::{Map, Value, json};

use super::super::args::OutputArg;
use crate::objects::yaml;

/// How objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// YAML documents, or one.
    Yaml,
    /// One JSON document.
    Json,
}

impl Form {
    pub(super) fn of(output: OutputArg) -> Self {
        match output {
            OutputArg::Json => Self::Json,
            _ => Self::Yaml,
        }
    }
}

/// Writes objects as kubectl does: one by itself, several as a `List`, or, to be applied, as YAML documents.
pub(super) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    form: Form,
    /// One object, without a list around it.
    single: bool,
    /// YAML documents instead of a list.
    documents: bool,
    written: u64,
}

impl Printer {
    pub(super) fn new(form: Form, single: bool, documents: bool) -> Self {
        Self {
            out: BufWriter::new(io::stdout().lock()),
            form,
            single,
            documents,
            written: 0,
        }
    }

    pub(super) fn object(&mut self, object: Map<String, Value>) -> io::Result<()> {
        let value = Value::Object(object);
        match self.form {
            Form::Yaml => self.yaml(&value)?,
            Form::Json => self.json(&value)?,
        }
        self.written += 1;
        Ok(())
    }

    fn yaml(&mut self, value: &Value) -> io::Result<()> {
        let mut text = String::new();
        if self.single || self.documents {
            if self.written > 0 {
                text.push_str("---\n");
            }
            yaml::write(&mut text, value);
        } else {
            if self.written == 0 {
                text.push_str("apiVersion: v1\nitems:\n");
            }
            yaml::write_item(&mut text, value);
        }
        self.out.write_all(text.as_bytes())
    }

    fn json(&mut self, value: &Value) -> io::Result<()> {
        if self.single {
            serde_json::to_writer_pretty(&mut self.out, value)?;
            return self.out.write_all(b"\n");
        }
        let before = match self.written {
            0 => "{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n",
            _ => ",\n",
        };
        self.out.write_all(before.as_bytes())?;
        serde_json::to_writer_pretty(&mut self.out, value)?;
        Ok(())
    }

    /// Ends the document.
    pub(super) fn end(mut self) -> io::Result<()> {
        if !(self.single || self.documents && self.form == Form::Yaml) {
            let empty = json!({"apiVersion": "v1", "items": [], "kind": "List", "metadata": {"resourceVersion": ""}});
            let text = match (self.form, self.written) {
                (Form::Yaml, 0) => {
                    let mut text = String::new();
                    yaml::write(&mut text, &empty);
                    text
                }
                (Form::Yaml, _) => "kind: List\nmetadata:\n  resourceVersion: \"\"\n".to_owned(),
                (Form::Json, 0) => format!("{empty:#}\n"),
                (Form::Json, _) => {
                    "\n    ],\n    \"kind\": \"List\",\n    \"metadata\": {\n        \"resourceVersion\": \"\"\n    }\n}\n".to_owned()
                }
            };
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }
}
