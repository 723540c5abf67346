//! A container of a static pod: its command, its variables, its mounts.

use std::path::PathBuf;

use super::flags::flags;
use super::variables::{Value, Variables};
use super::{expand, shell};

/// A container of a [`PodManifest`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// `command` followed by `args`, with the variables replaced that are known.
    pub words: Vec<String>,
    /// Variables whose value is known; those that only the kubelet knows are absent.
    pub env: Vec<(String, String)>,
    /// Volume mounts.
    pub mounts: Vec<Mount>,
    /// The user and the group that its own `securityContext` names.
    pub run_as: RunAs,
    /// Variables that only the kubelet knows: references to them are still in `words`.
    pub(super) unknown: Vec<String>,
    /// The program's words, where a shell starts it by a plain script.
    pub(super) program: Vec<String>,
    /// What all that is made from.
    pub(super) written: Written,
}

/// Whom a `securityContext` lets processes run as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunAs {
    /// `runAsUser`.
    pub user: Option<u32>,
    /// `runAsGroup`.
    pub group: Option<u32>,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name.
    pub volume: String,
    /// The path inside the container.
    pub path: PathBuf,
    /// The part of the volume that is mounted; empty for all of it.
    pub sub_path: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

impl Container {
    /// A variable's literal value; of several the last.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Replaces the references to variables; `field` gives the values of the pod's fields.
    pub(super) fn resolve(&mut self, field: impl Fn(&str) -> Option<String>) {
        let variables = Variables::new(&self.written.env, field);
        let words = self.written.words.iter();
        self.words = words.map(|word| variables.expand(word)).collect();
        self.program = shell::script(&self.words)
            .and_then(|script| shell::command(script, |name| variables.value(name)))
            .unwrap_or_default();
        (self.env, self.unknown) = variables.into_parts();
    }

    /// The words of the program: those of the shell's one command, where a shell starts it.
    fn program(&self) -> &[String] {
        match self.program.is_empty() {
            true => &self.words,
            false => &self.program,
        }
    }

    /// Whether a shell starts the program, by a script that does not plainly tell its flags.
    pub fn is_scripted(&self) -> bool {
        self.program.is_empty() && shell::script(&self.words).is_some()
    }

    /// Whether it runs a program of this name.
    pub fn runs(&self, program: &str) -> bool {
        let words = self.program().iter();
        // A word behind a flag may be its value.
        let mut names = words.take_while(|word| !word.starts_with("--"));
        names.any(|word| word.rsplit('/').next() == Some(program))
    }

    /// A flag's value, written `--name=value` or `--name value`; of several the last, as the
    /// programs of Kubernetes and etcd take it. One that only the kubelet knows is absent.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let text = self.flag_text(name)?;
        self.is_known(text).then_some(text)
    }

    /// Whether a text has no reference that only the kubelet can replace.
    pub fn is_known(&self, text: &str) -> bool {
        expand::refers_to(text, &self.unknown).is_none()
    }

    /// A flag's value, also one with references that only the kubelet can replace.
    pub fn flag_text(&self, name: &str) -> Option<&str> {
        let words = self.program().iter().map(String::as_str);
        let values = flags(words).filter_map(|flag| (flag.name == name).then_some(flag.value?));
        values.last()
    }

    /// All flags with their values, also those in a script that is not plain; one without a value
    /// is `true`. A value may be one that only the shell knows.
    pub fn all_flags(&self) -> Vec<(&str, &str)> {
        let words = self.words.iter().flat_map(|word| {
            word.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '\\'))
        });
        let words = words.filter(|word| !word.is_empty());
        flags(words)
            .map(|flag| (flag.name, flag.value.unwrap_or("true")))
            .collect()
    }

    /// The flags and variables that only the kubelet knows, as they are written.
    pub fn unknown_words(&self) -> Vec<&str> {
        let words = self.program().iter().map(String::as_str);
        words.filter(|word| !self.is_known(word)).collect()
    }
}

/// A container's command and variables as the manifest has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) words: Vec<String>,
    pub(super) env: Vec<(String, Value)>,
}
