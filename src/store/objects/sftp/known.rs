//! `known_hosts`: whose key a host's is, judged as ssh(1) judges.
//!
//! The form is that of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". What its page leaves open is as
//! OpenSSH's hostfile.c and sshconnect.c have it: of all lines that fit the host any may hold the
//! key, a key that is revoked for the host is refused whatever else says of it, and a host on a
//! port of its own is also known by a line without the port.
//!
//! Neither `russh` nor `ssh-key` does all of that: the one ends at the first line that differs and
//! reads no markers, the other reads no tabs and matches no names.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

use super::protocol::PORT;
use crate::error::{Kind, Result};
use crate::sys::small::read_given;

/// The largest such file that is read: a hundred thousand lines.
const MAX_BYTES: u64 = 32 << 20;
/// What a hashed name begins with.
const HASHED: &str = "|1|";

/// What stands before the names of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    CertAuthority,
    Revoked,
}

/// Where a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    file: PathBuf,
    line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of {}", self.line, self.file.display())
    }
}

/// A line that is of the host.
#[derive(Debug)]
struct Line {
    place: Place,
    marker: Marker,
    key: PublicKey,
    /// Whether it names the host with its port, as ssh asks for it.
    exact: bool,
}

/// What the files say of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the host's.
    Known,
    /// It must not be accepted.
    Revoked(Place),
    /// The host has others.
    Other(Place),
    /// The host is known by an authority alone.
    Authority(Place),
    /// Nothing.
    Unknown,
}

/// The lines of some files that are of one host.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    files: Vec<PathBuf>,
    lines: Vec<Line>,
}

impl KnownHosts {
    /// Reads files; one that is not there has no lines.
    ///
    /// # Errors
    /// [`Kind::Store`] if one cannot be read.
    pub(super) fn read(files: Vec<PathBuf>, host: &str, port: u16) -> Result<Self> {
        let mut known = Self::default();
        for file in files {
            let bytes = read_given(&file, MAX_BYTES);
            let bytes = bytes.map_err(|failure| failure.as_kind(Kind::Store))?;
            known.add(
                &file,
                &String::from_utf8_lossy(&bytes.unwrap_or_default()),
                host,
                port,
            );
            known.files.push(file);
        }
        Ok(known)
    }

    fn add(&mut self, file: &Path, text: &str, host: &str, port: u16) {
        let host = host.to_lowercase();
        let whole = match port {
            PORT => host.clone(),
            port => format!("[{host}]:{port}"),
        };
        for (index, text) in text.lines().enumerate() {
            // A line that cannot be read is passed over, as ssh does.
            let Some((marker, names, key)) = parse(text) else {
                continue;
            };
            let exact = matches(&whole, names);
            if exact || matches(&host, names) {
                self.lines.push(Line {
                    place: Place {
                        file: file.to_owned(),
                        line: index + 1,
                    },
                    marker,
                    key,
                    exact,
                });
            }
        }
    }

    /// The files that were read.
    pub(super) fn files(&self) -> String {
        let files = self.files.iter().map(|file| file.display().to_string());
        files.collect::<Vec<_>>().join(", ")
    }

    /// The kinds of the host's keys, those that are asked for first.
    pub(super) fn kinds(&self) -> Vec<Algorithm> {
        let (exact, other) = self.keys().partition::<Vec<_>, _>(|line| line.exact);
        let all = exact.into_iter().chain(other);
        all.map(|line| line.key.algorithm()).collect()
    }

    fn keys(&self) -> impl Iterator<Item = &Line> {
        let plain = |line: &&Line| line.marker == Marker::None;
        self.lines.iter().filter(plain)
    }

    /// The line by which a key is revoked for the host.
    pub(super) fn revoked(&self, key: &PublicKey) -> Option<Place> {
        self.revoked_among(key, |_| true)
    }

    fn revoked_among(&self, key: &PublicKey, among: impl Fn(&Line) -> bool) -> Option<Place> {
        let mut lines = self.lines.iter().filter(|line| among(line));
        let found = lines.find(|line| line.marker == Marker::Revoked && same(&line.key, key));
        found.map(|line| line.place.clone())
    }

