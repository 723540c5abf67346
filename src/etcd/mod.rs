//! etcd itself: its files read and written without an etcd binary, and its API over gRPC.

pub mod bbolt;
pub mod client;
mod crc;
pub mod download;
pub mod finding;
pub mod findings;
pub mod hashkv;
pub mod kubernetes;
pub mod mvcc;
pub mod snapshot;
pub mod wireform;
