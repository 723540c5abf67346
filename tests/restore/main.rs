//! A node goes back to a backup, as one transaction: real etcd behind a stand-in kubelet and
//! container runtime, which can also be made to lie, to hang and to fail.

#[cfg(feature = "faults")]
mod campaign;
mod disaster;
mod faults;
mod journals;
mod moment;
mod node;
#[cfg(feature = "faults")]
mod power;
mod refusals;
mod sessions;
mod stopping;
mod survivor;
mod watching;
mod whole;
