//! The control-plane node: where everything is on it, how its etcd is reached, and which static
//! pods it runs.
//!
//! Everything starts at a [`NodeLayout`](layout::NodeLayout). [`look`](detection::look) says which
//! kind of node it is and why; [`find_access`](access::find_access) says how to reach its own
//! etcd member and where each datum was found; [`collect`] says what a backup must archive and
//! whether a rollout changed it in the meantime; [`certificates`] says whether etcd can start with those
//! that are there; a [`Runtime`](runtime::Runtime) asks which of its containers run. Local
//! addresses and all settings are parameters.

pub mod access;
pub mod apiserver;
pub mod certificates;
pub mod collect;
pub mod component;
pub mod detection;
pub mod endpoint;
pub mod env_file;
pub mod evidence;
mod files;
#[cfg(test)]
mod for_tests;
mod kubeadm;
pub mod kubelet;
pub mod layout;
pub mod manifests;
pub mod member;
mod openshift;
pub mod overrides;
pub mod pod;
pub mod profile;
pub mod running_etcd;
pub mod runtime;
pub mod settings;
pub mod wanted;
