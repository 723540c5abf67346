//! The engine under every change of a node: a plan of steps, its journal, and the way on or back.
//!
//! It knows no etcd and no node: the steps are made in `ops`, where everything they touch is at
//! hand. [`lock`] keeps two runs apart, [`journal`] is what survives a crash, [`engine`] runs and
//! undoes the steps, [`registry`] finds the operations of a node.

pub mod engine;
pub mod journal;
pub mod lock;
pub mod registry;
mod trust;

pub use engine::{Clock, Known, Operation, Progress, State, Step, StepState};
pub use journal::Begin;
