//! `get SET KIND…`: the objects themselves, in the form that is asked for.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::args::{GetArgs, OutputArg};
use super::super::output::table::{Table, nothing, terminal_width};
use super::super::output::{terminal, words};
use super::super::session::{Session, Shown};
use super::printer::{Form, Printer};
use crate::error::{Doing, Failure, Kind, Result, exit};
use crate::etcd::keyspace::{Key, Keyspace};
use crate::inspect::look::{Reader, Selection};
use crate::objects::apply::{self, LeftOut};
use crate::objects::atrest::Locked;
use crate::objects::kinds::{Place, place};
use crate::objects::selector::Selector;
use crate::objects::{Object, Unread, mask};
use crate::sys::quote::printable;

/// What an object is shown by.
struct Shower<'a> {
    session: &'a Session,
    args: &'a GetArgs,
    reader: &'a Reader<'a>,
    selector: &'a Selector,
    problems: Problems,
    left_out: BTreeMap<LeftOut, u64>,
    secrets_left_out: u64,
    seen: u64,
}

/// What could not be shown.
#[derive(Default)]
struct Problems {
    failures: Vec<Failure>,
    locked: bool,
    more: u64,
}

/// Problems that are named one by one.
const MAX_PROBLEMS: usize = 20;

impl Problems {
    fn add(&mut self, what: String) {
        match self.failures.len() < MAX_PROBLEMS {
            true => self.failures.push(Failure::new(Kind::Partial, what)),
            false => self.more += 1,
        }
    }
}

pub(super) fn run(
    session: &Session,
    args: &GetArgs,
    reader: &Reader<'_>,
    selection: &Selection,
    selector: &Selector,
) -> Result<Shown> {
    let output = session.global.output;
    let secret = |kind: &crate::objects::kinds::Resource| {
        kind.path == "secrets" || kind.path.starts_with("oauth/")
    };
    if output == OutputArg::Raw
        && !args.shown.show_secrets
        && (selection.is_every_kind() || selection.kinds().any(secret))
    {
        let what =
            "raw values of Secrets cannot be masked: add --show-secrets, or name other kinds";
        return Err(Failure::new(Kind::Usage, what));
    }
    let takes = |key: &[u8]| selection.takes(key, &reader.kinds);
    let space = match selection.is_one_key() {
        true => Keyspace::one(&reader.database, args.revision, &takes)?,
        false => Keyspace::read(&reader.database, args.revision, &takes)?,
    };
    let mut keys: Vec<Key<'_>> = space.keys().collect();
    if args.for_apply {
        keys.sort_by_key(|key| rank(reader, key));
    }
    let mut shower = Shower {
        session,
        args,
        reader,
        selector,
        problems: Problems::default(),
        left_out: BTreeMap::new(),
        secrets_left_out: 0,
        seen: 0,
    };
    let single = selection.is_single();
    match (output, args.for_apply) {
        (OutputArg::Raw, _) => shower.raw(&space, &keys)?,
        (OutputArg::Name, _) => shower.names(&keys)?,
        (OutputArg::Yaml, _) | (OutputArg::Json, _) | (_, true) => shower.printed(&keys, single)?,
        _ => shower.table(&keys)?,
    }
    shower.ended(selection, &space)
}

fn rank(reader: &Reader<'_>, key: &Key<'_>) -> u8 {
    let place = place(key.name, &reader.kinds);
    let kind = place.and_then(|place| reader.kinds.at(place.path));
    match (kind, place) {
        (Some(kind), _) => apply::rank(&kind.group, &kind.kind),
        (None, Some(place)) => apply::rank(
            place.path.split_once('/').map_or("", |(group, _)| group),
            "",
        ),
        (None, None) => u8::MAX,
    }
}

