//! What all changes of a node have in common: steps, journal and rollback.

pub(crate) mod bounds;
pub mod commit;
pub(crate) mod context;
pub(crate) mod data;
pub(crate) mod ended;
pub(crate) mod exchange;
pub(crate) mod files;
pub(crate) mod folders;
pub mod info;
pub mod lock;
pub(crate) mod moves;
pub(crate) mod planner;
pub(crate) mod pods;
pub(crate) mod proof;
pub(crate) mod relisted;
pub mod rollback;
pub mod runner;
pub mod served;
pub mod steps;
pub(crate) mod stopping;
pub mod unsettled;
