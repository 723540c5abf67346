//! Keeping backups: take them, list them, copy them elsewhere, prune them, on a schedule and with metrics.

pub mod advice;
pub mod backup;
pub mod catalog;
pub mod chain;
pub mod copies;
pub mod database;
pub mod encryption;
pub mod fleet;
pub mod foreign;
pub mod in_use;
pub mod lineage;
pub mod metrics;
pub mod prune;
pub mod quality;
pub mod ranges;
pub mod reach;
pub mod record;
pub mod remote;
pub mod schedule;
pub mod trust;
