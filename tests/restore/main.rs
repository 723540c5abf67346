//! A node is restored from a backup, as one transaction: real etcd behind a stand-in kubelet and
//! container runtime, which can also be made to lie, to hang and to fail.

#[cfg(feature = "faults")]
mod disk_faults;
mod from_member;
mod interruptions;
mod journals;
mod lost_quorum;
mod moment;
mod node;
#[cfg(feature = "faults")]
mod power_loss;
mod recorded;
mod refusals;
mod round_trip;
mod runtime_faults;
mod stopping_pods;
mod watching_client;
