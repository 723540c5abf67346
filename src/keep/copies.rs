//! The copies that a backup is to have in other stores: made after it, and later if that failed.
//!
//! What was asked for is written into the set before it is committed, what was made is noted after
//! each copy ([`names::COPIES`]). So a copy that failed, or that a crash came before, is made by a
//! later run; and one that the other store has pruned since is not made again.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::catalog::{self, BackupSet, SetState};
use super::prune::{PruneRequest, Pruned, Selection};
use super::remote::{self, Copied, Form, Seen};
use super::trust::Trust;
use crate::backup::retention::Rules;
use crate::backup::{names, newest};
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::event::Event;
use crate::store::{Address, LocalStore, Settings, objects};
use crate::sys::fs;
use crate::sys::small;

/// The largest record that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Which copies a set is to have; stored beside its Manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The schema version of this document.
    pub schema_version: u32,
    /// The result of each, by the URL of its store.
    pub to: BTreeMap<String, Fate>,
}

/// The result of one copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fate {
    /// When it was made; `None`: not yet.
    #[serde(default)]
    pub made: Option<Timestamp>,
    /// Whether it is tried no more, since a file of the set is not what the Manifest says.
    #[serde(default)]
    pub given_up: bool,
}

impl Record {
    /// Copies that are asked for, and not made yet.
    pub fn asked<S: Into<String>>(urls: impl IntoIterator<Item = S>) -> Self {
        let asked = |url: S| (url.into(), Fate::default());
        Self {
            schema_version: 1,
            to: urls.into_iter().map(asked).collect(),
        }
    }

    /// That of a set; one that is not there, or cannot be read, asks for nothing.
    pub fn read(dir: &Path) -> Self {
        let bytes = small::read(&dir.join(names::COPIES), MAX_BYTES)
            .ok()
            .flatten();
        let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.unwrap_or_else(|| Self::asked([""; 0]))
    }

    /// As it is stored.
    ///
    /// # Errors
    /// [`Kind::Unexpected`], never in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes =
            serde_json::to_vec_pretty(self).doing(Kind::Unexpected, || "writing JSON")?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Whether a copy is asked for that is neither made nor given up.
    pub fn owes(&self, url: &str) -> bool {
        self.to
            .get(url)
            .is_some_and(|fate| fate.made.is_none() && !fate.given_up)
    }
}

/// One copy that was tried.
#[derive(Debug)]
pub struct Tried {
    /// The set's name in the node's store.
    pub set: String,
    /// The result.
    pub came: Result<Copied>,
    /// What was removed there after it, among this node's copies.
    pub pruned: Option<Pruned>,
}

/// The state of this node's copies in one store.
#[derive(Debug, Clone)]
pub struct Place {
    /// The store's URL.
    pub url: String,
    /// What was seen there; `None`: it could not be read.
    pub seen: Option<Seen>,
}

/// Where copies go, and how they are stored.
#[derive(Clone)]
pub struct Copies {
    /// The stores.
    pub to: Vec<Address>,
    /// How they are reached.
    pub settings: Settings,
    /// How the copies are stored.
    pub form: Form,
    /// This host's name, for the claims.
    pub host: String,
    /// What of this node's copies is to stay once one was made; `None`: all.
    pub keep: Option<Rules>,
    /// Whose signatures count then.
    pub trust: Trust,
}

impl Copies {
    /// The stores as they are called in records.
    pub fn urls(&self) -> Vec<String> {
        self.to.iter().map(Address::to_string).collect()
    }

    /// Asks for the copies of a set that is there already.
    ///
    /// # Errors
    /// Those of [`catalog::list`].
    pub fn ask(&self, context: &Context, store: &LocalStore, name: &str) -> Result<()> {
        if self.to.is_empty() {
            return Ok(());
        }
        for set in whole(store)?.iter().filter(|set| set.name == name) {
            let mut record = Record::read(&set.dir);
            let before = record.clone();
            for url in self.urls() {
                record.to.entry(url).or_default();
            }
            if record != before {
                write(context, set, &record);
            }
        }
        Ok(())
    }

    /// How many sets of a store lack a copy that was asked for.
    ///
    /// # Errors
    /// Those of [`catalog::list`].
    pub fn owed(&self, store: &LocalStore) -> Result<usize> {
        let urls = self.urls();
        let owes = |set: &BackupSet| {
            let record = Record::read(&set.dir);
            urls.iter().any(|url| record.owes(url))
        };
        Ok(whole(store)?.iter().filter(|set| owes(set)).count())
    }

    /// Makes every copy that is owed, the newest set's first, until a moment if one is given. A
    /// store that fails is not asked for another set; one that fails keeps none of the others.
    ///
    /// # Errors
    /// Those of [`catalog::list`].
    pub async fn make(
        &self,
        context: &Context,
        store: &LocalStore,
        until: Option<Timestamp>,
    ) -> Result<Vec<Tried>> {
        let mut tried = Vec::new();
        if self.to.is_empty() {
            return Ok(tried);
        }
        let sets = whole(store)?;
        for address in &self.to {
            let url = address.to_string();
            let mut last = None;
            for set in sets.iter().filter(|set| Record::read(&set.dir).owes(&url)) {
                // However late it is, one copy is tried, so that a slow store gets some, too.
                let late = until.is_some_and(|until| Timestamp::now() >= until);
                if context.cancel.is_cancelled() || (late && !tried.is_empty()) {
                    break;
                }
                let came = self.one(context, set, address).await;
                // A broken backup is no fault of the store, which is asked for the next one.
                let kind = came.as_ref().err().map(Failure::kind);
                tried.push(Tried {
                    set: set.name.clone(),
                    came,
                    pruned: None,
                });
                if kind.is_none() {
                    last = Some((tried.len() - 1, set));
                }
                if !matches!(kind, None | Some(Kind::BadBackup)) {
                    break;
                }
            }
            if let Some((place, set)) = last {
                let pruned = self.prune(context, set, address).await;
                if let Some(tried) = tried.get_mut(place) {
                    tried.pruned = pruned;
                }
            }
        }
        Ok(tried)
    }

