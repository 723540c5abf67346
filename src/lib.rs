//! Back up and restore the etcd of a Kubernetes or OpenShift control plane.
//!
//! The layers; imports point one way only, and a test holds the rule:
//!
//! ```text
//! cli -> change -> inspect -> keep -> cluster -> {backup, store, node} -> etcd -> plan -> sys
//! error, event, context below all
//! ```
//!
//! The library never prints, never reads the environment and never exits: it sends
//! [`event::Event`]s to an [`event::Observer`] and returns [`error::Failure`]s.
//!
//! # Vocabulary
//!
//! Four words are overloaded in this field and are always qualified here:
//!
//! | word | names |
//! | --- | --- |
//! | revision | `KvRevision` (etcd's), `PodRevision` (`etcd-pod-7`), `BackupId` (`backup-12`) |
//! | snapshot | `Snapshot` (the `.db` file), `RaftSnap` (the `.snap` file) |
//! | manifest | `Manifest` (of a backup set), `PodManifest` (a static pod's file) |
//! | journal | a restore's own record; never the system's log |

#![warn(unreachable_pub)]

pub mod backup;
pub mod change;
pub mod cli;
pub mod cluster;
pub mod context;
pub mod error;
pub mod etcd;
pub mod event;
pub mod inspect;
pub mod keep;
pub mod node;
pub mod plan;
pub mod store;
pub mod sys;
