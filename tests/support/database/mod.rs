//! Databases as etcd has them, made from nothing: a model of its store and a writer of its files,
//! both independent of the reader that they judge.

pub mod model;
pub mod writer;
