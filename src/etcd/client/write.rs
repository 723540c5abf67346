//! The calls that change keys: for an etcd that nobody else uses, which shows by them that it serves.

use etcd_client::CompactionOptions;

use super::connection::Connection;
use crate::error::Result;

impl Connection {
    /// Writes a key; the revision that this made.
    ///
    /// # Errors
    /// [`Kind::Unreachable`](crate::error::Kind::Unreachable), also if etcd refuses the write.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<i64> {
        let mut kv = self.client.kv_client();
        let reply = self.ask("to write a key", kv.put(key, value, None)).await?;
        Ok(reply
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Compacts up to a revision, and waits until what was forgotten is removed from the database.
    ///
    /// # Errors
    /// [`Kind::Unreachable`](crate::error::Kind::Unreachable), also if etcd refuses it.
    pub async fn compact(&self, revision: i64) -> Result<()> {
        let mut kv = self.client.kv_client();
        let options = CompactionOptions::new().with_physical();
        let what = format!("to compact revision {revision}");
        self.ask(&what, kv.compact(revision, Some(options)))
            .await
            .map(|_| ())
    }
}
