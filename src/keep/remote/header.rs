//! The head of an age file, bounded before the `age` crate sees it.
//!
//! That crate reads lines of any length, and parses all that it has again with each: time grows
//! with the square of a head that whoever wrote the file decides (age-encryption.org/v1).

use std::io::{self, BufRead, Cursor, Read};

/// Bytes of a head: some 600 recipients of 100 bytes each.
const MAX_BYTES: usize = 64 << 10;
/// Lines of it: an X25519 recipient has two, an SSH RSA key of 4,096 bits twelve.
const MAX_LINES: usize = 2_048;
/// What its last line begins with.
const LAST: &[u8] = b"---";

/// The file from its beginning on, once its head has been seen to end within the bounds.
///
/// # Errors
/// If it does not.
pub(super) fn bounded<R: BufRead>(mut file: R) -> io::Result<impl BufRead + use<R>> {
    let head = read(&mut file)?;
    Ok(Cursor::new(head).chain(file))
}

fn read(file: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    for _ in 0..MAX_LINES {
        let start = head.len();
        let left = MAX_BYTES.saturating_sub(start);
        (&mut *file)
            .take(left as u64)
            .read_until(b'\n', &mut head)?;
        let line = head.get(start..).unwrap_or_default();
        // The crate reports a truncated head.
        if line.starts_with(LAST) || line.is_empty() && left > 0 {
            return Ok(head);
        }
        if head.len() >= MAX_BYTES {
            break;
        }
    }
    let what =
        format!("its age header does not end within {MAX_BYTES} bytes and {MAX_LINES} lines");
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// A head of so many recipients, as `age` writes them.
    fn head(recipients: usize) -> Vec<u8> {
        let stanza = format!("-> X25519 {0}\n{0}\n", "A".repeat(43));
        let all = stanza.repeat(recipients);
        format!("age-encryption.org/v1\n{all}--- {}\n", "A".repeat(43)).into_bytes()
    }

    #[test]
    fn what_follows_the_head_is_read_as_it_is() {
        for recipients in [0, 1, 600] {
            let file = [head(recipients), vec![0, 1, 2, b'\n', 255]].concat();
            let mut all = Vec::new();
            let mut read = bounded(BufReader::new(file.as_slice())).unwrap();
            read.read_to_end(&mut all).unwrap();
            assert_eq!(all, file);
        }
        let cut = b"age-encryption.org/v1\n-> X25519";
        let mut all = Vec::new();
        bounded(cut.as_slice())
            .unwrap()
            .read_to_end(&mut all)
            .unwrap();
        assert_eq!(all, cut);
    }

    /// Counts what is taken of a source without an end.
    struct Endless(usize, &'static [u8]);

    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let read = self.1.len().min(into.len());
            into[..read].copy_from_slice(&self.1[..read]);
            self.0 += read;
            Ok(read)
        }
    }

    #[test]
    fn a_head_without_an_end_is_given_up_early() {
        for line in [&b"A"[..], b"\n", b"-> X25519 AAAA\n", b"-> x\n\n"] {
            let mut source = BufReader::with_capacity(1 << 10, Endless(0, line));
            let failure = read(&mut source).unwrap_err();
            assert!(failure.to_string().contains("does not end"), "{failure}");
            let taken = source.get_ref().0;
            assert!(taken <= MAX_BYTES + (1 << 10), "{taken}");
        }
        assert!(bounded(head(700).as_slice()).is_err());
    }
}