    /// What the files say of a key that the host shows.
    pub(super) fn judge(&self, key: &PublicKey) -> Verdict {
        if let Some(place) = self.revoked_among(key, |line| line.exact) {
            return Verdict::Revoked(place);
        }
        let mut other = None;
        for line in self.keys().filter(|line| line.exact) {
            if same(&line.key, key) {
                return Verdict::Known;
            }
            // The line to change is that of the same kind, if there is one.
            if other.is_none() || line.key.algorithm() == key.algorithm() {
                other = Some(line.place.clone());
            }
        }
        if let Some(place) = other {
            return Verdict::Other(place);
        }
        if let Some(place) = self.revoked(key) {
            return Verdict::Revoked(place);
        }
        if self.keys().any(|line| same(&line.key, key)) {
            return Verdict::Known;
        }
        let mut lines = self.lines.iter();
        let authority = lines.find(|line| line.marker == Marker::CertAuthority);
        authority.map_or(Verdict::Unknown, |line| {
            Verdict::Authority(line.place.clone())
        })
    }
}

/// Reads any bytes as a file of known hosts, and asks it for hosts of each form.
#[cfg(feature = "fuzzing")]
pub fn fuzzed(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (host, port) in [("nas.example", PORT), ("10.0.0.1", 2222), ("::1", PORT)] {
        let mut known = KnownHosts::default();
        known.add(Path::new("known_hosts"), &text, host, port);
        for line in &known.lines {
            assert_ne!(known.judge(&line.key), Verdict::Unknown);
        }
        assert!(known.kinds().len() <= known.lines.len());
    }
}

/// Whether two keys are one; their comments are nothing to it.
fn same(a: &PublicKey, b: &PublicKey) -> bool {
    a.key_data() == b.key_data()
}

/// Marker, names and key of a line, if it has them.
fn parse(line: &str) -> Option<(Marker, &str, PublicKey)> {
    let blank = [' ', '\t'];
    let mut rest = line.trim_start_matches(blank);
    if rest.is_empty() || rest.starts_with('#') {
        return None;
    }
    let mut field = || -> Option<&str> {
        let (field, after) = rest.split_once(blank).unwrap_or((rest, ""));
        rest = after.trim_start_matches(blank);
        (!field.is_empty()).then_some(field)
    };
    let mut names = field()?;
    let marker = match names {
        "@cert-authority" => Marker::CertAuthority,
        "@revoked" => Marker::Revoked,
        other if other.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        names = field()?;
    }
    let (kind, base64) = (field()?, field()?);
    let key = PublicKey::from_openssh(&format!("{kind} {}", base64.trim_end())).ok()?;
    Some((marker, names, key))
}

/// Whether a name fits the names of a line: one that is hashed, or patterns of which none with a
/// `!` fits.
fn matches(name: &str, names: &str) -> bool {
    if let Some(hashed) = names.strip_prefix(HASHED) {
        return is_hash_of(name, hashed).unwrap_or(false);
    }
    let mut found = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if fits(name, not) => return false,
            Some(_) => {}
            None => found |= fits(name, pattern),
        }
    }
    found
}

fn is_hash_of(name: &str, hashed: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let salt = BASE64.decode(salt).ok()?;
    let hash = BASE64.decode(hash).ok()?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&hash).is_ok())
}

