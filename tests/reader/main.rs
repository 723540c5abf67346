//! The reader of etcd's database: generated trees, damage, and real programs as oracles.

mod model;
mod trees;
mod writer;
