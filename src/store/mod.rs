//! Where sets are kept: the node's own tree, and stores away from the node.

pub mod local;
pub mod objects;

pub use local::{LocalStore, Staging};
pub use objects::{Address, Settings, Store};
