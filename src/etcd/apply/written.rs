//! Where the revisions go that a tail makes.

use super::base::MAX_WRITTEN;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::bbolt::write::{Change, Changes};

/// Takes the entries of the bucket `key` that a tail makes, ascending.
pub trait Written {
    /// Takes an entry.
    ///
    /// # Errors
    /// Those of writing, and the refusal `long-tail` if there is no room for more.
    fn take(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()>;
}

/// Holds the entries in memory, up to a bound.
#[derive(Debug, Default)]
pub struct Collected {
    /// The entries.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Collected {
    /// Adds the entries to what else changes.
    pub fn add_to(self, changes: &mut Changes) {
        if !self.entries.is_empty() {
            changes.insert(b"key".to_vec(), Change::Extend(self.entries));
        }
    }
}

impl Written for Collected {
    fn take(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        let bytes = key.len().saturating_add(value.len());
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_WRITTEN {
            let what = format!("the tail of the WAL writes more than {MAX_WRITTEN} bytes");
            return Err(Failure::new(Kind::Refused, what).with(Fact::Refusal {
                name: "long-tail",
                allowable: false,
            }));
        }
        self.entries.push((key, value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_that_writes_more_than_may_be_held_is_refused() {
        let mut collected = Collected {
            bytes: MAX_WRITTEN - 1,
            ..Collected::default()
        };
        assert!(collected.take(vec![1], Vec::new()).is_ok());
        let refused = collected.take(vec![2], Vec::new()).unwrap_err();
        assert_eq!(refused.refusal(), Some("long-tail"));
    }
}
