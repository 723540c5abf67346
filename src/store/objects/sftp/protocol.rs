//! What the connection and the store share: sizes, and what an answer means.

use jiff::Timestamp;
use russh_sftp::client::error::Error;
use russh_sftp::protocol::StatusCode;

use crate::error::{self, Failure, Kind};

/// SSH's own port (RFC 4253).
pub(super) const PORT: u16 = 22;

/// Bytes of one request; every server takes as many.
pub(super) const REQUEST: usize = 32 << 10;

/// Requests on their way at a time.
pub(super) const AT_A_TIME: usize = 32;

/// What a directory holds: a name, whether it is a directory, and bytes.
pub(super) type Entry = (String, bool, u64, Option<Timestamp>);

pub(super) fn failed(doing: impl std::fmt::Display, cause: &Error) -> Failure {
    Failure::new(Kind::Store, error::cut(cause.to_string())).doing(doing.to_string())
}

pub(super) fn is(cause: &Error, code: StatusCode) -> bool {
    matches!(cause, Error::Status(status) if status.status_code == code)
}

/// The directory that contains an absolute path.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
