//! Asks etcd for a change until it is certain whether it happened.

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

/// Whether a change whose answer was lost has happened, by the member list.
pub(crate) enum Seen<T> {
    /// It has happened.
    Done(T),
    /// It has not happened.
    Not,
}

/// Asks for a change. Retries for a while after a refusal that may pass. After a lost answer, looks
/// at the member list, and asks again only if the change did not happen.
///
/// # Errors
/// The inner [`NotChanged`] is etcd's last; the outer failure is a request to stop, or that no
/// member answers any more.
pub(crate) async fn until_certain<T>(
    context: &Context,
    survey: &Survey,
    mut ask: impl AsyncFnMut(&Connection) -> Result<T, NotChanged>,
    look: impl Fn(&Survey) -> Seen<T>,
) -> Result<Result<T, NotChanged>> {
    let deadline = Instant::now() + SETTLE;
    let mut connection = survey.connection.clone();
    loop {
        // A call that is under way is not cancelled: it has its own time limit.
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
