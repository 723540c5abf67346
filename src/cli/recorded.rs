//! The recorded changes of a store, for the commands that read them.

use super::session::Session;
use crate::error::Result;
use crate::keep::ranges::{self, Chain};
use crate::store::LocalStore;

/// The chains of recorded changes in a store.
pub(super) fn chains(session: &Session, store: &LocalStore) -> Result<Vec<Chain>> {
    let (chains, problems) = ranges::chains(store)?;
    for problem in problems {
        session.context.warn("damaged-segment", problem);
    }
    Ok(chains)
}
