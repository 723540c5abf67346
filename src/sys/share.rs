//! Lets two files share the blocks in which they are equal, if the file system can (XFS with
//! reflink, Btrfs). The files stay independent: later writes to one do not change the other.
//!
//! `FICLONERANGE` has no safe wrapper; `copy_file_range` does the same on such a file system (it
//! remaps aligned ranges, Linux `fs/read_write.c`), and copies elsewhere. So the first test is
//! whether files can be cloned at all. The bytes written equal those they replace: a crash leaves
//! either block, with the same bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{copy_file_range, fstatvfs};

use super::failpoints::{self, Op};

/// Bytes compared at a time; a multiple of every block size that is taken.
const WINDOW: usize = 1 << 20;
/// The shortest run that is shared: shorter ones cost more in extents than they save.
const SHORTEST: usize = 32 << 10;

/// Makes `to` share the blocks of `from` wherever both hold the same bytes at the same place;
/// `go_on` is asked now and then. Returns the bytes shared. The caller has made sure that the file
/// system clones files, holds the lock that keeps others from writing, and syncs nothing after.
///
/// # Errors
/// Those of the disk; the bytes of `to` are what they were.
pub fn share_equal(from: &File, to: &Path, go_on: impl Fn() -> bool) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(to)?;
    let block = usize::try_from(fstatvfs(&file)?.f_bsize).unwrap_or(WINDOW);
    if block == 0 || !WINDOW.is_multiple_of(block) {
        return Ok(0);
    }
    let length = from.metadata()?.len().min(file.metadata()?.len());
    let (mut old, mut new) = (vec![0; WINDOW], vec![0; WINDOW]);
    let (mut shared, mut at) = (0u64, 0u64);
    while at < length && go_on() {
        let left = usize::try_from(length - at).unwrap_or(WINDOW).min(WINDOW);
        // The last block may be a part of one, which cannot be shared.
        let whole = left - left % block;
        let (Some(old), Some(new)) = (old.get_mut(..whole), new.get_mut(..whole)) else {
            break;
        };
        from.read_exact_at(old, at)?;
        file.read_exact_at(new, at)?;
        for (start, end) in equal_runs(old, new, block) {
            let Some(bytes) = new.get(start..end) else {
                continue;
            };
            let offset = at + start as u64;
            failpoints::pass(Op::Write(to, offset, bytes))?;
            shared += remap(from, &file, offset, bytes.len())?;
            failpoints::done(Op::Write(to, offset, bytes));
        }
        at += WINDOW as u64;
    }
    if shared > 0 {
        failpoints::pass(Op::SyncFile(to))?;
        file.sync_all()?;
        failpoints::done(Op::SyncFile(to));
    }
    Ok(shared)
}

/// Where both hold the same, in whole blocks, long enough to be worth it.
fn equal_runs(old: &[u8], new: &[u8], block: usize) -> Vec<(usize, usize)> {
    let mut runs = Vec::new();
    let mut begun: Option<usize> = None;
    let blocks = old.chunks_exact(block).zip(new.chunks_exact(block));
    let mut end = 0;
    for (index, (one, other)) in blocks.enumerate() {
        let start = index * block;
        end = start + block;
        if one == other {
            begun.get_or_insert(start);
        } else if let Some(from) = begun.take() {
            runs.push((from, start));
        }
    }
    runs.extend(begun.map(|from| (from, end)));
    runs.retain(|(from, to)| to - from >= SHORTEST.max(block));
    runs
}

fn remap(from: &File, to: &File, offset: u64, length: usize) -> io::Result<u64> {
    let (mut read, mut written) = (offset, offset);
    let end = offset + length as u64;
    while written < end {
        let left = usize::try_from(end - written).unwrap_or(length);
        if copy_file_range(from, Some(&mut read), to, Some(&mut written), left)? == 0 {
            break;
        }
    }
    Ok(written - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_of_whole_blocks_and_long_enough() {
        let block = 4096;
        let old = vec![1; 40 * block];
        let mut new = old.clone();
        assert_eq!(equal_runs(&old, &new, block), [(0, 40 * block)]);
        new[10 * block + 5] = 2;
        new[17 * block] = 2;
        let expected = [(0, 10 * block), (18 * block, 40 * block)];
        assert_eq!(
            equal_runs(&old, &new, block),
            expected,
            "six blocks are too few"
        );
    }

    #[test]
    fn whatever_the_file_system_does_the_bytes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3 * WINDOW + 777)
            .map(|i| (i / 4096 % 251) as u8)
            .collect();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        std::fs::write(&one, &content).unwrap();
        let mut changed = content[..2 * WINDOW + 99].to_vec();
        changed[500_000] ^= 0xff;
        std::fs::write(&other, &changed).unwrap();
        let from = File::open(&one).unwrap();
        share_equal(&from, &other, || true).unwrap();
        assert!(std::fs::read(&one).unwrap() == content);
        assert!(std::fs::read(&other).unwrap() == changed);
        assert_eq!(share_equal(&from, &other, || false).unwrap(), 0);
    }
}
