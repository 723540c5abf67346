//! Whether this node's member leads others: its snapshot then waits until theirs are taken, since
//! reading all of the database slows the one member that all writes go through.

use std::time::Duration;

use crate::cluster::connect;
use crate::cluster::connect::Target;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::etcd::client::Consistency;

/// How long finding out may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether the member that a backup would be taken from is the leader of several voters.
///
/// # Errors
/// [`Kind::Unreachable`] if it does not say so within ten seconds; those of finding the node.
pub async fn leads_others(context: &Context, target: &Target) -> Result<bool> {
    let asked = async {
        let detection = target.detect(context)?;
        let access = target.access(context, &detection)?;
        let connection = connect::connect(&access, &connect::options(&access)?).await?;
        if !connection.status().await?.is_leader() {
            return Ok(false);
        }
        let members = connection.member_list(Consistency::Local).await?.members;
        Ok(members.iter().filter(|member| !member.is_learner).count() > 1)
    };
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(said) => said,
        Err(_) => {
            let what =
                format!("the member did not answer within {LIMIT:?} whether it is the leader");
            Err(Failure::new(Kind::Unreachable, what))
        }
    }
}
