//! Whose a backup is: signed, chained, and kept apart from what others put beside it.

mod allowed_signers;
mod bench;
mod chain;
mod foreign;
mod forged_time;
mod object_lock;
mod secrets_recipient;
mod sign_key;
#[path = "../store/wire.rs"]
#[allow(dead_code)]
mod wire;
