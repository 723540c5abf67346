//! The command line: reads arguments, environment and configuration, calls one operation, and
//! shows what came of it.

pub mod args;
mod backup;
mod checkup;
mod complete;
mod config;
mod confirm;
mod copy;
mod environment;
mod hints;
mod human;
mod machine;
mod man;
mod member;
mod operation;
mod progress;
mod prune;
mod remote;
mod restore;
mod run;
mod schedule;
mod survivors;
mod switch;
mod target;
mod upgrade;
mod verify;

pub use run::main;
