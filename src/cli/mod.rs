//! The command line: reads arguments, environment and configuration, calls one operation, and
//! shows what came of it.

pub mod args;
mod backup;
mod complete;
mod config;
mod hints;
mod human;
mod machine;
mod man;
mod progress;
mod restore;
mod run;
mod target;
mod verify;

pub use run::main;
