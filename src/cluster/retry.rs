//! Asking etcd for a change until it is certain what came of it.

use std::time::Duration;

use tokio::time::Instant;

use super::survey::{Survey, pause};
use crate::context::Context;
use crate::error::Result;
use crate::etcd::client::{Connection, NotChanged, Refusal};

/// How long a refusal that may pass by itself is tolerated. etcd wants every voting member connected
/// for five seconds (`HealthInterval`, server/etcdserver/server.go), also right after a change of
/// leaders.
const SETTLE: Duration = Duration::from_secs(20);
/// How long between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// What the list of members says of a change whose answer was lost.
pub(crate) enum Seen<T> {
    /// It came about.
    Done(T),
    /// It did not.
    Not,
}

/// Asks for a change. A refusal that may pass is asked again for a while; after a lost answer the
/// members are looked at, and the change asked for again only if it did not come about.
///
/// # Errors
/// The last [`NotChanged`]; the outer one where the request to stop came or nobody answers any more.
pub(crate) async fn until_certain<T>(
    context: &Context,
    survey: &Survey,
    mut ask: impl AsyncFnMut(&Connection) -> Result<T, NotChanged>,
    look: impl Fn(&Survey) -> Seen<T>,
) -> Result<Result<T, NotChanged>> {
    let deadline = Instant::now() + SETTLE;
    let mut connection = survey.connection.clone();
    loop {
        // An answer that is on its way is not thrown away: the call has its own bound.
        let not = match ask(&connection).await {
            Ok(done) => return Ok(Ok(done)),
            Err(not) => not,
        };
        if not.perhaps_done {
            let now = survey.again().await?;
            if let Seen::Done(done) = look(&now) {
                return Ok(Ok(done));
            }
            connection = now.connection;
        } else if !not.refusal.is_some_and(Refusal::may_pass) {
            return Ok(Err(not));
        }
        if Instant::now() >= deadline {
            return Ok(Err(not));
        }
        pause(context, PAUSE).await?;
    }
}
