//! Certificates: those that the members present, and those in the node's files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::problems::{CERTIFICATE_EXPIRED, CERTIFICATE_EXPIRES_SOON, CERTIFICATE_LACKS_NAME};
use super::report::{Finding, NotChecked, Remedy, unchecked};
use crate::cluster::survey::MemberState;
use crate::error::{Doing, Kind, Result};
use crate::etcd::client::presented_certificates;
use crate::etcd::membership::Member;
use crate::node::endpoint::Endpoint;

/// How long before its expiry a certificate is reported.
pub const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long one server has to present its certificate.
const LIMIT: Duration = Duration::from_secs(3);
/// Larger files are not certificates.
const MAX_FILE: u64 = 4 << 20;
/// As many files as are looked at, and how deep below a directory.
const MAX_FILES: usize = 2000;
const MAX_DEPTH: usize = 6;

/// What matters of one certificate.
struct Leaf {
    subject: String,
    from: Timestamp,
    until: Timestamp,
    authority: bool,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
}

fn read(der: &[u8]) -> Result<Leaf, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|e| e.to_string());
    let validity = certificate.validity();
    let mut leaf = Leaf {
        subject: certificate.subject().to_string(),
        from: time(validity.not_before.timestamp())?,
        until: time(validity.not_after.timestamp())?,
        authority: certificate.is_ca(),
        dns: Vec::new(),
        ips: Vec::new(),
    };
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| e.to_string())?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => leaf.dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let sixteen = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                leaf.ips.extend(four.or(sixteen).ok());
            }
            _ => {}
        }
    }
    Ok(leaf)
}

impl Leaf {
    fn is_for(&self, place: &Endpoint) -> bool {
        match place.ip() {
            Some(ip) => self.ips.iter().any(|own| own.to_canonical() == ip),
            None => self.dns.iter().any(|name| fits(name, &place.host)),
        }
    }

    /// What time says of it.
    fn aged(&self, now: Timestamp, of: &str) -> Option<Finding> {
        let subject = &self.subject;
        if self.until <= now {
            let evidence = format!(
                "{of} ({subject}) expired at {}; this machine's time is {now}",
                self.until
            );
            return Some(Finding::error(CERTIFICATE_EXPIRED, evidence));
        }
        if self.from > now {
            let evidence = format!(
                "{of} ({subject}) is not valid before {}; this machine's time is {now}",
                self.from
            );
            return Some(Finding::error(CERTIFICATE_EXPIRED, evidence).with(Remedy::Clock));
        }
        if self.until.duration_since(now) < SOON {
            let evidence = format!("{of} ({subject}) expires at {}", self.until);
            return Some(Finding::warning(CERTIFICATE_EXPIRES_SOON, evidence));
        }
        None
    }
}

