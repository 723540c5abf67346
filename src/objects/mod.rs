//! Kubernetes' objects as etcd stores them, read without an API server.
//!
//! [`decode`] turns a stored value into the JSON that the API server answers for it. The value may be Kubernetes
//! protobuf, JSON, YAML or CBOR ([`envelope`]), and may be encrypted at rest ([`atrest`]). The messages of the
//! built-in kinds come from descriptors that are part of the program ([`descriptors`]); custom resources carry
//! their field names with them. [`kinds`] knows which kind lives under which key, and by which names people call it.
//!
//! No input makes this room panic: whoever can write to etcd decides what a value holds.

pub mod apply;
pub mod atrest;
mod cbor;
pub mod decode;
mod descriptors;
pub mod envelope;
pub mod kinds;
pub mod mask;
mod scalars;
pub mod selector;
pub mod served;
pub mod unified;
mod walk;
pub mod yaml;

pub use decode::{Object, Unread, decode};

#[cfg(test)]
mod tests;
