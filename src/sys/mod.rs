//! The operating system: files, directories and links, each change through a failpoint.
//!
//! Every call that changes a disk goes through [`fs`], and each passes [`failpoints`] first. With the
//! `faults` feature the suites count those calls, kill the process at each, make one fail, or
//! record them to replay every legal loss of what was not yet fsynced.

pub mod blocking;
pub mod bound;
mod copy;
pub mod crypto;
pub mod digest;
pub mod dir;
pub mod failpoints;
pub mod fs;
pub mod label;
pub mod limits;
pub mod listing;
pub mod lock;
pub mod member_url;
pub mod mount;
pub mod opened;
mod out_file;
pub mod owner;
pub mod quote;
pub mod random;
pub mod read_back;
pub mod rooted;
pub mod scratch;
pub mod share;
pub mod small;
pub mod space;
pub mod stream;
pub mod stream_out;
pub mod tree;
pub mod xattr;
pub mod yaml;
