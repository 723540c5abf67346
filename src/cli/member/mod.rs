//! The commands about members, one file each.

pub(super) mod add;
mod join;
pub(super) mod remove;
pub(super) mod update;
