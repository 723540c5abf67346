//! The record of a change to a node, and the engine that runs, resumes and rolls back its steps.
//!
//! It knows nothing about etcd or nodes: the steps are in `change`. [`file`] is the record that
//! survives a crash, [`engine`] runs and undoes the steps, [`registry`] finds the operations of a
//! node.

pub mod engine;
pub mod file;
pub mod registry;
mod trust;

pub use engine::{Clock, Known, Operation, Progress, State, Step, StepState};
pub use file::{Begin, FILE, Journal, LOG, Line, Record, SCHEMA, read, records};
