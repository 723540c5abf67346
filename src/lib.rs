//! Back up and restore the etcd of a Kubernetes or OpenShift control plane.
//!
//! The binary `etcd-dr` is a thin layer above this library. What it does to a snapshot, for example, takes a few
//! lines: read the file, check the hash, every page and every key, and report what is broken and where.
//!
//! ```
//! use std::path::Path;
//!
//! use etcd_dr::etcd::bbolt::FileSource;
//! use etcd_dr::etcd::snapshot::{Options, inspect};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let file = Path::new("fixtures/store/backup-1/snapshot_2026-11-21_091913.db");
//!     let report = inspect(&FileSource::open(file)?, &Options::default(), &|_progress| {})?;
//!     assert!(report.is_good(), "{:?}", report.findings);
//!     let status = report.status.ok_or("the database cannot be read")?;
//!     println!("{} keys at revision {}", status.total_keys, status.revision);
//!     Ok(())
//! }
//! ```
//!
//! # Rooms
//!
//! Imports point one way only, and the suite `layers` checks it:
//!
//! ```text
//! cli -> change -> inspect -> keep -> cluster -> {backup, store, node} -> objects -> etcd -> journal -> finding -> sys
//! finding: used by all above sys; error, event, context: used by all
//! ```
//!
//! | room | holds |
//! | --- | --- |
//! | [`cli`] | the command line, and everything that a person or a script reads |
//! | [`change`] | changes of a node and of its cluster: restore, join, disable, members |
//! | [`inspect`] | answers that change nothing: is the backup good, what is wrong with the cluster |
//! | [`keep`] | taking, listing, copying and pruning backups; the schedule and its metrics |
//! | [`cluster`] | a running cluster: its members and its quorum |
//! | [`backup`] | one backup: Manifest, archives, retention rules |
//! | [`store`] | where backups are kept, on the node and away from it |
//! | [`node`] | a control-plane node: paths, static pods, certificates, container runtime |
//! | [`objects`] | Kubernetes' objects as etcd stores them: decoding, decryption, kinds and names |
//! | [`etcd`] | etcd's API, and its files read and written without etcd |
//! | [`journal`] | operations that can be resumed or rolled back: the record on disk, the engine |
//! | [`finding`] | what a check found: the layer, the place, the expectation |
//! | [`sys`] | files and directories, with every change of a disk in one place; the lock file |
//!
//! The library never prints, never reads the environment and never exits. It sends [`event::Event`]s to an
//! [`event::Observer`] and returns [`error::Failure`]s. Time, randomness and the node's root directory are parameters.
//!
//! # Words
//!
//! `docs/glossary.md` defines the terms. Four words have several meanings in this field and are always qualified:
//!
//! | word | names |
//! | --- | --- |
//! | revision | `KvRevision` (etcd's), `PodRevision` (`etcd-pod-7`), `BackupId` (`backup-12`) |
//! | snapshot | `Snapshot` (the `.db` file), `RaftSnap` (the `.snap` file) |
//! | manifest | `Manifest` (of a backup), `PodManifest` (a static pod's file) |
//! | journal | the record of an operation; never the system's log |

#![warn(unreachable_pub)]
// Shipped code only: a test may tell its story in one function.
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

pub mod backup;
pub mod change;
pub mod cli;
pub mod cluster;
pub mod context;
pub mod error;
pub mod etcd;
pub mod event;
pub mod finding;
pub mod inspect;
pub mod journal;
pub mod keep;
pub mod node;
pub mod objects;
pub mod store;
pub mod sys;
