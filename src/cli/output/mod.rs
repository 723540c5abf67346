//! What a person or a program reads: one file a form.

pub(super) mod backup;
pub(super) mod confirm;
pub(super) mod error;
pub(super) mod error_json;
pub(super) mod hints;
pub(super) mod json;
pub(super) mod layers;
pub(super) mod members;
pub(super) mod page;
pub(super) mod progress;
pub(super) mod prune;
pub(super) mod table;
pub(super) mod terminal;
pub(super) mod words;
