//! Finds or claims the folder that a backup is copied to.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::Transfer;
use crate::backup::manifest;
use crate::backup::names::{self, BackupId};
use crate::error::{Failure, Kind, Result};
use crate::event::Event;
use crate::keep::remote::catalog::{self, Folder};
use crate::keep::remote::index::{Claim, SCHEMA_VERSION, to_bytes};
use crate::keep::remote::place::{Place, is_claim};

/// How often a folder is looked for before giving up.
const TRIES: u32 = 16;
/// The longest pause after the first try, in milliseconds; it grows with each.
const PAUSE: u32 = 50;

impl Transfer<'_> {
    /// Finds or claims the folder of this set; says whether the set is there already. Of a folder
    /// that is another set's nothing is touched.
    ///
    /// # Protocol
    ///
    /// A store has no lock and no rename of a folder, and some ignore conditions on a put. All that
    /// is relied on is that a listing shows what was put before it.
    ///
    /// 1. List the place. A folder that holds this backup's claim (named after the Manifest's
    ///    SHA-256) is this backup's: resume there, or stop if its Manifest is there too.
    /// 2. Otherwise take the backup's own number, or the number after the highest one.
    /// 3. Put a claim there, then list the folder. Alone: the folder is ours. Not alone: remove
    ///    the claim, pause for a random time, and begin again at 1.
    ///
    /// Of two writers that claim one folder, the one that lists later sees both claims and gives
    /// way; if both see both, both give way, which the random pause resolves. So at most one of
    /// them continues, and a folder never holds the objects of two backups.
    pub(super) async fn find_folder(&mut self, host: &str) -> Result<bool> {
        let place = Place::of(&self.manifest);
        let own = BackupId::parse(&self.manifest.id).map_or(1, |id| id.0);
        // Where an earlier version has put it, it stays.
        if let Some(earlier) = Place::earlier(&self.manifest) {
            let numbers = self.numbers(&earlier).await?;
            if let Some(there) = self.among(&earlier, own, &numbers).await? {
                return Ok(there);
            }
        }
        for turn in 0..TRIES {
            self.pause(turn).await;
            let numbers = self.numbers(&place).await?;
            if let Some(there) = self.among(&place, own, &numbers).await? {
                return Ok(there);
            }
            let highest = numbers.keys().next_back().copied().unwrap_or(0);
            let number = if numbers.contains_key(&own) {
                highest.saturating_add(1)
            } else {
                own
            };
            self.name = place.set(number);
            if self.claim(host).await? {
                return Ok(false);
            }
        }
        let what = format!("claiming a folder below {place}: other writers always claim it first");
        Err(Failure::new(Kind::Busy, what))
    }

    /// The folders of a place, by number.
    async fn numbers(&self, place: &Place) -> Result<BTreeMap<u64, Folder>> {
        let folders = catalog::folders(self.store.list(&place.to_string()).await?);
        let mut numbers = BTreeMap::new();
        for (name, folder) in folders {
            if let Some((_, id)) = Place::split(&name) {
                numbers.insert(id.0, folder);
            }
        }
        Ok(numbers)
    }

    /// Looks for this set's folder among some; says whether the set is there already.
    async fn among(
        &mut self,
        place: &Place,
        own: u64,
        numbers: &BTreeMap<u64, Folder>,
    ) -> Result<Option<bool>> {
        // A copy has the backup's own number, or a higher one if another backup had that.
        for (&number, folder) in numbers.range(own..) {
            self.name = place.set(number);
            if !self.is_ours(folder).await? {
                continue;
            }
            if !folder.contains_key(names::MANIFEST) {
                self.folder = folder.clone();
                return Ok(Some(false));
            }
            // One that lost objects is put again.
            let Ok(whole) = catalog::whole(self.store, &self.name, folder).await? else {
                self.folder = folder.clone();
                return Ok(Some(false));
            };
            let Some(unmet) = self.form.unmet_by(&whole.index) else {
                self.folder = folder.clone();
                self.put_signature().await?;
                return Ok(Some(true));
            };
            let url = format!("{}/{}", self.store.url(), self.name);
            let what = format!("{url} {unmet} and stays as it is: a second copy is made beside it");
            self.context.warn("copy-of-another-form", what);
        }
        Ok(None)
    }

    /// Whether the folder is this very set's.
    async fn is_ours(&self, folder: &Folder) -> Result<bool> {
        if !folder.contains_key(&self.claim) {
            return Ok(false);
        }
        if self.is_alone(folder) {
            return Ok(true);
        }
        // Several have claimed it, and of one it became: the Manifest says of which.
        if !folder.contains_key(names::MANIFEST) {
            return Ok(false);
        }
        let there = catalog::read(self.store, &self.name, names::MANIFEST, manifest::MAX_BYTES);
        let there = catalog::unless_bad(there.await)?;
        Ok(there.as_deref() == Some(self.manifest_bytes.as_slice()))
    }

    /// Whether nobody else claims the folder.
    fn is_alone(&self, folder: &Folder) -> bool {
        let mut claims = folder.keys().filter(|object| is_claim(object));
        claims.all(|object| *object == self.claim)
    }

    /// Claims the folder: puts this backup's claim there and lists the folder. If two claim it, the
    /// later one's listing comes after the earlier one's claim, so at most one of them finds itself
    /// alone. This needs only that a listing shows what was put before it; conditions, which some
    /// services ignore, are not needed.
    async fn claim(&mut self, host: &str) -> Result<bool> {
        let claim = Claim {
            schema_version: SCHEMA_VERSION,
            manifest_sha256: self.manifest_sha256.clone(),
            begun: self.context.now,
            host: host.to_owned(),
            writer: self.writer.clone(),
        };
        let name = format!("{}/{}", self.name, self.claim);
        let made = self.store.claim(&name, Bytes::from(to_bytes(&claim)?));
        let made = made.await?;
        let folder = self.look().await?;
        if self.is_alone(&folder) && folder.contains_key(&self.claim) {
            self.folder = folder;
            return Ok(true);
        }
        // One that was there before may be another's who copies this very set.
        if made && let Err(failure) = self.store.remove(&name).await {
            // The store lets nothing be removed: no writer continues in a folder that several claim.
            self.context.tell(Event::Note(failure.to_string()));
        }
        Ok(false)
    }

    /// What is in the folder now.
    pub(super) async fn look(&self) -> Result<Folder> {
        let listed = catalog::folders(self.store.list(&self.name).await?);
        Ok(listed.get(&self.name).cloned().unwrap_or_default())
    }

    /// Pauses for a random time, so that two writers do not give way to each other forever.
    async fn pause(&self, turn: u32) {
        let random = u32::from_str_radix(&self.writer, 16)
            .unwrap_or(1)
            .rotate_left(turn);
        let most = turn.saturating_mul(PAUSE);
        let pause = random.checked_rem(most).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(u64::from(pause))).await;
    }
}
