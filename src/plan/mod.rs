//! The engine under every change: for now the lock that keeps two runs apart.

pub mod lock;
