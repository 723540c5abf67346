//! The leases of a store and their times to live: a watch shows neither.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use crate::error::Result;
use crate::etcd::client::Connection;

/// How long etcd may take for one answer: a seal waits for it.
const LIMIT: Duration = Duration::from_secs(2);
/// Leases that are asked for at a time.
const AT_A_TIME: usize = 16;

/// Brings a table up to date. The granted time of a lease never changes, so that each is asked for once.
///
/// # Errors
/// Those of asking; the table is as it was then.
pub(super) async fn refresh(connection: &Connection, table: &mut BTreeMap<i64, i64>) -> Result<()> {
    let connection = connection.with_call_timeout(LIMIT);
    let there: BTreeSet<i64> = connection.leases().await?.into_iter().collect();
    let new: Vec<i64> = there
        .iter()
        // 0 stands for no lease.
        .filter(|id| **id != 0 && !table.contains_key(id))
        .copied()
        .collect();
    let asked = futures_util::stream::iter(new).map(|id| {
        let connection = connection.clone();
        async move { Ok::<_, crate::error::Failure>((id, connection.granted_ttl(id).await?)) }
    });
    let found: Vec<(i64, Option<i64>)> = asked.buffered(AT_A_TIME).try_collect().await?;
    table.retain(|id, _| there.contains(id));
    // One that was gone before it was asked for had no keys any more.
    table.extend(found.into_iter().filter_map(|(id, ttl)| Some((id, ttl?))));
    Ok(())
}
