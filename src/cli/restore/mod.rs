//! `restore`: restores a data directory or a node, or shows the status of a restore.

mod away;
mod data_dir;
mod follow;
mod from_member;
mod loss;
mod next;
mod node;
mod request;
mod text;

use super::args::RestoreArgs;
use super::operation;
use super::session::{Session, Shown};
use crate::error::Result;

/// Does what the flags ask for.
pub(super) fn run(session: &Session, args: &RestoreArgs) -> Result<Shown> {
    if args.data_dir.is_some() {
        return data_dir::run(session, args);
    }
    if let Some(id) = &args.status {
        return follow::status(session, operation::named(id));
    }
    if args.resume {
        return node::resume(session, args);
    }
    if let Some(id) = &args.rollback {
        return node::roll_back(session, args, operation::named(id));
    }
    if let Some(id) = &args.commit {
        return node::commit(session, args, operation::named(id));
    }
    node::run(session, args)
}
