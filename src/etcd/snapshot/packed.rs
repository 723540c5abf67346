//! Recognises compressed, packed and encrypted snapshots by their first bytes.

use std::io;

use crate::etcd::bbolt::ReadAt;

/// A form that must be undone first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// What it is, in words.
    pub what: &'static str,
    /// What undoes it, before the file's name.
    pub command: &'static str,
}

/// Where which bytes say what.
const FORMS: [(usize, &[u8], Packed); 9] = [
    (
        0,
        b"\x1f\x8b",
        Packed {
            what: "a gzip file",
            command: "gunzip --keep",
        },
    ),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        Packed {
            what: "a zstd file",
            command: "zstd -d",
        },
    ),
    (
        0,
        b"\xfd7zXZ\0",
        Packed {
            what: "an xz file",
            command: "xz -d --keep",
        },
    ),
    (
        0,
        b"BZh",
        Packed {
            what: "a bzip2 file",
            command: "bunzip2 --keep",
        },
    ),
    (
        0,
        b"\x04\x22\x4d\x18",
        Packed {
            what: "an lz4 file",
            command: "lz4 -d",
        },
    ),
    (
        0,
        b"PK\x03\x04",
        Packed {
            what: "a zip file",
            command: "unzip",
        },
    ),
    (
        0,
        b"7z\xbc\xaf\x27\x1c",
        Packed {
            what: "a 7z file",
            command: "7z x",
        },
    ),
    (
        257,
        b"ustar",
        Packed {
            what: "a tar archive",
            command: "tar -xf",
        },
    ),
    (
        0,
        b"age-encryption.org/v1\n",
        Packed {
            what: "an age-encrypted file",
            command: "age -d -i KEY -o snapshot.db",
        },
    ),
];

impl Packed {
    /// The form that a file has; none for anything else.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(source: &dyn ReadAt) -> io::Result<Option<Self>> {
        let mut head = [0; 262];
        let known = usize::try_from(source.size())
            .unwrap_or(usize::MAX)
            .min(head.len());
        let head = head.get_mut(..known).unwrap_or_default();
        source.read_exact_at(head, 0)?;
        let is =
            |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
        let found = FORMS.iter().find(|(at, magic, _)| is(*at, magic));
        Ok(found.map(|(.., form)| *form))
    }

    /// What it is and what to do, for a file of this name.
    pub fn told(&self, name: &str) -> String {
        format!("{}; unpack it first: {} {name}", self.what, self.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_snapshots_are_told_by_their_first_bytes() {
        for (at, magic, form) in FORMS {
            let mut bytes = vec![0; at];
            bytes.extend_from_slice(magic);
            bytes.resize(600, 7);
            assert_eq!(Packed::of(&bytes.as_slice()).unwrap(), Some(form));
            assert!(form.told("x").ends_with(" x"));
        }
        assert_eq!(Packed::of(&[0_u8; 4096].as_slice()).unwrap(), None);
        assert_eq!(Packed::of(&b"".as_slice()).unwrap(), None);
    }
}
