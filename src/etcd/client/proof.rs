//! What shows that a member serves: its keys at a revision, and that it takes writes.

use etcd_client::GetOptions;
use tonic::Code;

use super::cause::Cause;
use super::connection::{Connection, of_library};
use crate::error::{Failure, Kind, Result};

/// How long the lease that shows it may live, in seconds, should it not be revoked.
const LEASE_SECONDS: i64 = 60;

impl Connection {
    /// How many keys were alive at a revision.
    ///
    /// # Errors
    /// [`Kind::Unreachable`], also if the revision is compacted away or yet to come.
    pub async fn count_at(&self, revision: i64) -> Result<u64> {
        let options = GetOptions::new()
            .with_all_keys()
            .with_count_only()
            .with_revision(revision);
        let mut kv = self.client.kv_client();
        let doing = format!("for the number of keys at revision {revision}");
        let range = self.ask(&doing, kv.get("", Some(options))).await?;
        u64::try_from(range.count()).map_err(|_| {
            Failure::new(
                Kind::Unreachable,
                format!("expected a number of keys, found {}", range.count()),
            )
        })
    }

    /// Shows that the member takes part in what the cluster agrees on, by a linearizable read, as
    /// `etcdctl endpoint health` does. That the user may not read the key is an answer too.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub async fn prove_readable(&self) -> Result<()> {
        let mut kv = self.client.kv_client();
        let read = of_library(kv.get("health", Some(GetOptions::new().with_keys_only())));
        match self.bounded(read).await {
            Ok(_) => Ok(()),
            Err(Cause::Answer {
                code: Code::PermissionDenied,
                ..
            }) => Ok(()),
            Err(cause) => Err(self.failed(cause, "for a read that a majority agrees on")),
        }
    }

    /// Shows that the cluster takes writes: grants a lease and revokes it, which goes through the
    /// log and the quota as every write does and touches no key and no revision.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub async fn prove_writable(&self) -> Result<()> {
        let mut lease = self.client.lease_client();
        let granted = self
            .ask("for a lease", lease.grant(LEASE_SECONDS, None))
            .await?;
        self.ask("to revoke a lease", lease.revoke(granted.id()))
            .await
            .map(|_| ())
    }
}
