//! PAX extended header records (POSIX.1-2017, `pax`, "pax Extended Header"):
//! `"%d %s=%s\n", length, keyword, value`, the length counting the whole record.
//!
//! The `tar` crate's own reader splits at newlines, which a binary attribute may contain; this one
//! goes by the length.

use std::collections::BTreeMap;

/// GNU tar's and star's keyword of an extended attribute.
const XATTR: &str = "SCHILY.xattr.";
/// The keyword GNU tar's `--selinux` writes a label under.
const SELINUX: &str = "RHT.security.selinux";

/// What the records say that matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) modified: Option<i64>,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
}

/// Reads all records of an extended header.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, String> {
    let mut records = Records::default();
    while !data.is_empty() {
        let (key, value, rest) = record(data).ok_or("a PAX record whose length does not fit")?;
        data = rest;
        let key = std::str::from_utf8(key).map_err(|_| "a PAX keyword that is not UTF-8")?;
        records.take(key, value)?;
    }
    Ok(records)
}

fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // No length that fits in memory has more than 20 digits.
    let space = data.iter().take(21).position(|b| *b == b' ')?;
    let digits = data.get(..space)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let body = data.get(space.checked_add(1)?..length)?;
    let body = body.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let (key, value) = (body.get(..equals)?, body.get(equals.checked_add(1)?..)?);
    (!key.is_empty()).then_some((key, value, data.get(length..)?))
}

impl Records {
    fn take(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        match key {
            "path" => once(&mut self.path, value.to_vec(), key),
            "linkpath" => once(&mut self.link, value.to_vec(), key),
            "size" => once(&mut self.size, number(key, value)?, key),
            "uid" => once(&mut self.uid, number(key, value)?, key),
            "gid" => once(&mut self.gid, number(key, value)?, key),
            "mtime" => once(&mut self.modified, seconds(value)?, key),
            SELINUX => self.xattr("security.selinux".to_owned(), value),
            _ if key.starts_with("GNU.sparse.") => Err("a sparse file".to_owned()),
            _ => match key.strip_prefix(XATTR) {
                Some(name) if !name.is_empty() => self.xattr(decode(name), value),
                // Others (times of access, user names, comments) change nothing here.
                _ => Ok(()),
            },
        }
    }

    fn xattr(&mut self, name: String, value: &[u8]) -> Result<(), String> {
        match self.xattrs.insert(name.clone(), value.to_vec()) {
            // GNU tar can write a label under both of its keywords.
            Some(before) if before != value => Err(format!("two values of the attribute {name}")),
            _ => Ok(()),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T, key: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("two PAX records {key}")),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &[u8]) -> Result<T, String> {
    Some(value)
        .filter(|value| value.iter().all(u8::is_ascii_digit))
        .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
        .ok_or_else(|| format!("a PAX record {key} that is not a number in range"))
}

/// Seconds with an optional fraction, rounded down.
fn seconds(value: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: Option<i64> = whole.parse().ok();
    match whole {
        Some(whole) if fraction.bytes().all(|b| b.is_ascii_digit()) => {
            let down = text.starts_with('-') && fraction.bytes().any(|b| b != b'0');
            Ok(whole.saturating_sub(i64::from(down)))
        }
        _ => Err("a PAX record mtime that is not a time".to_owned()),
    }
}

/// The keyword of an extended attribute.
pub(super) fn xattr_keyword(name: &str) -> String {
    format!("{XATTR}{}", name.replace('%', "%25").replace('=', "%3D"))
}

fn decode(name: &str) -> String {
    name.replace("%3D", "=").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_by_their_length() {
        let mut data = b"28 SCHILY.xattr.user.a=x\ny\0\n".to_vec();
        data.extend_from_slice(b"12 path=a/b\n");
        data.extend_from_slice(b"20 mtime=1700000.25\n");
        data.extend_from_slice(b"10 size=5\n");
        let records = parse(&data).unwrap();
        assert_eq!(records.xattrs["user.a"], b"x\ny\0");
        assert_eq!(records.path.as_deref(), Some(b"a/b".as_slice()));
        assert_eq!(records.modified, Some(1_700_000));
        assert_eq!(records.size, Some(5));
        assert_eq!(seconds(b"-1.5"), Ok(-2));
    }

    #[test]
    fn broken_records_are_errors() {
        for data in [
            "5 a=b\n",
            "7 a=b\n",
            "a=b\n",
            " a=b\n",
            "6 a=b",
            "99999999999999999999999 a=b\n",
            "18446744073709551615 a=b\n",
            "6 =bc\n",
            "5 abc\n",
            "0 a=b\n",
            "11 size=-1\n",
            "11 uid=4294967296\n",
            "9 mtime=x\n",
            "12 path=a/b\n12 path=a/b\n",
            "22 GNU.sparse.major=1\n",
        ] {
            assert!(parse(data.as_bytes()).is_err(), "{data:?}");
        }
    }

    #[test]
    fn names_of_attributes_read_back() {
        for name in ["user.a", "user.a=b", "user.%3D=%", "security.selinux"] {
            let keyword = xattr_keyword(name);
            assert!(!keyword.contains('='));
            assert_eq!(decode(keyword.strip_prefix(XATTR).unwrap()), name);
        }
    }
}
