//! What a segment tells of etcd besides changes of keys: its own HashKV, its members and its users.
//!
//! A recorder asks for them every few minutes, beside its work, since etcd reads its whole store for a
//! HashKV and orders a question about authentication as it orders a write. The answer is in the segment
//! that is sealed next, and is about a revision before it.

use std::collections::BTreeSet;
use std::path::Path;

use super::chain::names;
use super::header::{Checkpoint, CheckpointAuth, CheckpointHash};
use super::parse::Segment;
use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::write::small_bucket;
use crate::etcd::bbolt::{FileSource, Metas, ReadAt};
use crate::etcd::snapshot::Shape;

/// The checkpoints of a chain about revisions from `after` to `until`.
///
/// # Errors
/// [`Kind::Store`]; [`Kind::BadBackup`] for a segment that has no header.
pub fn checkpoints(dir: &Path, after: i64, until: i64) -> Result<Vec<Checkpoint>> {
    let mut found = Vec::new();
    for name in names(dir)?.into_iter().filter(|name| name.last > after) {
        let header = Segment::header_of(&dir.join(name.to_string()))?;
        let checkpoint = header.and_then(|header| header.checkpoint);
        let checkpoint = checkpoint.filter(|known| (after..=until).contains(&known.revision));
        let is_later = name.first > until;
        // An answer comes in the next segment, or a few later.
        if is_later && (checkpoint.is_some() || name.first > until.saturating_add(BEHIND)) {
            found.extend(checkpoint);
            break;
        }
        found.extend(checkpoint);
    }
    Ok(found)
}

/// So many revisions behind the last one wanted its checkpoint is looked for.
const BEHIND: i64 = 10_000;

/// The newest checkpoint among them with a HashKV of a revision after `after`.
///
/// # Errors
/// As [`checkpoints`].
pub fn newest_hash(dir: &Path, after: i64, until: i64) -> Result<Option<(i64, CheckpointHash)>> {
    let found = checkpoints(dir, after, until)?.into_iter().rev();
    let mut hashes = found.filter(|checkpoint| checkpoint.revision > after);
    Ok(hashes.find_map(|checkpoint| Some((checkpoint.revision, checkpoint.hash_kv?))))
}

/// What changed besides keys between a snapshot at revision `after` and `until`, in sentences: a restore
/// has it as the snapshot does.
///
/// # Errors
/// As [`checkpoints`], and those of reading the snapshot.
pub fn changed_beside(snapshot: &Path, dir: &Path, after: i64, until: i64) -> Result<Vec<String>> {
    let Some(last) = checkpoints(dir, after, until)?.pop() else {
        return Ok(Vec::new());
    };
    Ok(Beside::read(snapshot)?.changed(&last))
}

/// What a snapshot has besides keys.
#[derive(Debug, Default)]
struct Beside {
    members: BTreeSet<String>,
    auth: Option<CheckpointAuth>,
}

impl Beside {
    fn read(snapshot: &Path) -> Result<Self> {
        let doing = || format!("reading {}", snapshot.display());
        let file = FileSource::open(snapshot).doing(Kind::NotChecked, doing)?;
        let data = Shape::of(file.size()).data(file.size());
        let metas = Metas::of_file(&file, data).doing(Kind::NotChecked, doing)?;
        let Some(metas) = metas else {
            return Ok(Self::default());
        };
        let members = small_bucket(&file, data, &metas.chosen, b"members")?;
        let auth = small_bucket(&file, data, &metas.chosen, b"auth")?;
        let value = |name: &[u8]| {
            let entry = auth.iter().find(|(key, _)| key == name);
            entry.map(|(_, value)| value.as_slice())
        };
        let revision = value(b"authRevision").and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            members: members
                .into_iter()
                .map(|(id, _)| String::from_utf8_lossy(&id).into_owned())
                .collect(),
            auth: revision.map(|revision| CheckpointAuth {
                enabled: value(b"authEnabled") == Some(&[1]),
                revision: u64::from_be_bytes(revision),
            }),
        })
    }

    fn changed(&self, later: &Checkpoint) -> Vec<String> {
        let now: BTreeSet<String> = later.members.iter().cloned().collect();
        let mut sentences = Vec::new();
        let mut moved = |ids: Vec<&String>, what: &str| {
            if !ids.is_empty() {
                let ids: Vec<&str> = ids.into_iter().map(String::as_str).collect();
                let ids = ids.join(", ");
                let revision = later.revision;
                sentences.push(format!(
                    "after the backup, by revision {revision}, members {what} the cluster: {ids}"
                ));
            }
        };
        moved(now.difference(&self.members).collect(), "joined");
        moved(self.members.difference(&now).collect(), "left");
        if let (Some(before), Some(after)) = (self.auth, later.auth)
            && before != after
        {
            sentences.push(format!(
                "users, roles or authentication changed after the backup, by revision {}: they are restored as the backup has them (auth revision {}, then {})",
                later.revision, before.revision, after.revision
            ));
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_besides_keys_is_said() {
        let auth = |revision| CheckpointAuth {
            enabled: false,
            revision,
        };
        let base = Beside {
            members: ["a", "b"].map(str::to_owned).into(),
            auth: Some(auth(1)),
        };
        let later = |members: &[&str], auth| Checkpoint {
            revision: 9,
            hash_kv: None,
            members: members.iter().map(|id| (*id).to_owned()).collect(),
            auth,
        };
        assert_eq!(
            base.changed(&later(&["a", "b"], Some(auth(1)))),
            Vec::<String>::new()
        );
        assert_eq!(
            base.changed(&later(&["a", "b"], None)),
            Vec::<String>::new()
        );
        let changed = base.changed(&later(&["b", "c"], Some(auth(3))));
        assert_eq!(
            changed[..2],
            [
                "after the backup, by revision 9, members joined the cluster: c",
                "after the backup, by revision 9, members left the cluster: a",
            ]
        );
        assert!(
            changed[2].ends_with("(auth revision 1, then 3)"),
            "{changed:?}"
        );
    }
}
