//! Stores away from the node. `conformance` tests in every store what the trait promises;
//! `copies` runs the commands against real servers; `faults` cuts, refuses and fills them.

mod bench;
mod catalog;
mod conformance;
mod copies;
mod emulators;
mod faults;
mod fleet;
mod gateway;
mod hostile;
mod known_hosts;
mod odd;
mod proxy;
mod requests;
mod sftp;
mod tls;
mod wire;
