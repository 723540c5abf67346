//! `backup`, `list` and `verify` as the operator runs them, against real etcd of every available
//! release: what a backup holds is held against what etcd's own tools say, and each thing that can
//! go wrong is made to.

mod bench;
mod gate;
mod keep;
mod nodes;
mod oracle;
mod shared_blocks;
mod store;
mod stream;
mod unreachable;
