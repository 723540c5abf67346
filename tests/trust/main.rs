//! Whose a backup is: signed, chained, and kept apart from what others put beside it.

mod bench;
mod chain;
mod foreign;
mod forged_time;
mod retained;
mod secrets;
mod signed;
mod signers;
#[path = "../store/wire.rs"]
#[allow(dead_code)]
mod wire;
