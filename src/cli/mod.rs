//! The command line: reads arguments, environment and configuration, calls one operation, and shows
//! the result.

mod allow;
pub mod args;
mod backup;
mod brought;
mod complete;
mod complete_objects;
mod config;
mod copies;
mod copy;
mod diff;
mod disable;
mod dispatch;
mod enable;
mod environment;
mod fleet;
mod get;
mod given;
mod list;
mod log;
mod look;
mod man;
mod member;
mod operation;
mod output;
mod prune;
mod ranges;
mod record;
mod recorded;
mod rehearsals;
mod remote;
mod restore;
mod schedule;
mod session;
mod sign;
mod target;
mod verify;

pub use dispatch::main;
