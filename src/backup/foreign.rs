//! Snapshots that other programs keep, by their names.
//!
//! | program | name | source |
//! | --- | --- | --- |
//! | Gardener's etcd-backup-restore | `Full-<first>-<last>-<unix time>[.gz or .zlib or .Z][.final]` | `pkg/snapstore/snapshot.go`, `pkg/compressor/types.go` |
//! | k3s, RKE2 | `etcd-snapshot-<node>-<unix time>[.zip]`, `on-demand-<node>-<unix time>[.zip]` | k3s-io/docs, `docs/cli/etcd-snapshot.md` |
//! | podman-etcd | `snapshot-<digits>.db`, a copy of `member/snap/db` without etcd's trailer | ClusterLabs/resource-agents, `heartbeat/podman-etcd` |

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What Gardener's last snapshot of a cluster that is deleted or moved ends with.
const FINAL: &str = ".final";

/// How a snapshot is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// It is the database file.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Zlib,
    /// The only file of a zip archive (PKWARE's APPNOTE).
    Zip,
    /// LZW as Go's `compress/lzw` writes it, low bits first, eight bits a literal. It has no header: what
    /// compress(1) writes under the same ending is another form.
    Lzw,
}

/// What a name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// When it was taken, where the name says so.
    pub created: Option<Timestamp>,
    /// How it is packed.
    pub packing: Packing,
}

/// Recognises a snapshot of another program by its name.
pub fn recognise(name: &str) -> Option<Foreign> {
    gardener(name).or_else(|| k3s(name)).or_else(|| copy(name))
}

/// The packing that a name's ending says.
pub fn packing(name: &str) -> Packing {
    let name = name.strip_suffix(FINAL).unwrap_or(name);
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("gz") => Packing::Gzip,
        Some("zlib") => Packing::Zlib,
        Some("zip") => Packing::Zip,
        Some("Z" | "lzw") => Packing::Lzw,
        _ => Packing::Plain,
    }
}

fn gardener(name: &str) -> Option<Foreign> {
    let named = name.strip_suffix(FINAL).unwrap_or(name);
    let mut parts = named.strip_prefix("Full-")?.split('-');
    let (first, last, time) = (parts.next()?, parts.next()?, parts.next()?);
    let revisions = [first, last].iter().all(|part| part.parse::<i64>().is_ok());
    if parts.next().is_some() || !revisions {
        return None;
    }
    let (time, ending) = time.split_once('.').unwrap_or((time, ""));
    matches!(ending, "" | "gz" | "zlib" | "Z" | "lzw").then_some(())?;
    Some(Foreign {
        created: Some(unix(time)?),
        packing: packing(name),
    })
}

fn k3s(name: &str) -> Option<Foreign> {
    let named = ["etcd-snapshot-", "on-demand-"];
    named
        .iter()
        .any(|start| name.starts_with(start))
        .then_some(())?;
    let plain = name.strip_suffix(".zip").unwrap_or(name);
    let (_, time) = plain.rsplit_once('-')?;
    Some(Foreign {
        created: Some(unix(time)?),
        packing: packing(name),
    })
}

/// A bare copy of the database file. Its name has the host's local time, whose zone is unknown; it
/// is read as UTC.
fn copy(name: &str) -> Option<Foreign> {
    let stamp = name.strip_prefix("snapshot-")?.strip_suffix(".db")?;
    let digits: String = stamp.chars().filter(char::is_ascii_digit).collect();
    let rest = stamp
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '-' | '_' | 'T' | 'Z'));
    let time = rest.then(|| DateTime::strptime("%Y%m%d%H%M%S", &digits).ok());
    let time = time
        .flatten()
        .and_then(|time| time.to_zoned(TimeZone::UTC).ok());
    Some(Foreign {
        created: time.map(|time| time.timestamp()),
        packing: Packing::Plain,
    })
}

/// Seconds since 1970, of this century.
fn unix(digits: &str) -> Option<Timestamp> {
    (digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
    Timestamp::from_second(digits.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_programs_names_tell_their_time() {
        for (name, time, packing) in [
            (
                "Full-00000000-00009002-1518427675",
                "2018-02-12T09:27:55Z",
                Packing::Plain,
            ),
            (
                "Full-00000000-00009002-1518427675.gz",
                "2018-02-12T09:27:55Z",
                Packing::Gzip,
            ),
            (
                "Full-00000000-00009002-1518427675.zlib",
                "2018-02-12T09:27:55Z",
                Packing::Zlib,
            ),
            (
                "Full-00000000-00009002-1518427675.Z",
                "2018-02-12T09:27:55Z",
                Packing::Lzw,
            ),
            (
                "Full-00000000-00009002-1518427675.gz.final",
                "2018-02-12T09:27:55Z",
                Packing::Gzip,
            ),
            (
                "Full-00000000-00009002-1518427675.final",
                "2018-02-12T09:27:55Z",
                Packing::Plain,
            ),
            (
                "etcd-snapshot-cp-1.example.com-1744272483",
                "2025-04-10T08:08:03Z",
                Packing::Plain,
            ),
            (
                "on-demand-server1-1744272483.zip",
                "2025-04-10T08:08:03Z",
                Packing::Zip,
            ),
            (
                "snapshot-20260611103000.db",
                "2026-06-11T10:30:00Z",
                Packing::Plain,
            ),
        ] {
            let found = recognise(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(found.created, Some(time.parse().unwrap()), "{name}");
            assert_eq!(found.packing, packing, "{name}");
        }
        assert_eq!(
            recognise("snapshot-before-upgrade.db").unwrap().created,
            None
        );
        for name in [
            "Incr-00000001-00000002-1518427675",
            "Full-00000000-1518427675",
            "Full-0-1-1518427675.tar",
            "Full-0-1-1518427675.final.gz",
            "etcd-snapshot-node",
            "etcd-snapshot-node-17442724",
            "snapshot_2026-11-21_061530.db",
            "notes.txt",
        ] {
            assert_eq!(recognise(name), None, "{name}");
        }
    }
}
