//! The revisions of one object that a database still holds.

use serde_json::Value;

use super::reader::{Reader, at_revision};
use super::select::Selection;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::keyspace::{At, read_value, versions};
use crate::objects::Object;

/// What made a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The object was created.
    Created,
    /// It was changed.
    Changed,
    /// It was deleted.
    Deleted,
}

impl ChangeKind {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

/// One revision of an object.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision of etcd.
    pub revision: i64,
    /// What made it.
    pub kind: ChangeKind,
    /// Bytes of the stored value; none for a deletion.
    pub bytes: Option<u32>,
    /// When, by the last entry of managedFields, and who: time and manager.
    pub managed: Option<(String, String)>,
    /// The object, where it can be shown.
    pub object: Option<Object>,
    /// Why it cannot be shown.
    pub unread: Option<String>,
}

/// All revisions of an object.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Its key; none if the database holds no revision of it.
    pub key: Option<String>,
    /// The revisions, oldest first.
    pub changes: Vec<Change>,
    /// Where the database is compacted: what was before is gone.
    pub compacted: Option<i64>,
}

/// Reads the revisions of the one object that a selection means.
///
/// # Errors
/// [`Kind::Usage`] with [`Fact::Candidates`] if it means objects of several namespaces, and as
/// [`crate::etcd::keyspace::Keyspace::read`].
pub fn history(reader: &Reader<'_>, selection: &Selection) -> Result<History> {
    let found = versions(&reader.database, &|key| selection.takes(key, &reader.kinds))?;
    let mut keys: Vec<&[u8]> = found.iter().map(|(key, _)| key.as_slice()).collect();
    keys.sort_unstable();
    keys.dedup();
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    if keys.len() > 1 {
        let what = "several objects have that name: name the namespace";
        let keys = keys.into_iter().map(text).collect();
        return Err(Failure::new(Kind::Usage, what).with(Fact::Candidates(keys)));
    }
    let key = keys.first().map(|key| text(key));
    let changes = found.iter().map(|(key, at)| change(reader, key, at));
    Ok(History {
        key,
        changes: changes.collect::<Result<_>>()?,
        compacted: reader.database.compacted(),
    })
}

fn change(reader: &Reader<'_>, key: &[u8], at: &At) -> Result<Change> {
    let revision = at.revision.main;
    let kind = match (at.tombstone, at.version) {
        (true, _) => ChangeKind::Deleted,
        (false, 1) => ChangeKind::Created,
        (false, _) => ChangeKind::Changed,
    };
    let mut change = Change {
        revision,
        kind,
        bytes: (!at.tombstone).then_some(at.value.len),
        managed: None,
        object: None,
        unread: None,
    };
    if at.tombstone {
        return Ok(change);
    }
    let value = read_value(reader.database.source(), at.value)?;
    match reader.read(key, &value)? {
        Ok(object) => {
            let object = at_revision(object, revision);
            change.managed = last_managed(&object);
            change.object = Some(object);
        }
        Err(why) => change.unread = Some(why.to_string()),
    }
    Ok(change)
}

/// The newest entry of managedFields: its time and its manager.
fn last_managed(object: &Object) -> Option<(String, String)> {
    let fields = object
        .json
        .get("metadata")?
        .get("managedFields")?
        .as_array()?;
    let entries = fields.iter().filter_map(|entry| {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
        Some((text("time")?, text("manager")?))
    });
    // Times of one form, all in UTC, sort as texts.
    entries.max_by(|(a, _), (b, _)| a.cmp(b))
}
