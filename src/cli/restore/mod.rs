//! `restore`: a data directory, a node, or what became of a restore.

mod data_dir;
mod follow;
mod next;
mod node;
mod text;

pub(super) use self::data_dir::{bump, check_allowed, data_dir, evidence};
use super::args::RestoreArgs;
use super::run::{Session, Shown};
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// The command that operations of this kind are gone on with.
pub(super) const COMMAND: &str = "restore";

/// Does what the flags ask for.
pub(super) fn run(session: &Session, args: &RestoreArgs) -> Result<Shown> {
    if args.data_dir.is_some() {
        return data_dir::run(session, args);
    }
    if args.status {
        return follow::status(session);
    }
    if args.resume {
        return node::resume(session, args);
    }
    if args.rollback {
        return node::roll_back(session, args);
    }
    if args.commit {
        return node::commit(session, args);
    }
    node::run(session, args)
}

/// The set that is named.
fn set(args: &RestoreArgs) -> Result<&str> {
    args.set
        .as_deref()
        .ok_or_else(|| Failure::new(Kind::Usage, "no backup is named").with(Fact::Missing("set")))
}

/// Refuses names that are no refusals of this command.
fn check_names(names: &[String], known: &[&str]) -> Result<()> {
    for name in names {
        if !known.contains(&name.as_str()) {
            return Err(Failure::new(
                Kind::Usage,
                format!("there is no refusal {name:?} to be let pass"),
            )
            .with(Fact::Candidates(
                known.iter().map(|name| (*name).to_owned()).collect(),
            )));
        }
    }
    Ok(())
}

/// 128 bits from the kernel.
pub(super) fn random() -> Result<u128> {
    let mut bytes = [0; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .doing(Kind::Unexpected, || "asking the kernel for randomness")?;
    if got != bytes.len() {
        return Err(Failure::new(
            Kind::Unexpected,
            "asking the kernel for randomness: it gave too little",
        ));
    }
    Ok(u128::from_ne_bytes(bytes))
}
