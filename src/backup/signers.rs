//! Whose signatures count: OpenSSH's ALLOWED SIGNERS format (`ssh-keygen(1)`).
//!
//! One key a line: principals, options, the public key, a comment. A principal is what the key may sign
//! for: here a node's name, or `CLUSTER/NODE`, each with `*`, `?` and `!` as in `ssh_config(5)`.
//!
//! ```text
//! master-0                                        ssh-ed25519 AAAAC3…
//! 6f2c…/*  namespaces="etcd-dr",valid-after="20260101Z" ecdsa-sha2-nistp256 AAAAE2…
//! ```

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

use super::signature::{NAMESPACE, Signature, acceptable};
use crate::error::{Failure, Kind, Result};

/// The keys that may sign, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedSigners(Vec<Signer>);

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signer {
    principals: String,
    key: KeyData,
    options: Options,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Options {
    namespaces: Option<String>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

/// What a signature must be valid for: the backup's cluster and node, and its time.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The cluster, as its Manifest names it.
    pub cluster: &'a str,
    /// The node.
    pub node: &'a str,
    /// When the backup was taken.
    pub created: Timestamp,
}

/// What is known of a key that signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may sign for the subject; the principals of its line.
    Allowed(String),
    /// No line has the key for this namespace at that time, and why.
    Unknown(String),
    /// The key is known, and signs for others than the subject.
    Wrong(String),
}

impl AllowedSigners {
    /// Reads a file. Times without `Z` are in `zone`.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the number of the first line that is not of this format, and where the file has
    /// no key at all.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self> {
        let mut signers = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signer = signer(line, zone)
                .map_err(|why| Failure::new(Kind::Usage, format!("line {}: {why}", number + 1)))?;
            signers.push(signer);
        }
        if signers.is_empty() {
            let what = "expected a line of principals and a public key, found none";
            return Err(Failure::new(Kind::Usage, what));
        }
        Ok(Self(signers))
    }

    /// Whether the key of a signature may sign for a subject.
    pub fn judge(&self, signature: &Signature, subject: &Subject<'_>) -> Standing {
        let mut of_key = self
            .0
            .iter()
            .filter(|signer| signer.key == *signature.key())
            .peekable();
        if of_key.peek().is_none() {
            return Standing::Unknown(format!("no line has the key {}", signature.fingerprint()));
        }
        let mut not_now = None;
        let mut others = None;
        for signer in of_key {
            if let Some(why) = signer.options.hinders(subject.created) {
                not_now = Some(why);
            } else if signer.is_for(subject) {
                return Standing::Allowed(signer.principals.clone());
            } else {
                others = Some(&signer.principals);
            }
        }
        match (others, not_now) {
            (Some(principals), _) => Standing::Wrong(format!(
                "the key {} signs for {principals}, not for {}/{}",
                signature.fingerprint(),
                subject.cluster,
                subject.node
            )),
            (None, why) => Standing::Unknown(format!(
                "the key {} {}",
                signature.fingerprint(),
                why.unwrap_or_default()
            )),
        }
    }
}

impl Signer {
    fn is_for(&self, subject: &Subject<'_>) -> bool {
        // With a slash in a name, `a/b` of one cluster could be taken for another's.
        if subject.cluster.contains('/') || subject.node.contains('/') {
            return false;
        }
        let whole = format!("{}/{}", subject.cluster, subject.node);
        let names = [subject.node, &whole];
        let found = names.map(|name| matches(&self.principals, name));
        // A negated pattern excludes a node by either of its names.
        found.contains(&Some(true)) && !found.contains(&Some(false))
    }
}

impl Options {
    /// Why the line is not valid for a backup of that time, if it is not.
    fn hinders(&self, at: Timestamp) -> Option<String> {
        let namespaces = self.namespaces.as_deref();
        if namespaces.is_some_and(|list| matches(list, NAMESPACE) != Some(true)) {
            return Some(format!("is not for the namespace {NAMESPACE}"));
        }
        if let Some(after) = self.after.filter(|after| at < *after) {
            return Some(format!("is valid from {after} on"));
        }
        let before = self.before.filter(|before| at > *before);
        before.map(|before| format!("was valid until {before}"))
    }
}

/// Whether a list of patterns has a name (OpenSSH, `match_pattern_list`): `Some(false)` where a negated
/// one does, `None` if nothing matches.
fn matches(list: &str, name: &str) -> Option<bool> {
    let mut found = None;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if glob(negated.as_bytes(), name.as_bytes()) => return Some(false),
            None if glob(pattern.as_bytes(), name.as_bytes()) => found = Some(true),
            _ => {}
        }
    }
    found
}

