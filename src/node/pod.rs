//! `PodManifest`: the few parts of a static pod's manifest that a backup or a restore needs.
//!
//! OpenShift writes one line of JSON into a file called `.yaml`; kubeadm and people write YAML
//! (Kubernetes documentation, "Create static Pods"). Both are read, up to
//! [`MAX_BYTES`]; what is not needed is ignored.

mod container;
mod expand;
mod fields;
mod flags;
mod manifest;
mod path;
mod read;
mod shell;
mod variables;

pub use container::{Container, Mount, RunAs};
pub use fields::NodeFacts;
pub use manifest::{PodManifest, RevisionInUse};
pub use read::MAX_BYTES;

#[cfg(test)]
mod tests;