/// Whether a name fits a pattern: `*` stands for any characters and `?` for one. In linear space
/// and, as only the last star is retried, at most their lengths' product in time.
fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.as_bytes(), pattern.as_bytes());
    let (mut at, mut in_pattern) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(at) {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                in_pattern += 1;
                star = Some((in_pattern, at));
            }
            Some(other) if *other == b'?' || other.eq_ignore_ascii_case(byte) => {
                at += 1;
                in_pattern += 1;
            }
            _ => match &mut star {
                Some((after, from)) => {
                    *from += 1;
                    (in_pattern, at) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    let rest = pattern.get(in_pattern..).unwrap_or_default();
    rest.iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILP9878yHqFphwd0LHbneIm5r4sa0e7fkzaffx1aOvTr";
    const OLD: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICHcCUkwAz2Gz0rrxYmTYaoG+LTiMuXeZisrPPympClN";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn known(text: &str, host: &str, port: u16) -> KnownHosts {
        let text = text
            .replace("RIGHT", RIGHT)
            .replace("OLD", OLD)
            .replace("ECDSA", ECDSA);
        let mut known = KnownHosts::default();
        known.add(Path::new("f"), &text, host, port);
        known
    }

    fn judged(text: &str, host: &str, port: u16) -> Verdict {
        known(text, host, port).judge(&key(RIGHT))
    }

    fn at(line: usize) -> Place {
        Place {
            file: "f".into(),
            line,
        }
    }

    #[test]
    fn any_line_of_the_host_may_hold_its_key() {
        for text in [
            "h RIGHT",
            "h OLD\nh RIGHT",
            "h ECDSA\nh OLD\n\th\tRIGHT comment here",
            "x,h,y RIGHT",
            "* RIGHT",
            "[h]:* OLD\nh RIGHT",
            "H RIGHT",
            "@unknown h OLD\nh RIGHT",
            "h ssh-ed25519 broken\nh RIGHT",
            "@cert-authority * OLD\nh RIGHT",
        ] {
            assert_eq!(judged(text, "h", 22), Verdict::Known, "{text}");
            assert_eq!(judged(text, "H", 22), Verdict::Known, "{text}");
        }
        assert_eq!(judged("h OLD", "h", 22), Verdict::Other(at(1)));
        assert_eq!(judged("h OLD\nh ECDSA", "h", 22), Verdict::Other(at(1)));
        assert_eq!(judged("h ECDSA\nh OLD", "h", 22), Verdict::Other(at(2)));
        for text in [
            "",
            "# h RIGHT",
            "x RIGHT",
            "hh RIGHT",
            "!h,* RIGHT",
            "*,!h RIGHT",
            "?? RIGHT",
        ] {
            assert_eq!(judged(text, "h", 22), Verdict::Unknown, "{text}");
        }
    }

    #[test]
    fn a_revoked_key_is_refused_in_every_case() {
        for text in ["@revoked * RIGHT\nh RIGHT", "h RIGHT\n@revoked\th\tRIGHT"] {
            assert!(
                matches!(judged(text, "h", 22), Verdict::Revoked(_)),
                "{text}"
            );
        }
        assert_eq!(judged("@revoked * OLD\nh RIGHT", "h", 22), Verdict::Known);
        assert_eq!(judged("@revoked x RIGHT\nh RIGHT", "h", 22), Verdict::Known);
        assert_eq!(judged("@revoked x RIGHT", "h", 22), Verdict::Unknown);
        let port = "@revoked h RIGHT\nh RIGHT";
        assert_eq!(judged(port, "h", 2222), Verdict::Revoked(at(1)));
    }

    #[test]
    fn an_authority_is_not_a_key_of_the_host() {
        let text = "@cert-authority *.example RIGHT";
        assert_eq!(judged(text, "h.example", 22), Verdict::Authority(at(1)));
        assert_eq!(known(text, "h.example", 22).kinds(), []);
    }

    #[test]
    fn ports_and_addresses_are_named_as_ssh_names_them() {
        for (text, host, port) in [
            ("[h]:2222 RIGHT", "h", 2222),
            ("[127.0.0.*]:2222 RIGHT", "127.0.0.1", 2222),
            ("[::1]:2222 RIGHT", "::1", 2222),
            ("::1 RIGHT", "::1", 22),
            // Without its port, where nothing is said of it with its port.
            ("h RIGHT", "h", 2222),
            ("h OLD\nh RIGHT", "h", 2222),
            ("[h]:2222 OLD\n[h]:2222 RIGHT", "h", 2222),
        ] {
            assert_eq!(judged(text, host, port), Verdict::Known, "{text}");
        }
        assert_eq!(
            judged("[h]:2222 OLD\nh RIGHT", "h", 2222),
            Verdict::Other(at(1))
        );
        assert_eq!(judged("[h]:2222 RIGHT", "h", 22), Verdict::Unknown);
        assert_eq!(judged("[h]:22 RIGHT", "h", 22), Verdict::Unknown);
    }

    #[test]
    fn a_hashed_name_is_one_name() {
        // ssh-keygen -H made it of "example.com".
        let text = "|1|AFx0a3hnokHUiXTlrA0dHe8PQws=|hp7n6Lot/NorhPkg2GkeOg1lA3Q= RIGHT";
        assert_eq!(judged(text, "example.com", 22), Verdict::Known);
        assert_eq!(judged(text, "example.org", 22), Verdict::Unknown);
        for broken in ["|1| RIGHT", "|1|x|y RIGHT", "|2|O33E|nuuC RIGHT"] {
            assert_eq!(judged(broken, "example.com", 22), Verdict::Unknown);
        }
    }

    #[test]
    fn a_pattern_with_many_stars_takes_little_time() {
        let name = "a".repeat(2_000);
        assert!(!fits(&name, &format!("{}b", "*a".repeat(1_000))));
        assert!(fits(&name, &"*a".repeat(1_000)));
        assert!(fits("", "*") && fits("", "") && !fits("", "?") && fits("ab", "?*?"));
    }
}
