//! Changes of a node and of its cluster: restore, disable, and members. Each change of a node has a
//! journal and can be rolled back.

mod bounds;
pub mod datadir;
pub mod member;
pub mod operation;
pub mod restore;
pub mod survivor;