impl Shower<'_> {
    /// The object under a key, if it is selected and can be shown; what cannot be shown is reported.
    fn object(&mut self, key: &Key<'_>) -> Result<Option<Object>> {
        self.session.context.cancel.check()?;
        match self.reader.object(key)? {
            Ok(object) => {
                let selected = self.selector.selects(&object.json);
                self.seen += u64::from(selected);
                Ok(selected.then_some(object))
            }
            Err(why) => {
                self.problems.locked |= matches!(why, Unread::Locked(_));
                let hint = match &why {
                    Unread::Locked(Locked::NoKey { .. }) => {
                        "; give its file with --encryption-config"
                    }
                    Unread::UnknownKind { .. } => "; -o raw writes the stored bytes",
                    _ => "",
                };
                self.problems
                    .add(format!("{}: {why}{hint}", shown(key.name)));
                Ok(None)
            }
        }
    }

    fn printed(&mut self, keys: &[Key<'_>], single: bool) -> Result<()> {
        let form = Form::of(self.session.global.output);
        let single = single && keys.len() == 1;
        let mut printer = Printer::new(form, single, self.args.for_apply);
        for key in keys {
            let Some(object) = self.object(key)? else {
                continue;
            };
            if let Some(object) = self.prepared(object) {
                let written = printer.object(object.json);
                written.doing(Kind::Unexpected, || "writing the result")?;
            }
        }
        // Nothing by itself is not a document.
        match single && self.seen == 0 {
            true => Ok(()),
            false => printer
                .end()
                .doing(Kind::Unexpected, || "writing the result"),
        }
    }

    /// An object as it is printed: cleaned, masked, with the numbers of unknown fields.
    fn prepared(&mut self, mut object: Object) -> Option<Object> {
        if self.args.for_apply {
            if let Err(reason) = apply::clean(&mut object) {
                *self.left_out.entry(reason).or_default() += 1;
                return None;
            }
            if !self.args.shown.show_secrets && mask::is_secret(&object.json) {
                self.secrets_left_out += 1;
                return None;
            }
        }
        if !self.args.shown.show_secrets {
            mask::mask(&mut object.json);
        }
        if !object.unknown_fields.is_empty() {
            let fields = object.unknown_fields.join(", ");
            let name = object.meta("name").to_owned();
            self.problems.add(format!(
                "{} {name}: fields that this version does not know: {fields}",
                object.kind()
            ));
            if !self.args.for_apply {
                object
                    .json
                    .insert("unknownFields".to_owned(), json!(object.unknown_fields));
            }
        }
        Some(object)
    }

    fn names(&mut self, keys: &[Key<'_>]) -> Result<()> {
        let mut out = io::stdout().lock();
        for key in keys {
            let Some(place) = place(key.name, &self.reader.kinds) else {
                continue;
            };
            // Labels are in the value; without a selector it is not read.
            if self.args.selector.is_some() && self.object(key)?.is_none() {
                continue;
            }
            self.seen += u64::from(self.args.selector.is_none());
            let line = self.named(&place);
            let written = writeln!(out, "{}", printable(line));
            written.doing(Kind::Unexpected, || "writing the result")?;
        }
        Ok(())
    }

    /// `KIND.GROUP/NAME`, as `kubectl get -o name` prints it.
    fn named(&self, place: &Place<'_>) -> String {
        match self.reader.kinds.at(place.path) {
            Some(kind) if kind.group.is_empty() => format!("{}/{}", kind.singular, place.name),
            Some(kind) => format!("{}.{}/{}", kind.singular, kind.group, place.name),
            None => format!("{}/{}", place.path, place.name),
        }
    }

    fn raw(&mut self, space: &Keyspace<'_>, keys: &[Key<'_>]) -> Result<()> {
        let [key] = keys else {
            let what = format!(
                "-o raw writes one object, and {} are selected: give KIND/NAME and -n",
                keys.len()
            );
            return Err(Failure::new(Kind::Usage, what));
        };
        self.seen = 1;
        let mut out = io::stdout().lock();
        let written = out
            .write_all(&space.value(key.value)?)
            .and_then(|()| out.flush());
        written.doing(Kind::Unexpected, || "writing the result")
    }

    fn table(&mut self, keys: &[Key<'_>]) -> Result<()> {
        let place_of =
            |key: &Key<'_>| place(key.name, &self.reader.kinds).map(|place| place.path.to_owned());
        let mut paths: Vec<_> = keys.iter().map(place_of).collect();
        paths.dedup();
        let several = paths.len() > 1;
        let namespaced = keys.iter().any(|key| {
            place(key.name, &self.reader.kinds).is_some_and(|place| place.namespace.is_some())
        });
        let mut table = match namespaced {
            true => Table::new(&["NAMESPACE", "NAME", "AGE"]),
            false => Table::new(&["NAME", "AGE"]),
        };
        for key in keys {
            let Some(place) = place(key.name, &self.reader.kinds) else {
                continue;
            };
            let Some(object) = self.object(key)? else {
                continue;
            };
            let mut row = Vec::new();
            if namespaced {
                row.push(place.namespace.map_or_else(nothing, str::to_owned));
            }
            row.push(match several {
                true => self.named(&place),
                false => place.name.to_owned(),
            });
            row.push(age(&object, self.session.context.now));
            table.row(row);
        }
        if self.seen > 0 {
            let text = table.render(terminal_width());
            let written = io::stdout().lock().write_all(text.as_bytes());
            written.doing(Kind::Unexpected, || "writing the result")?;
        }
        Ok(())
    }

    /// What is told at the end, and the exit status.
    fn ended(mut self, selection: &Selection, space: &Keyspace<'_>) -> Result<Shown> {
        let missing: Vec<String> = selection
            .named()
            .filter(|(kind, name)| {
                !space.keys().any(|key| {
                    place(key.name, &self.reader.kinds)
                        .is_some_and(|place| place.path == kind.path && place.name == *name)
                })
            })
            .map(|(kind, name)| format!("{} {name:?}", kind.name()))
            .collect();
        if !missing.is_empty() && self.seen == 0 {
            let what = format!(
                "{} has no {}",
                self.reader.source().name,
                missing.join(", no ")
            );
            return Err(Failure::new(Kind::Usage, what));
        }
        for missing in missing {
            self.problems.add(format!("there is no {missing}"));
        }
        let mut remarks: Vec<String> = Vec::new();
        if self.seen == 0 && self.problems.failures.is_empty() {
            remarks.push("no objects found".to_owned());
        }
        for (reason, count) in &self.left_out {
            remarks.push(format!("{count} left out: {}", reason.words()));
        }
        if self.secrets_left_out > 0 {
            let what = format!(
                "{} Secrets are left out: add --show-secrets to include them",
                self.secrets_left_out
            );
            self.problems.add(what);
        }
        if self.problems.more > 0 {
            remarks.push(format!(
                "{} more problems are not listed",
                self.problems.more
            ));
        }
        for remark in remarks {
            terminal::tell_line(printable(remark));
        }
        let status = match (self.problems.failures.is_empty(), self.problems.locked) {
            (true, _) => exit::DONE,
            (false, true) => exit::NOT_CHECKED,
            (false, false) => exit::PARTIAL,
        };
        Ok(Shown {
            problems: self.problems.failures,
            status,
            ..Shown::done(String::new(), Value::Null)
        })
    }
}

fn age(object: &Object, now: Timestamp) -> String {
    let created = object.meta("creationTimestamp").parse::<Timestamp>();
    created.map_or_else(|_| nothing(), |created| words::age(created, now))
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