/// `*` and `?`, as `ssh_config(5)` has them.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    // The place after the last `*`, and how much of the name that one has taken.
    let (mut p, mut n, mut star) = (0, 0, None);
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, n));
            }
            Some(one) if *one == b'?' || one == byte => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, n) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|b| *b == b'*')
}

/// Reads one line.
fn signer(line: &str, zone: &TimeZone) -> std::result::Result<Signer, String> {
    let (principals, rest) = word(line)?;
    if principals.is_empty() {
        return Err("expected principals, found an empty list".to_owned());
    }
    if rest.trim().is_empty() {
        return Err("expected a public key after the principals".to_owned());
    }
    let (options, rest) = match word(rest)? {
        (first, _) if is_key_type(&first) => (Options::default(), rest),
        (options, rest) => (read_options(&options, zone)?, rest),
    };
    let mut parts = rest.split_whitespace();
    let (Some(kind), Some(blob)) = (parts.next(), parts.next()) else {
        return Err("expected a public key after the principals".to_owned());
    };
    let key = PublicKey::from_openssh(&format!("{kind} {blob}"))
        .map_err(|_| format!("{kind:?} is not followed by a readable public key"))?;
    acceptable(key.key_data())?;
    Ok(Signer {
        principals: unquoted(&principals),
        key: key.key_data().clone(),
        options,
    })
}

/// The first word of a line, in which quotes hide blanks, and what follows it.
fn word(text: &str) -> std::result::Result<(String, &str), String> {
    let text = text.trim_start();
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                return Ok((text[..at].to_owned(), &text[at..]));
            }
            _ => {}
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    Ok((text.to_owned(), ""))
}

fn unquoted(text: &str) -> String {
    text.replace('"', "")
}

fn is_key_type(word: &str) -> bool {
    let starts = ["ssh-", "ecdsa-", "sk-", "rsa-", "webauthn-"];
    starts.iter().any(|start| word.starts_with(start))
}

fn read_options(text: &str, zone: &TimeZone) -> std::result::Result<Options, String> {
    let mut options = Options::default();
    for option in split_options(text) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(unquoted(value))),
            None => (option, None),
        };
        match (name.to_ascii_lowercase().as_str(), value) {
            ("namespaces", Some(list)) => options.namespaces = Some(list),
            ("valid-after", Some(time)) => options.after = Some(read_time(&time, zone)?),
            ("valid-before", Some(time)) => options.before = Some(read_time(&time, zone)?),
            ("cert-authority", _) => {
                return Err(
                    "cert-authority is not supported: name the signing key itself".to_owned(),
                );
            }
            _ => return Err(format!("{option:?} is not an option of an allowed signer")),
        }
    }
    if let (Some(after), Some(before)) = (options.after, options.before)
        && after >= before
    {
        return Err("valid-before is not later than valid-after".to_owned());
    }
    Ok(options)
}

/// The options of a list, whose values may have commas between quotes.
fn split_options(text: &str) -> Vec<&str> {
    let mut quoted = false;
    let split = text.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    split.collect()
}

