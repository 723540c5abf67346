//! The revision that an operator means: by number, by time, or by what happened to a key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde::{Deserialize, Serialize};

use super::clock::{At, Clock, ClockReader, Moments, Received};
use super::object::ObjectKey;
use super::read::{Change, History, Span};
use super::stored::Stamps;
use super::undone::Undone;
use crate::error::{Failure, Kind, Result};

/// The refusal of a revision or a time that is not in the history.
pub const UNREACHABLE: &str = "unreachable-target";
/// Keys that are followed, where a word names several.
const MAX_KEYS: usize = 16;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This revision, included.
    Revision(i64),
    /// The last revision written at or before this time.
    Time(Timestamp),
    /// The revision before this key was deleted, or last changed: the key itself, or
    /// KIND/NAMESPACE/NAME, or KIND/NAME.
    Before(String),
}

/// The revisions and times that a history reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// The revisions.
    #[serde(flatten)]
    pub span: Span,
    /// The first time that is known in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_time: Option<Timestamp>,
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Timestamp>,
    /// What the times are known by; nothing if no object has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
}

impl Reach {
    /// Of these revisions and their times.
    pub fn of(span: Span, moments: Option<&Moments>) -> Self {
        let ends = moments.and_then(Moments::ends);
        Self {
            span,
            from_time: ends.map(|ends| whole(ends.0)),
            to_time: ends.map(|ends| whole(ends.1)),
            clock: moments.map(Moments::clock),
        }
    }

    /// What a history reaches.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn read(history: &History) -> Result<Self> {
        let moments = read_clock(history, &mut |_| {})?;
        Ok(Self::of(history.span(), moments.as_ref()))
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revisions {} to {}", self.span.from, self.span.to)?;
        match (self.from_time, self.to_time) {
            (Some(from), Some(to)) => write!(f, ", {from} to {to}"),
            _ => f.write_str(" (no object in it has a time)"),
        }
    }
}

/// A revision to restore to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The revision, included.
    pub revision: i64,
    /// When it was written, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// What it was chosen for, in a sentence.
    pub reason: String,
    /// What can be reached.
    pub reachable: Reach,
    /// What a restore to it undoes.
    pub undone: Undone,
}

impl Moment {
    /// Finds the revision that is meant.
    ///
    /// # Errors
    /// The refusal `unreachable-target`, not to be allowed, with what can be reached;
    /// [`Kind::Usage`] for a word that names several keys; those of reading the history.
    pub fn find(history: &History, target: &Target) -> Result<Self> {
        let mut sought = match target {
            Target::Before(word) => Some(Sought::new(word)),
            Target::Revision(_) | Target::Time(_) => None,
        };
        let moments = read_clock(history, &mut |change| {
            if let Some(sought) = &mut sought {
                sought.take(change);
            }
        })?;
        let span = history.span();
        let reach = Reach::of(span, moments.as_ref());
        let (revision, reason) = match target {
            Target::Revision(revision) => (*revision, "as requested".to_owned()),
            Target::Time(time) => at_time(*time, span, moments.as_ref(), &reach)?,
            Target::Before(word) => match sought {
                Some(sought) => sought.finish(history, &reach)?,
                None => {
                    return Err(unreachable(
                        &format!("no change of {word} is in it"),
                        &reach,
                    ));
                }
            },
        };
        if !span.holds(revision) {
            let what = format!("revision {revision} cannot be reached");
            return Err(unreachable(&what, &reach));
        }
        let time = moments
            .as_ref()
            .and_then(|moments| moments.time_of(revision));
        Ok(Self {
            revision,
            time: time.map(whole),
            reason,
            reachable: reach,
            undone: Undone::after(history, revision)?,
        })
    }
}

/// A time in whole seconds, as pages and documents show it.
fn whole(time: Timestamp) -> Timestamp {
    let round = TimestampRound::new()
        .smallest(Unit::Second)
        .mode(RoundMode::Floor);
    time.round(round).unwrap_or(time)
}

