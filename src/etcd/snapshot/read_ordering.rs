//! One reader that keeps behind another, so that a disk is read once and in order.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::etcd::bbolt::ReadAt;

/// A source for the walk, which jumps about, while the hash goes from the beginning to the end.
/// What is in memory is read at once. What is not waits for the hash to have passed it: a disk
/// that would have to seek for every page does one long read instead, and the walk finds its
/// pages in the page cache.
pub(in crate::etcd) struct OrderedReads<'a> {
    source: &'a dyn ReadAt,
    /// Bytes that the other reader has passed; all of them once it has ended.
    passed: Mutex<u64>,
    moved: Condvar,
}

impl<'a> OrderedReads<'a> {
    pub(in crate::etcd) fn new(source: &'a dyn ReadAt) -> Self {
        Self {
            source,
            passed: Mutex::new(0),
            moved: Condvar::new(),
        }
    }

    /// The other reader has passed so many more bytes.
    pub(in crate::etcd) fn advance(&self, bytes: u64) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        *passed = passed.saturating_add(bytes);
        self.moved.notify_all();
    }

    /// The other reader has passed all bytes up to this one.
    pub(in crate::etcd) fn advance_to(&self, end: u64) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        *passed = end.max(*passed);
        self.moved.notify_all();
    }

    /// Ends the wait for good when dropped, however the other reader ends.
    pub(in crate::etcd) fn leader(&self) -> Leader<'_> {
        Leader(self)
    }

    fn wait(&self, end: u64) {
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.moved.wait_while(passed, |passed| *passed < end);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }
}

pub(in crate::etcd) struct Leader<'a>(&'a OrderedReads<'a>);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.0.advance(u64::MAX);
    }
}

impl ReadAt for OrderedReads<'_> {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        // What is in memory takes nothing from the disk's order.
        if self.source.read_in_memory(buf, offset)? {
            return Ok(());
        }
        self.wait(offset.saturating_add(buf.len() as u64));
        self.source.read_exact_at(buf, offset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    /// Nothing is in memory.
    struct Cold;

    impl ReadAt for Cold {
        fn size(&self) -> u64 {
            100
        }

        fn read_exact_at(&self, buf: &mut [u8], _: u64) -> io::Result<()> {
            buf.fill(1);
            Ok(())
        }

        fn read_in_memory(&self, _: &mut [u8], _: u64) -> io::Result<bool> {
            Ok(false)
        }
    }

    #[test]
    fn a_read_waits_for_the_leader_and_not_for_ever() {
        let ordered = OrderedReads::new(&Cold);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let leader = ordered.leader();
            let follower = scope.spawn(|| {
                let mut buf = [0; 4];
                ordered.read_exact_at(&mut buf, 10).unwrap();
                done.store(true, Ordering::SeqCst);
                ordered.read_exact_at(&mut buf, 90).unwrap();
                buf
            });
            ordered.advance(13);
            std::thread::sleep(Duration::from_millis(20));
            assert!(!done.load(Ordering::SeqCst));
            ordered.advance(1);
            while !done.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            assert!(!follower.is_finished());
            drop(leader);
            assert_eq!(follower.join().unwrap(), [1; 4]);
        });
    }
}
