//! Changes of a node and of its cluster: restore, disable, and members. Each change of a node has a
//! journal and can be rolled back.

pub mod datadir;
pub mod detached;
pub mod dir_options;
pub mod disable;
pub mod member;
pub mod proof;
pub mod rehearse;
pub mod restore;
pub mod survivor;
pub mod transaction;
