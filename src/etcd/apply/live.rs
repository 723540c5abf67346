//! A key that is alive, as far as a tail needs to know it.

/// A key that is alive.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    pub(super) create: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
    /// The lease as the value tells it.
    pub(super) lease: i64,
    /// The same, unless that lease was not there when it was read.
    pub(super) attached: i64,
    /// Where values are looked at.
    pub(super) value: Option<Vec<u8>>,
}