/// A wildcard stands for one label (RFC 6125, section 6.4.3).
fn fits(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(rest)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// The certificates that a member presents to clients and to peers; checks all its URLs at once. A
/// member that does not answer is another check's matter; a URL of a healthy member that presents
/// none is reported as not checked.
pub(super) async fn presented(
    state: &MemberState,
    now: Timestamp,
) -> (Vec<Finding>, Vec<NotChecked>) {
    let member = &state.member;
    let urls = member.client_urls.iter().chain(&member.peer_urls);
    let places = urls.filter_map(|url| {
        let place = Endpoint::parse(url).filter(|place| place.tls)?;
        Some((url, place))
    });
    let looks = places.map(|(url, place)| async move {
        let chain = presented_certificates(&place.host, place.port, LIMIT).await;
        (url, place, chain)
    });
    let (mut findings, mut not_checked) = (Vec::new(), Vec::new());
    for (url, place, chain) in join_all(looks).await {
        match chain {
            Ok(chain) => findings.extend(judged(member, url, &place, &chain, now)),
            Err(failure) if state.is_healthy() => {
                not_checked.push(unchecked(CERTIFICATE_EXPIRED, &failure));
            }
            Err(_) => {}
        }
    }
    (findings, not_checked)
}

fn judged(
    member: &Member,
    url: &str,
    place: &Endpoint,
    chain: &[Vec<u8>],
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let at = format!("{}:{}", place.host, place.port);
    let of = format!("the certificate at {url}");
    for (i, der) in chain.iter().enumerate() {
        let Ok(leaf) = read(der) else { continue };
        let remedy = match member.peer_urls.iter().any(|own| own == url) {
            true => Remedy::PeerCertificate,
            false => Remedy::ServingCertificate,
        };
        findings.extend(leaf.aged(now, &of).map(|found| {
            let remedy = found.remedy.unwrap_or(remedy);
            found.of(member).at(&at).with(remedy)
        }));
        // Only the first is the server's own.
        if i == 0 && !leaf.is_for(place) {
            let mut names = leaf.dns.clone();
            names.extend(leaf.ips.iter().map(ToString::to_string));
            let names = if names.is_empty() {
                "for no name".to_owned()
            } else {
                format!("for {}", names.join(", "))
            };
            let evidence = format!("{of} is not for {}, but {names}", place.host);
            findings.push(
                Finding::error(CERTIFICATE_LACKS_NAME, evidence)
                    .of(member)
                    .at(&at),
            );
        }
    }
    findings
}

/// The certificates in files; in a bundle of CAs only one needs to be good.
pub(super) fn in_files(paths: &[PathBuf], now: Timestamp) -> (Vec<Finding>, Vec<NotChecked>) {
    let (mut files, mut not_checked) = (Vec::new(), Vec::new());
    for path in paths {
        if let Err(failure) = gather(path, 0, &mut files) {
            not_checked.push(unchecked(CERTIFICATE_EXPIRED, &failure));
        }
    }
    files.sort();
    files.dedup();
    let mut findings = Vec::new();
    for file in &files {
        match in_file(file, now) {
            Ok(found) => findings.extend(found),
            Err(failure) => not_checked.push(unchecked(CERTIFICATE_EXPIRED, &failure)),
        }
    }
    (findings, not_checked)
}

fn gather(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if files.len() >= MAX_FILES || depth > MAX_DEPTH {
        return Ok(());
    }
    if path.is_dir() {
        let reading = || format!("reading {}", path.display());
        for entry in std::fs::read_dir(path).doing(Kind::Unexpected, reading)? {
            let entry = entry.doing(Kind::Unexpected, reading)?;
            gather(&entry.path(), depth + 1, files)?;
        }
    } else if depth == 0 || path.extension().is_some_and(|ending| ending == "crt") {
        files.push(path.to_owned());
    }
    Ok(())
}

fn in_file(path: &Path, now: Timestamp) -> Result<Vec<Finding>> {
    let Some(bytes) = crate::sys::small::read(path, MAX_FILE)? else {
        return Ok(Vec::new());
    };
    let blocks = Pem::iter_from_buffer(&bytes).filter_map(Result::ok);
    let leaves: Vec<Leaf> = blocks
        .filter(|pem| pem.label == "CERTIFICATE")
        .filter_map(|pem| read(&pem.contents).ok())
        .collect();
    let of = path.display().to_string();
    let (authorities, own): (Vec<&Leaf>, Vec<&Leaf>) =
        leaves.iter().partition(|leaf| leaf.authority);
    // After a rotation, the old authorities stay in a bundle.
    let longest = authorities.into_iter().max_by_key(|leaf| leaf.until);
    Ok(own
        .into_iter()
        .chain(longest)
        .filter_map(|leaf| leaf.aged(now, &of))
        .map(|finding| finding.in_file(path))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_label() {
        assert!(fits("*.example.com", "a.example.com"));
        assert!(!fits("*.example.com", "a.b.example.com"));
        assert!(!fits("*.example.com", "example.com"));
        assert!(fits("A.example.com", "a.EXAMPLE.com"));
    }
}
