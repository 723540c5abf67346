//! A backup set: its name, the names of its files, and its Manifest.

mod agent;
pub mod environment;
pub mod expiry;
pub mod foreign;
pub mod manifest;
pub mod names;
pub mod newest;
pub mod resources;
pub mod retention;
pub mod signature;
pub mod signers;
pub mod sums;

pub use manifest::Manifest;
pub use names::{BackupId, Stamp};
