//! Reads a store's clusters side by side.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use jiff::Timestamp;

use super::lines::Fleet;
use crate::error::Result;
use crate::keep::remote;
use crate::keep::trust::Trust;
use crate::store::objects::Store;

/// Clusters that are read at a time. Each costs one listing, and one read of its nodes' catalogs.
const AT_A_TIME: usize = 8;

/// A part of a store that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The folder.
    pub place: String,
    /// Why.
    pub why: String,
}

/// Takes in everything of a store. What cannot be read of it is returned; the rest counts.
///
/// # Errors
/// If the store as such cannot be listed.
pub async fn look(
    fleet: &mut Fleet,
    store: &dyn Store,
    trust: &Trust,
    now: Timestamp,
) -> Result<Vec<Gap>> {
    let top = store.level("").await?;
    let url = store.url();
    let others = remote::foreign_of(store, &top.objects);
    fleet.add(&url, others, &BTreeMap::new(), now);
    let clusters = futures_util::stream::iter(top.folders)
        .map(|cluster| async move { (remote::list_recorded(store, &cluster).await, cluster) });
    let mut clusters = clusters.buffer_unordered(AT_A_TIME);
    let mut gaps = Vec::new();
    while let Some((listed, cluster)) = clusters.next().await {
        match listed {
            Ok((mut sets, recordings)) => {
                trust.mark(&mut sets);
                let recorded = recordings.into_iter();
                let recorded = recorded.map(|(place, found)| (place, found.chains));
                let recorded = recorded.collect();
                fleet.add(&url, sets, &recorded, now);
            }
            Err(failure) => gaps.push(Gap {
                place: format!("{url}/{cluster}"),
                why: failure.to_string(),
            }),
        }
    }
    gaps.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(gaps)
}