/// `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, with `Z` in UTC.
fn read_time(text: &str, zone: &TimeZone) -> std::result::Result<Timestamp, String> {
    let (digits, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(digits) => (digits, &TimeZone::UTC),
        None => (text, zone),
    };
    let bad = || format!("expected a time such as 20261130 or 202611300615Z, found {text:?}");
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let full = format!("{digits:0<14}");
    let time = DateTime::strptime("%Y%m%d%H%M%S", &full).map_err(|_| bad())?;
    let zoned = zone.to_zoned(time).map_err(|_| bad())?;
    Ok(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBo99GDKbUDYUHYHrmdc3a/bzQ8aUFob6B3WL9eYsd55";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn standing(file: &str, cluster: &str, node: &str) -> Standing {
        let signers = AllowedSigners::parse(file, &TimeZone::UTC).unwrap();
        let key = PublicKey::from_openssh(KEY).unwrap().key_data().clone();
        let subject = Subject {
            cluster,
            node,
            created: at("2026-06-01T12:00:00Z"),
        };
        signers.judge(&Signature::of(key), &subject)
    }

    #[test]
    fn principals_bind_a_key_to_nodes_and_clusters() {
        let allowed = |principals: &str, cluster: &str, node: &str| {
            let found = standing(&format!("{principals} {KEY} comment"), cluster, node);
            matches!(found, Standing::Allowed(_))
        };
        for (principals, cluster, node, expected) in [
            ("master-0", "c", "master-0", true),
            ("master-0", "c", "master-1", false),
            ("master-?", "c", "master-1", true),
            ("\"master-0, x\"", "c", "y", false),
            ("c/*", "c", "master-1", true),
            ("c/*", "d", "master-1", false),
            ("c/*", "c/evil", "master-1", false),
            ("c/master-0", "c", "master-0", true),
            ("*,!master-2", "c", "master-2", false),
            ("*,!c/master-2", "c", "master-2", false),
            ("*,!master-2", "c", "master-1", true),
            // A name that stands for the cluster is not a node's.
            ("master-0", "master-0", "evil", false),
            ("*/master-0", "x", "evil/master-0", false),
        ] {
            assert_eq!(
                allowed(principals, cluster, node),
                expected,
                "{principals} {cluster} {node}"
            );
        }
        let wrong = standing(&format!("master-1 {KEY}"), "c", "master-0");
        assert!(
            matches!(&wrong, Standing::Wrong(why) if why.contains("signs for master-1")),
            "{wrong:?}"
        );
        let unknown = standing(&format!("* {OTHER}"), "c", "n");
        assert!(
            matches!(&unknown, Standing::Unknown(why) if why.contains("no line has")),
            "{unknown:?}"
        );
        // Of several lines of one key any may allow it.
        let two = standing(&format!("a {KEY}\nn {KEY}"), "c", "n");
        assert_eq!(two, Standing::Allowed("n".to_owned()));
    }

    #[test]
    fn options_limit_what_and_when() {
        let judged = |options: &str| standing(&format!("# who\n\n* {options} {KEY}"), "c", "n");
        for options in [
            "namespaces=\"git,etcd-*\"",
            "namespaces=\"etcd-dr\",valid-after=\"20260601\"",
            "valid-after=\"202606011200Z\",valid-before=\"20260601120001\"",
            "Valid-Before=20270101",
        ] {
            assert!(matches!(judged(options), Standing::Allowed(_)), "{options}");
        }
        for (options, why) in [
            ("namespaces=\"git\"", "not for the namespace"),
            ("namespaces=\"*,!etcd-dr\"", "not for the namespace"),
            ("valid-after=\"20260602\"", "valid from 2026-06-02"),
            ("valid-before=\"20260531Z\"", "valid until 2026-05-31"),
        ] {
            let found = judged(options);
            assert!(
                matches!(&found, Standing::Unknown(text) if text.contains(why)),
                "{options}: {found:?}"
            );
        }
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(read_time("20260601", &zone), Ok(at("2026-05-31T22:00:00Z")));
        assert_eq!(
            read_time("20260601Z", &zone),
            Ok(at("2026-06-01T00:00:00Z"))
        );
    }

    #[test]
    fn a_line_that_is_not_of_the_format_is_refused_with_its_number() {
        for (line, why) in [
            ("master-0", "expected a public key"),
            ("master-0 ssh-ed25519", "expected a public key"),
            ("master-0 ssh-ed25519 AAAA", "readable public key"),
            (&format!("\"master-0 {KEY}"), "a quote is not closed"),
            (
                &format!("ca cert-authority {KEY}"),
                "cert-authority is not supported",
            ),
            (&format!("n verify-required {KEY}"), "not an option"),
            (
                &format!("n valid-after=\"2026\" {KEY}"),
                "expected a time such as",
            ),
            (
                &format!("n valid-after=20260230 {KEY}"),
                "expected a time such as",
            ),
            (
                &format!("n valid-after=20260102,valid-before=20260101 {KEY}"),
                "not later than",
            ),
            ("n ssh-dss AAAAB3NzaC1kc3MAAACB", "readable public key"),
        ] {
            let text = format!("# comment\n{line}\n");
            let failure = AllowedSigners::parse(&text, &TimeZone::UTC).unwrap_err();
            let found = failure.to_string();
            assert!(
                found.starts_with("line 2: ") && found.contains(why),
                "{line}: {found}"
            );
            assert_eq!(failure.kind(), Kind::Usage);
        }
        for empty in ["", "# nobody\n\n"] {
            assert!(AllowedSigners::parse(empty, &TimeZone::UTC).is_err());
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "", false),
            ("*?", "ab", true),
            ("**a", "bba", true),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }
}
