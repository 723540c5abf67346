//! The recorded changes of each node in a store, as its listing shows them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use jiff::Timestamp;

use super::changes::{self, FOLDER};
use super::form::Identities;
use super::place::Place;
use crate::error::{Kind, Result};
use crate::etcd::segment::Name;
use crate::keep::ranges::{Chain, ChangesPlan};
use crate::store::objects::{Listed, Store};

/// Objects that are removed at a time.
const AT_A_TIME: usize = 16;

/// The recorded changes of one node.
#[derive(Debug, Clone, Default)]
pub struct Recordings {
    /// The chains, the oldest first. Their directories are `<cluster>/<node>/changes/<chain>`; how they
    /// began is not known before [`Recordings::read_beginnings`]. The last change counts as received
    /// when its object was.
    pub chains: Vec<Chain>,
    /// The objects of each segment: two if two encrypted it at once.
    objects: BTreeMap<changes::Place, Vec<Listed>>,
}

/// The recorded changes among some objects, by the folder of their node. `now` is for stores that do not
/// tell when an object came.
pub(super) fn among(listed: &[Listed], now: Timestamp) -> BTreeMap<Place, Recordings> {
    let mut nodes: BTreeMap<Place, Recordings> = BTreeMap::new();
    for object in listed {
        let Some((folder, last)) = object.name.rsplit_once('/') else {
            continue;
        };
        let node = folder
            .strip_suffix(FOLDER)
            .and_then(|f| f.strip_suffix('/'));
        if let (Some(node), Some(place)) = (node.and_then(Place::parse), changes::parse(last)) {
            let objects = &mut nodes.entry(node).or_default().objects;
            objects.entry(place).or_default().push(object.clone());
        }
    }
    for (node, recordings) in &mut nodes {
        recordings.chains = recordings.chained(&node.to_string(), now);
    }
    nodes
}

impl Recordings {
    fn chained(&self, node: &str, now: Timestamp) -> Vec<Chain> {
        let mut chains: Vec<Chain> = Vec::new();
        for ((chain, name), objects) in &self.objects {
            let received = objects.iter().filter_map(|object| object.modified).max();
            let received = received.unwrap_or(now);
            let dir = PathBuf::from(format!("{node}/{FOLDER}/{chain}"));
            match chains.last_mut().filter(|last| last.dir == dir) {
                Some(last) => {
                    last.segments.push(*name);
                    last.last_received = received;
                }
                None => chains.push(Chain {
                    dir,
                    cluster_id: cluster_of(chain).to_owned(),
                    segments: vec![*name],
                    begun: None,
                    encrypted: false,
                    last_received: received,
                }),
            }
        }
        chains
    }

    /// Reads how each chain began: one object each. What is encrypted to others is not read.
    ///
    /// # Errors
    /// Those of the store. A segment that is damaged is left out, and found by `verify --ranges`.
    pub async fn read_beginnings(
        &mut self,
        store: &dyn Store,
        identities: &Arc<Identities>,
    ) -> Result<()> {
        for chain in &mut self.chains {
            let place = chain
                .segments
                .first()
                .and_then(|name| place(&chain.dir, *name));
            let objects = place.and_then(|place| self.objects.get(&place));
            let Some(object) = objects.and_then(|objects| objects.first()) else {
                continue;
            };
            match changes::read(store, &object.name, Arc::clone(identities)).await {
                Ok(segment) => chain.begun = segment.header().begun,
                Err(failure) if failure.kind() == Kind::Usage => chain.encrypted = true,
                Err(failure) if failure.kind() == Kind::BadBackup => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// The bytes of a segment's objects.
    pub(super) fn size(&self, chain: &Chain, name: &Name) -> u64 {
        let objects = place(&chain.dir, *name).and_then(|place| self.objects.get(&place));
        objects.map_or(0, |objects| objects.iter().map(|object| object.size).sum())
    }

    /// Removes what a plan says, the oldest first, a few at a time, so that what an interruption leaves
    /// begins later; the object that the store would not remove, and why.
    pub(super) async fn carry_out(
        &self,
        store: &dyn Store,
        plan: &ChangesPlan,
    ) -> std::result::Result<(), (String, crate::error::Failure)> {
        let places = plan
            .names
            .iter()
            .filter_map(|name| place(&plan.chain, *name));
        let objects: Vec<&Listed> = places
            .filter_map(|place| self.objects.get(&place))
            .flatten()
            .collect();
        for some in objects.chunks(AT_A_TIME) {
            let removed = futures_util::stream::iter(some).map(|object| async move {
                let came = store.remove(&object.name).await;
                came.map_err(|failure| (object.name.clone(), failure))
            });
            let mut removed = removed.buffered(AT_A_TIME);
            while let Some(came) = removed.next().await {
                came?;
            }
        }
        Ok(())
    }

    /// The first object that a plan removes.
    pub(super) fn first(&self, plan: &ChangesPlan) -> Option<&str> {
        let place = place(&plan.chain, *plan.names.first()?)?;
        Some(&self.objects.get(&place)?.first()?.name)
    }
}

/// The key of a segment, given the directory of its chain.
fn place(dir: &std::path::Path, name: Name) -> Option<changes::Place> {
    Some((dir.file_name()?.to_str()?.to_owned(), name))
}

/// The cluster that a chain's name ends with.
fn cluster_of(chain: &str) -> &str {
    chain.split_once('-').map_or("", |(_, cluster)| cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, size: u64, second: Option<i64>) -> Listed {
        Listed {
            name: name.to_owned(),
            size,
            modified: second.map(|second| Timestamp::from_second(second).unwrap()),
            etag: None,
        }
    }

    #[test]
    fn a_listing_shows_chains_by_node() {
        let name = |first, last| Name { first, last }.to_string();
        let at = |chain: &str, first, last| format!("c/n/changes/{chain}.{}", name(first, last));
        let listed = [
            object(
                &format!("{}.zst.0a.age", at("20261130T120000Z-c1", 5, 9)),
                10,
                Some(7),
            ),
            object(
                &format!("{}.zst.0b.age", at("20261130T120000Z-c1", 5, 9)),
                12,
                Some(8),
            ),
            object(&at("20261130T120000Z-c1", 10, 10), 1, Some(9)),
            object(&at("20261201T120000Z-c2", 3, 4), 1, None),
            object("c/n/backup-1/backup.json", 1, None),
            object("c/n/other/x.changes", 1, None),
            object(
                &format!("c/changes/20261130T120000Z-c1.{}", name(1, 2)),
                1,
                None,
            ),
        ];
        let now = Timestamp::from_second(99).unwrap();
        let nodes = among(&listed, now);
        assert_eq!(nodes.len(), 1);
        let (node, recordings) = nodes.first_key_value().unwrap();
        assert_eq!(node.to_string(), "c/n");
        let chains: Vec<(&str, usize, i64, i64)> = recordings
            .chains
            .iter()
            .map(|chain| {
                let received = chain.last_received.as_second();
                (
                    chain.cluster_id.as_str(),
                    chain.segments.len(),
                    chain.last(),
                    received,
                )
            })
            .collect();
        assert_eq!(chains, [("c1", 2, 10, 9), ("c2", 1, 4, 99)]);
        let first = &recordings.chains[0];
        assert_eq!(recordings.size(first, &Name { first: 5, last: 9 }), 22);
    }
}
