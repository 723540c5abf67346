//! etcd itself: its files read and written without an etcd binary, and its API over gRPC.

pub mod datadir;
pub mod finding;
pub mod ids;
pub mod membership;
pub mod raftsnap;
pub mod wal;
pub mod wire;
