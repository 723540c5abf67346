//! What happened in a history: the changes, grouped so that a moment can be found among them.
//!
//! Changes of one kind below one parent (`deletes under /registry/pods/prod`) are one group as long
//! as each follows the one before within ten seconds, or within a hundred revisions where no times
//! are known. So what happens all the time, such as the renewal of Leases, is one line, and what
//! happened once stands by itself.

use std::collections::HashMap;
use std::ops::ControlFlow;

use jiff::Timestamp;
use serde::Serialize;

use super::clock::Moments;
use super::object::ObjectKey;
use super::read::{Change, History};
use crate::error::Result;

/// Changes further apart are two groups.
const APART_SECONDS: i64 = 10;
/// The same without times.
const APART_REVISIONS: i64 = 100;

/// What a change did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A put of a key that was not there.
    Create,
    /// A put of a key that was there.
    Update,
    /// A deletion.
    Delete,
}

impl Act {
    fn of(change: &Change<'_>) -> Self {
        match change.put {
            None => Self::Delete,
            Some(put) if put.version == 1 => Self::Create,
            Some(_) => Self::Update,
        }
    }

    /// What several of them are called.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Create => "creates",
            Self::Update => "updates",
            Self::Delete => "deletes",
        }
    }

    /// What one of them is called.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Which changes are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only changes after this revision.
    pub above: Option<i64>,
    /// Only deletions.
    pub deletes: bool,
    /// Only keys that begin so.
    pub prefix: Option<String>,
    /// Only objects of this kind.
    pub kind: Option<String>,
    /// Only objects of this namespace, and the namespace itself.
    pub namespace: Option<String>,
}

impl Filter {
    fn wants(&self, change: &Change<'_>) -> bool {
        if self.deletes && change.put.is_some() {
            return false;
        }
        let prefix = self.prefix.as_deref().unwrap_or_default();
        if !change.key.starts_with(prefix.as_bytes()) {
            return false;
        }
        if self.kind.is_none() && self.namespace.is_none() {
            return true;
        }
        let Some(object) = ObjectKey::parse(change.key) else {
            return false;
        };
        let of_kind = self.kind.as_ref().is_none_or(|kind| object.is_a(kind));
        let in_namespace = self.namespace.as_deref().is_none_or(|wanted| {
            object.namespace == Some(wanted)
                || (object.resource == "namespaces" && object.name == wanted)
        });
        of_kind && in_namespace
    }
}

/// Changes of one kind below one parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// What they did.
    pub act: Act,
    /// What their keys begin with, up to the last slash; of a single change, its key.
    pub key: String,
    /// How many.
    pub changes: u64,
    /// The revision of the first.
    pub first_revision: i64,
    /// The revision of the last.
    pub last_revision: i64,
    /// When the first was written, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_time: Option<Timestamp>,
    /// When the last was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Timestamp>,
}

/// A group that older changes can join.
struct Open {
    group: Group,
    /// The time of its oldest change, in seconds.
    oldest: Option<i64>,
}

/// Groups the changes of a history, the oldest first.
///
/// # Errors
/// Those of reading the history.
pub fn groups(history: &History, moments: Option<&Moments>, filter: &Filter) -> Result<Vec<Group>> {
    let above = filter.above.unwrap_or(0).max(history.span().from);
    let mut open: HashMap<(Act, Vec<u8>), Open> = HashMap::new();
    let mut groups = Vec::new();
    history.newest_first(above, &mut |change| {
        if filter.wants(change) {
            let act = Act::of(change);
            let parent = parent(change.key);
            let time = moments.and_then(|moments| moments.time_of(change.revision.main));
            match open.get_mut(&(act, parent.to_vec())) {
                Some(known) if known.takes(change.revision.main, time) => {
                    known.add(change, parent, time);
                }
                _ => {
                    let begun = Open::begin(act, change, time);
                    let before = open.insert((act, parent.to_vec()), begun);
                    groups.extend(before.map(|open| open.group));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    groups.extend(open.into_values().map(|open| open.group));
    groups.sort_by(|a, b| (a.first_revision, &a.key).cmp(&(b.first_revision, &b.key)));
    Ok(groups)
}

fn parent(key: &[u8]) -> &[u8] {
    let slash = key.iter().rposition(|byte| *byte == b'/');
    slash.and_then(|at| key.get(..=at)).unwrap_or_default()
}

impl Open {
    fn begin(act: Act, change: &Change<'_>, time: Option<Timestamp>) -> Self {
        let revision = change.revision.main;
        Self {
            oldest: time.map(Timestamp::as_second),
            group: Group {
                act,
                key: String::from_utf8_lossy(change.key).into_owned(),
                changes: 1,
                first_revision: revision,
                last_revision: revision,
                first_time: time,
                last_time: time,
            },
        }
    }

    /// Whether an older change belongs to it.
    fn takes(&self, revision: i64, time: Option<Timestamp>) -> bool {
        match (self.oldest, time) {
            (Some(oldest), Some(time)) => oldest - time.as_second() <= APART_SECONDS,
            _ => self.group.first_revision - revision <= APART_REVISIONS,
        }
    }

    fn add(&mut self, change: &Change<'_>, parent: &[u8], time: Option<Timestamp>) {
        let group = &mut self.group;
        // Several changes of one key still name it.
        if group.key.as_bytes() != change.key && group.key.as_bytes() != parent {
            group.key = String::from_utf8_lossy(parent).into_owned();
        }
        group.changes += 1;
        group.first_revision = change.revision.main;
        group.first_time = time;
        self.oldest = time.map(Timestamp::as_second);
    }
}
