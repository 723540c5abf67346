//! etcd itself: its files read and written without an etcd binary, and its API over gRPC.

pub mod apply;
pub mod bbolt;
pub mod build;
pub mod client;
mod crc;
pub mod datadir;
pub mod download;
pub mod founding;
pub mod hashkv;
pub mod history;
pub mod ids;
pub mod keyspace;
pub mod known;
pub mod kubernetes;
pub mod membership;
pub mod mvcc;
pub mod proto;
pub mod raftsnap;
pub mod release;
pub mod restore;
pub mod roll;
pub mod segment;
pub mod snapshot;
pub mod survivor;
pub mod wal;
