//! Where sets are kept: the local tree, which any mounted file system can hold.

pub mod local;

pub use local::{LocalStore, Staging};
