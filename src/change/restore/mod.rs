//! `restore` on a node: from a backup, or from the data directory of a member that survived.
//!
//! [`from_backup::plan`] and [`from_member::plan`] look at the source and at the node, refuse what must
//! be refused and plan the steps; [`Restore`](journalled::Restore) is what the runner carries out.

pub(crate) mod backup_planner;
mod backup_steps;
mod fit;
pub mod from_backup;
pub mod from_member;
mod identity;
pub mod info;
pub mod journalled;
pub(crate) mod node_state;
pub mod others;
pub mod plan;
mod preflight;
pub mod refusals;
mod replacements;
pub mod request;