/// The times of a history; nothing if no object in it has any.
///
/// # Errors
/// Those of reading it.
pub fn moments(history: &History) -> Result<Option<Moments>> {
    read_clock(history, &mut |_| {})
}

/// The revision after whose write a time began: every later one was written after that time.
///
/// # Errors
/// The refusal `unreachable-target` if no times are known.
pub fn revision_since(
    history: &History,
    moments: Option<&Moments>,
    time: Timestamp,
) -> Result<i64> {
    let span = history.span();
    let Some(moments) = moments else {
        let what = format!("{time} cannot be found, because no times are known");
        return Err(unreachable(&what, &Reach::of(span, None)));
    };
    Ok(match moments.at(time, span.to) {
        At::Revision(revision) => revision,
        At::Before => span.from,
        At::After => span.to,
    })
}

/// Reads the clocks of a history, and shows each change on the way.
fn read_clock(history: &History, each: &mut dyn FnMut(&Change<'_>)) -> Result<Option<Moments>> {
    let mut clock = ClockReader::default();
    history.newest_first(history.span().from, &mut |change| {
        clock.take(change);
        each(change);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut received = Received::default();
    history.received(&mut |revision, millis| received.add(revision, millis))?;
    Ok(received.join(clock.finish()))
}

fn unreachable(what: &str, reach: &Reach) -> Failure {
    Failure::refused_for_good(UNREACHABLE, format!("{what}; reachable: {reach}"))
}

fn at_time(
    time: Timestamp,
    span: Span,
    moments: Option<&Moments>,
    reach: &Reach,
) -> Result<(i64, String)> {
    let Some(moments) = moments else {
        let what = format!("{time} cannot be reached, because no times are known: use a revision");
        return Err(unreachable(&what, reach));
    };
    match moments.at(time, span.to) {
        At::Revision(revision) => Ok((
            revision,
            format!("the last one written by {time}, {}", moments.clock()),
        )),
        At::Before => Err(unreachable(&format!("{time} is before its history"), reach)),
        At::After => Err(unreachable(&format!("{time} is after its end"), reach)),
    }
}

/// What was last done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It was deleted at this revision.
    Deleted(i64),
    /// Its deletion was requested, and waits.
    Deleting,
    Changed(i64),
    Created(i64),
}

/// A key that a word names, followed from its newest change on.
#[derive(Debug, Clone, Copy)]
struct Trace {
    last: Last,
    /// The revision of the change to go back before.
    before: i64,
    /// Whether older changes can make it an earlier one.
    open: bool,
}

impl Trace {
    fn begin(change: &Change<'_>) -> Self {
        let at = change.revision.main;
        let (last, open) = match change.put {
            None => (Last::Deleted(at), true),
            Some(put) if is_deleting(put.value) => (Last::Deleting, put.version > 1),
            Some(put) if put.version > 1 => (Last::Changed(at), false),
            Some(_) => (Last::Created(at), false),
        };
        Self {
            last,
            before: at,
            open,
        }
    }

    /// Takes an older change. An object that waits for its finalizers is as good as deleted: a
    /// namespace has lost its contents by the time that it goes itself.
    fn take(&mut self, change: &Change<'_>) {
        match change.put {
            Some(put) if self.open && is_deleting(put.value) => {
                self.before = change.revision.main;
                self.open = put.version > 1;
            }
            _ => self.open = false,
        }
    }

    fn reason(&self, name: &str) -> String {
        let before = self.before;
        match self.last {
            Last::Deleted(at) if at == before => {
                format!("before {name} was deleted, at revision {at}")
            }
            Last::Deleted(at) => format!(
                "before the deletion of {name} was requested, at revision {before}; it was gone at revision {at}"
            ),
            Last::Deleting => format!(
                "before the deletion of {name} was requested, at revision {before}; it is not finished"
            ),
            Last::Changed(at) => {
                format!("before {name} was last changed, at revision {at}; it was not deleted")
            }
            Last::Created(at) => {
                format!("before {name} was created, at revision {at}; it was not deleted")
            }
        }
    }
}

fn is_deleting(value: &[u8]) -> bool {
    Stamps::of(value, false).is_some_and(|stamps| stamps.deleting)
}

/// What `--to-before` names.
struct Sought {
    word: String,
    /// Kind, namespace and name.
    object: Option<(String, Option<String>, String)>,
    found: BTreeMap<Vec<u8>, Trace>,
    more: bool,
}

impl Sought {
    fn new(word: &str) -> Self {
        let owned = |text: &str| text.to_owned();
        let object = match word.splitn(3, '/').collect::<Vec<_>>().as_slice() {
            [kind, name] if !kind.is_empty() => Some((owned(kind), None, owned(name))),
            [kind, namespace, name] if !kind.is_empty() => {
                Some((owned(kind), Some(owned(namespace)), owned(name)))
            }
            _ => None,
        };
        Self {
            word: word.to_owned(),
            object,
            found: BTreeMap::new(),
            more: false,
        }
    }

    fn names(&self, key: &[u8]) -> bool {
        if key == self.word.as_bytes() {
            return true;
        }
        let Some((kind, namespace, name)) = &self.object else {
            return false;
        };
        // Cheaper than taking every key apart.
        key.ends_with(name.as_bytes())
            && ObjectKey::parse(key).is_some_and(|key| {
                key.name == name && key.namespace == namespace.as_deref() && key.is_a(kind)
            })
    }

    fn take(&mut self, change: &Change<'_>) {
        if !self.names(change.key) {
            return;
        }
        if let Some(trace) = self.found.get_mut(change.key) {
            trace.take(change);
        } else if self.found.len() < MAX_KEYS {
            self.found.insert(change.key.to_vec(), Trace::begin(change));
        } else {
            self.more = true;
        }
    }

    /// The revision before the change that is meant, and why that one.
    fn finish(mut self, history: &History, reach: &Reach) -> Result<(i64, String)> {
        if let Some(exact) = self.found.remove_entry(self.word.as_bytes()) {
            self.found = BTreeMap::from([exact]);
            self.more = false;
        }
        let shown = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let mut found = self.found.into_iter();
        let word = &self.word;
        let Some((key, mut trace)) = found.next() else {
            let what = format!("{word} was neither deleted nor changed in its history");
            return Err(unreachable(&what, reach));
        };
        let others: Vec<String> = found.map(|(key, _)| shown(&key)).collect();
        if !others.is_empty() {
            let more = if self.more { ", and more" } else { "" };
            let what = format!(
                "{word} names several keys: {}, {}{more}; give the key itself",
                shown(&key),
                others.join(", ")
            );
            return Err(Failure::new(Kind::Usage, what));
        }
        let name = match ObjectKey::parse(&key) {
            Some(object) => object.to_string(),
            None => shown(&key),
        };
        // Its oldest version here is already being deleted: the one before it decides.
        if trace.open {
            let newest = trace.before;
            follow(history, &key, &mut trace)?;
            if trace.before < newest {
                let what = format!(
                    "the deletion of {name} was requested at revision {} or before, which is compacted",
                    trace.before
                );
                return Err(unreachable(&what, reach));
            }
        }
        Ok((trace.before - 1, trace.reason(&name)))
    }
}

/// Looks for the version that a key had when the history begins.
fn follow(history: &History, key: &[u8], trace: &mut Trace) -> Result<()> {
    let from = history.span().from;
    history.newest_first(0, &mut |change| {
        if change.revision.main > from || change.key != key {
            return Ok(ControlFlow::Continue(()));
        }
        trace.take(change);
        Ok(ControlFlow::Break(()))
    })
}
