//! etcd itself: its files read and written without an etcd binary, and its API over gRPC.

pub mod client;
pub mod download;
pub mod finding;
pub mod kubernetes;