    /// Makes the copies of what a backup came to, and those that earlier backups are owed. A recent
    /// backup that another run took (`ask`) is copied too: a backup here and there was asked for. What
    /// fails as a whole is reported as a failed copy.
    pub async fn catch_up(
        &self,
        context: &Context,
        store: &LocalStore,
        ask: Option<&str>,
        until: Option<Timestamp>,
    ) -> Vec<Tried> {
        let asked = ask.map_or(Ok(()), |name| self.ask(context, store, name));
        let made = match asked {
            Ok(()) => self.make(context, store, until).await,
            Err(failure) => Err(failure),
        };
        made.unwrap_or_else(|failure| {
            vec![Tried {
                set: store.dir().display().to_string(),
                came: Err(failure),
                pruned: None,
            }]
        })
    }

    /// Removes what of this node's copies the rules no longer want, if there are rules.
    async fn prune(&self, context: &Context, set: &BackupSet, address: &Address) -> Option<Pruned> {
        let (rules, manifest) = (self.keep.as_ref()?, set.manifest.as_ref()?);
        let request = PruneRequest {
            selection: Selection::Rules(rules.clone()),
            in_use: Vec::new(),
            trust: self.trust.clone(),
            sign: self.form.sign.clone(),
        };
        let work = async {
            let store = objects::open(address, &self.settings).await?;
            remote::prune_beside(context, store.as_ref(), &request, manifest).await
        };
        // The copy is made: what fails here is a problem of the rest.
        Some(work.await.unwrap_or_else(|failure| Pruned {
            problems: vec![failure.to_string()],
            ..Pruned::default()
        }))
    }

    /// How this node's copies stand, in each store.
    pub async fn look(&self, context: &Context, store: &LocalStore) -> Vec<Place> {
        let sets = whole(store).unwrap_or_default();
        let Some(manifest) = sets.first().and_then(|set| set.manifest.as_ref()) else {
            return Vec::new();
        };
        let mut places = Vec::new();
        for address in &self.to {
            let work = async {
                let store = objects::open(address, &self.settings).await?;
                remote::look(store.as_ref(), manifest).await
            };
            places.push(Place {
                url: address.to_string(),
                seen: context.cancel.guard(work).await.ok(),
            });
        }
        places
    }

    /// One copy, and the note that it was made.
    ///
    /// # Errors
    /// Those of [`remote::copy_backup`].
    pub async fn one(
        &self,
        context: &Context,
        set: &BackupSet,
        address: &Address,
    ) -> Result<Copied> {
        let store = objects::open(address, &self.settings).await?;
        let came = remote::copy_backup(context, set, store.as_ref(), &self.form, &self.host).await;
        let fate = match &came {
            Ok(_) => Fate {
                made: Some(Timestamp::now()),
                given_up: false,
            },
            Err(failure) => Fate {
                made: None,
                given_up: failure.kind() == Kind::BadBackup,
            },
        };
        let mut record = Record::read(&set.dir);
        if record.to.insert(address.to_string(), fate) != Some(fate) {
            write(context, set, &record);
        }
        came
    }
}

/// The sets of ours that are whole, the newest first.
fn whole(store: &LocalStore) -> Result<Vec<BackupSet>> {
    let mut sets = catalog::list(store)?;
    sets.retain(|set| matches!(set.state, SetState::Good | SetState::Dirty));
    sets.retain(|set| set.manifest.is_some());
    // One from the future comes last: it may be older than any.
    let ages: Vec<_> = sets.iter().map(BackupSet::age).collect();
    let ranks = newest::ranks(&ages, Timestamp::now());
    let mut ranked: Vec<_> = ranks.into_iter().zip(sets).collect();
    ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    Ok(ranked.into_iter().map(|(_, set)| set).collect())
}

/// Records the results of a set's copies. If that cannot be written, the copy is asked for again
/// and found there.
fn write(context: &Context, set: &BackupSet, record: &Record) {
    let written = record
        .to_bytes()
        .and_then(|bytes| fs::write_atomic(&set.dir.join(names::COPIES), &bytes));
    if let Err(failure) = written {
        context.tell(Event::Note(format!(
            "the state of the copies of {} could not be recorded: {failure}",
            set.name
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_what_was_asked_for_and_neither_made_nor_given_up() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Record::read(dir.path()).owes("file:///a"));
        let mut record = Record::asked(["file:///a", "file:///b", "file:///c"]);
        record.to.insert(
            "file:///b".to_owned(),
            Fate {
                made: Some(Timestamp::UNIX_EPOCH),
                given_up: false,
            },
        );
        let bad = Fate {
            made: None,
            given_up: true,
        };
        record.to.insert("file:///c".to_owned(), bad);
        std::fs::write(dir.path().join(names::COPIES), record.to_bytes().unwrap()).unwrap();
        let read = Record::read(dir.path());
        assert_eq!(read, record);
        let owed = ["file:///a", "file:///b", "file:///c", "file:///d"].map(|url| read.owes(url));
        assert_eq!(owed, [true, false, false, false]);
        std::fs::write(dir.path().join(names::COPIES), b"{").unwrap();
        assert!(Record::read(dir.path()).to.is_empty());
    }
}
