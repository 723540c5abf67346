//! Stores away from the node: named objects that come and go whole.
//!
//! What a mounted share, a bucket and a host reached by SFTP have in common is little: objects
//! with names, listed, read, put and removed. No rename of a whole set, no lock. [`Store`] is
//! that little, and what it promises is the same everywhere; one suite (`tests/store`) holds every
//! store to it. How sets are made of objects, so that a cut transfer is never one, is the business
//! of `keep::remote`.
//!
//! Names are relative, parts joined by `/`, each part of `A-Z a-z 0-9 . _ - +`, none beginning
//! with a dot.

mod address;
mod bucket;
mod contract;
mod directory;
pub(crate) mod name;
mod open;
mod profile;
mod settings;
mod sftp;

/// What the fuzz targets call: parsers of what a store or a host sends.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use super::bucket::fuzzed as listing;
    pub use super::sftp::fuzzed as known_hosts;
}

pub use address::{Address, Scheme};
pub use contract::{Body, Level, Listed, MAX_OBJECTS, Store, Upload, put, read_small};
pub use open::open;
pub use settings::Settings;
