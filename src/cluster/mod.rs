//! A running cluster: how to connect to it, what its members say, and what a change of them does to
//! the quorum.

pub mod connect;
pub mod peer_url;
pub mod quorum;
pub(crate) mod retry;
pub mod select;
pub mod survey;
