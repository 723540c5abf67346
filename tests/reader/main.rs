//! The reader of etcd's database: generated trees, damage, and real programs as oracles.

mod damage;
mod etcd;
mod oracle;
mod received;
mod trees;
