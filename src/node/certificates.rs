//! Whether the certificates that etcd is about to start with are fit for it.
//!
//! etcd does not start, or starts and is shunned by its peers and clients, when a certificate is
//! missing, does not belong to its key, is signed by none of the bundle, is over, or lacks the
//! node's address. All of that can be read from files beforehand.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::component::Component;
use super::detection::Detection;
use super::endpoint::Endpoint;
use super::evidence::NodeAccess;
use super::files::{exists, read_bounded};
use super::layout::NodeLayout;
use super::overrides::AccessOverrides;
use super::profile::Profile;
use super::wanted::{Use, WantedCertificate};
use super::{kubeadm, openshift};
use crate::error::{Failure, Result};
use crate::sys::crypto;

/// Larger files are not certificates; a bundle of all signers of a cluster has some kilobytes.
const MAX_FILE: u64 = 1 << 20;
/// As many certificates of one file as are looked at.
const MAX_CERTIFICATES: usize = 1_000;
/// As many signers between a certificate and the bundle as are followed.
const MAX_CHAIN: usize = 8;
const DAY: i64 = 24 * 60 * 60;

/// One thing that is known of a wanted certificate now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFinding {
    /// [`WantedCertificate::name`].
    pub name: String,
    /// The file that it is about.
    pub path: PathBuf,
    /// What it is.
    pub what: Fitness,
}

/// What is known of a certificate, its key or its bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fitness {
    /// No defect in itself: until when it holds. Told once of every certificate that could be
    /// read and is not over.
    Holds {
        /// The last second.
        until: Timestamp,
        /// Whole days left.
        days: i64,
    },
    /// The file is not there.
    Absent,
    /// The file cannot be read, or is not what it should be.
    Unreadable(String),
    /// The key is another certificate's.
    OtherKey,
    /// None of the bundle signed it.
    NotSigned,
    /// The only one of the bundle that signed it is over, or does not hold yet.
    SignerOver,
    /// It is over.
    Expired {
        /// Since when.
        since: Timestamp,
    },
    /// It does not hold yet.
    NotYet {
        /// From when.
        from: Timestamp,
    },
    /// It is not for this host name.
    HostMissing(String),
    /// It is not for this address.
    AddressMissing(IpAddr),
    /// It is not good for this.
    UseMissing(Use),
}

impl CertificateFinding {
    /// Whether a program could not work with it.
    pub fn is_defect(&self) -> bool {
        !matches!(self.what, Fitness::Holds { .. })
    }
}

impl fmt::Display for CertificateFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.name, self.path.display())?;
        match &self.what {
            Fitness::Holds { until, days } => write!(f, "valid until {until}, {days} days"),
            Fitness::Absent => write!(f, "does not exist"),
            Fitness::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Fitness::OtherKey => write!(f, "does not match the certificate"),
            Fitness::NotSigned => write!(f, "not signed by the CA bundle"),
            Fitness::SignerOver => write!(f, "signed by a CA that is not valid now"),
            Fitness::Expired { since } => write!(f, "expired at {since}"),
            Fitness::NotYet { from } => write!(f, "is not valid before {from}"),
            Fitness::HostMissing(host) => write!(f, "is not for the host {host}"),
            Fitness::AddressMissing(address) => write!(f, "is not for the address {address}"),
            Fitness::UseMissing(Use::Server) => write!(f, "is not valid for server authentication"),
            Fitness::UseMissing(Use::Client) => write!(f, "is not valid for client authentication"),
        }
    }
}

/// What etcd on this node starts with: its serving and its peer certificate, by the same evidence
/// as [`find_access`](super::access::find_access), but whether or not any certificate is there.
/// If several releases keep a file in different places, the newest place that has it; if
/// none has, the newest. Nothing for a profile without known places.
///
/// An OpenShift node whose own member cannot be determined is an error, since the names are unknown.
pub fn wanted_by_etcd(
    layout: &NodeLayout,
    detection: &Detection,
    overrides: &AccessOverrides,
) -> Result<Vec<WantedCertificate>> {
    let (says, mut wanted) = match detection.profile {
        Profile::Openshift => {
            let says = openshift::ask(layout, overrides)?;
            let wanted = openshift_certificates(layout, &says)?;
            (says, wanted)
        }
        Profile::Kubeadm => {
            let says = kubeadm::ask(layout, detection, overrides)?;
            (says, kubeadm::server_certificates(layout, overrides))
        }
        Profile::Bare => return Ok(Vec::new()),
    };
    let address = |url: &String| Endpoint::parse(url).and_then(|endpoint| endpoint.ip());
    let mut client: Vec<IpAddr> = says.member_ip.into_iter().collect();
    if detection.profile == Profile::Kubeadm {
        client.extend(says.endpoint.iter().filter_map(|url| address(&url.value)));
        // There the list has this member's own URLs only.
        let own = says.member_endpoints.iter().flat_map(|urls| &urls.value);
        client.extend(own.filter_map(address));
    }
    let peer_urls = says.peer_urls.iter().flat_map(|urls| &urls.value);
    let peer: Vec<IpAddr> = peer_urls.filter_map(address).collect();
    // Both profiles list the serving certificate first.
    for (certificate, mut addresses) in wanted.iter_mut().zip([client, peer]) {
        // It is only listened on: no one dials it.
        addresses.retain(|ip| !ip.is_unspecified());
        addresses.sort();
        addresses.dedup();
        certificate.addresses = addresses;
    }
    Ok(wanted)
}

/// cluster-etcd-operator's names: one secret for all since 4.7, one of each kind before; the CA
/// in `etcd-serving-ca` up to 4.16.
fn openshift_certificates(
    layout: &NodeLayout,
    says: &NodeAccess,
) -> Result<Vec<WantedCertificate>> {
    let Some(member) = &says.member_name else {
        let why = says.why_no_endpoint.as_ref().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "no member is known".to_owned());
        let what = format!("naming etcd's certificates: {why}");
        return Err(Failure::refused_for_good("local-member-unknown", what));
    };
    let base = layout.certs(Component::Etcd);
    let first_there = |candidates: Vec<PathBuf>| -> Result<PathBuf> {
        for candidate in &candidates {
            if exists(candidate)? {
                return Ok(candidate.clone());
            }
        }
        Ok(candidates.into_iter().next().unwrap_or_default())
    };
    let configmaps = base.join("configmaps");
    let ca = first_there(vec![
        configmaps.join("etcd-all-bundles/server-ca-bundle.crt"),
        configmaps.join("etcd-serving-ca/ca-bundle.crt"),
    ])?;
    let pair = |kind: &str, secret: &str, uses: Vec<Use>| {
        let file = |extension: &str| {
            let name = format!("etcd-{kind}-{}.{extension}", member.value);
            let secrets = base.join("secrets");
            first_there(vec![
                secrets.join("etcd-all-certs").join(&name),
                secrets.join(secret).join(&name),
            ])
        };
        Ok(WantedCertificate {
            name: format!("etcd's {kind} certificate"),
            cert: file("crt")?,
            key: file("key")?,
            ca: ca.clone(),
            hosts: Vec::new(),
            addresses: Vec::new(),
            uses,
        })
    };
    Ok(vec![
        pair("serving", "etcd-all-serving", vec![Use::Server])?,
        pair("peer", "etcd-all-peer", vec![Use::Server, Use::Client])?,
    ])
}

/// Looks at each certificate, its key and its bundle as they are on the disk now. A certificate
/// that is fit has one finding, [`Fitness::Holds`].
pub fn check_certificates(wanted: &[WantedCertificate], now: Timestamp) -> Vec<CertificateFinding> {
    let mut findings = Vec::new();
    for wanted in wanted {
        let mut check = Check {
            wanted,
            now: now.as_second(),
            findings: &mut findings,
        };
        check.all();
    }
    findings
}

struct Check<'a> {
    wanted: &'a WantedCertificate,
    /// Seconds since 1970.
    now: i64,
    findings: &'a mut Vec<CertificateFinding>,
}

impl Check<'_> {
    fn all(&mut self) {
        let (cert, key, ca) = (&self.wanted.cert, &self.wanted.key, &self.wanted.ca);
        let file = self.read(cert).and_then(|text| self.blocks(cert, &text));
        let bundle = self.read(ca).and_then(|text| self.blocks(ca, &text));
        let key_text = self.read(key);
        let file = file.unwrap_or_default();
        let mut certificates = file.iter().map(|der| X509Certificate::from_der(der));
        let leaf = match certificates.next() {
            Some(Ok(([], leaf))) => Some(leaf),
            Some(Ok(_)) => {
                let what = "bytes after the certificate".to_owned();
                self.tell(cert, Fitness::Unreadable(what));
                None
            }
            Some(Err(cause)) => {
                self.tell(cert, Fitness::Unreadable(cause.to_string()));
                None
            }
            None => None,
        };
        let public = key_text.and_then(|text| self.public_key(&text));
        let Some(leaf) = leaf else { return };
        if public.is_some_and(|public| public != leaf.public_key().raw) {
            self.tell(key, Fitness::OtherKey);
        }
        if let Some(bundle) = bundle {
            let between: Vec<X509Certificate<'_>> =
                certificates.filter_map(|read| Some(read.ok()?.1)).collect();
            self.signed(&leaf, &between, &bundle);
        }
        self.time(&leaf);
        self.names(&leaf);
        self.uses(&leaf);
    }

    fn tell(&mut self, path: &Path, what: Fitness) {
        self.findings.push(CertificateFinding {
            name: self.wanted.name.clone(),
            path: path.to_path_buf(),
            what,
        });
    }

    fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        match read_bounded(path, MAX_FILE) {
            Ok(text) => Some(text),
            Err(failure) if failure.io_kind() == Some(io::ErrorKind::NotFound) => {
                self.tell(path, Fitness::Absent);
                None
            }
            Err(failure) => {
                self.tell(path, Fitness::Unreadable(failure.to_string()));
                None
            }
        }
    }

    /// The certificates of a PEM text, in DER; an error if it has none.
    fn blocks(&mut self, path: &Path, text: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        for block in Pem::iter_from_buffer(text).take(MAX_CERTIFICATES) {
            match block {
                Ok(pem) if pem.label == "CERTIFICATE" => found.push(pem.contents),
                Ok(_) => {}
                Err(cause) => {
                    self.tell(path, Fitness::Unreadable(cause.to_string()));
                    return None;
                }
            }
        }
        if found.is_empty() {
            let what = "expected a certificate in PEM, found none".to_owned();
            self.tell(path, Fitness::Unreadable(what));
            return None;
        }
        Some(found)
    }

    /// The public half of the first private key, as certificates have it (SubjectPublicKeyInfo).
    fn public_key(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        // What a PEM reader says of a broken key may quote it.
        let found = PrivateKeyDer::from_pem_slice(text)
            .map_err(|_| "expected a private key in PEM, found none".to_owned());
        let public = found.and_then(|der| {
            let key = crypto::signing_key(&der).map_err(|cause| cause.to_string())?;
            let public = key.public_key().map(|public| public.as_ref().to_vec());
            public.ok_or_else(|| "a type of key that cannot be compared".to_owned())
        });
        let path = &self.wanted.key;
        public
            .map_err(|why| self.tell(path, Fitness::Unreadable(why)))
            .ok()
    }

    /// Follows the signers from the leaf into the bundle, through what stands after the leaf.
    fn signed(
        &mut self,
        leaf: &X509Certificate<'_>,
        between: &[X509Certificate<'_>],
        bundle: &[Vec<u8>],
    ) {
        let roots: Vec<X509Certificate<'_>> = bundle
            .iter()
            .filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1))
            .collect();
        let mut over = false;
        let mut used = HashSet::new();
        let mut at = leaf;
        for _ in 0..MAX_CHAIN {
            for root in roots.iter().filter(|root| has_signed(root, at)) {
                if self.holds(root) {
                    return;
                }
                // Another signer of the same name may still be valid.
                over = true;
            }
            let next = between.iter().enumerate();
            let next = next
                .filter(|(i, signer)| !used.contains(i) && has_signed(signer, at))
                .find(|(_, signer)| self.holds(signer));
            let Some((i, signer)) = next else { break };
            used.insert(i);
            at = signer;
        }
        let what = if over {
            Fitness::SignerOver
        } else {
            Fitness::NotSigned
        };
        self.tell(&self.wanted.cert, what);
    }

    fn holds(&self, certificate: &X509Certificate<'_>) -> bool {
        let validity = certificate.validity();
        (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&self.now)
    }

    fn time(&mut self, leaf: &X509Certificate<'_>) {
        let validity = leaf.validity();
        let (from, until) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let (Ok(first), Ok(last)) = (Timestamp::from_second(from), Timestamp::from_second(until))
        else {
            let what = "times out of range".to_owned();
            return self.tell(&self.wanted.cert, Fitness::Unreadable(what));
        };
        let what = if self.now > until {
            Fitness::Expired { since: last }
        } else if self.now < from {
            Fitness::NotYet { from: first }
        } else {
            let days = until.saturating_sub(self.now) / DAY;
            Fitness::Holds { until: last, days }
        };
        self.tell(&self.wanted.cert, what);
    }

    fn names(&mut self, leaf: &X509Certificate<'_>) {
        let names = match leaf.subject_alternative_name() {
            Ok(names) => names.map(|extension| extension.value.general_names.as_slice()),
            Err(cause) => {
                let what = Fitness::Unreadable(cause.to_string());
                return self.tell(&self.wanted.cert, what);
            }
        };
        let names = names.unwrap_or_default();
        let is_for_host = |host: &str| {
            names.iter().any(|name| match name {
                GeneralName::DNSName(name) => fits(name, host),
                _ => false,
            })
        };
        let is_for_address = |address: IpAddr| {
            let wanted = match address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let mut names = names.iter();
            names.any(|name| matches!(name, GeneralName::IPAddress(bytes) if *bytes == wanted))
        };
        let wanted = self.wanted;
        for host in wanted.hosts.iter().filter(|host| !is_for_host(host)) {
            self.tell(&wanted.cert, Fitness::HostMissing(host.clone()));
        }
        for address in wanted.addresses.iter().filter(|ip| !is_for_address(**ip)) {
            self.tell(&wanted.cert, Fitness::AddressMissing(*address));
        }
    }

    fn uses(&mut self, leaf: &X509Certificate<'_>) {
        let uses = match leaf.extended_key_usage() {
            // Without the extension it is good for all.
            Ok(None) => return,
            Ok(Some(extension)) => extension.value,
            Err(cause) => {
                let what = Fitness::Unreadable(cause.to_string());
                return self.tell(&self.wanted.cert, what);
            }
        };
        let wanted = self.wanted;
        for wanted_use in &wanted.uses {
            let good = match wanted_use {
                Use::Server => uses.server_auth,
                Use::Client => uses.client_auth,
            };
            if !good && !uses.any {
                self.tell(&wanted.cert, Fitness::UseMissing(*wanted_use));
            }
        }
    }
}

/// Whether one certificate is a CA's and its key signed the other.
fn has_signed(signer: &X509Certificate<'_>, signed: &X509Certificate<'_>) -> bool {
    let authority = match signer.basic_constraints() {
        Ok(Some(extension)) => extension.value.ca,
        // Before version 3 nothing could say so.
        Ok(None) => signer.version() != X509Version::V3,
        Err(_) => false,
    };
    // What stands outside the signed part must say the same as inside (RFC 5280, 4.1.1.2).
    let consistent = signed.signature_algorithm == signed.tbs_certificate.signature
        && signed.signature_value.unused_bits == 0;
    authority
        && consistent
        && signer.subject().as_raw() == signed.issuer().as_raw()
        && signed.verify_signature(Some(signer.public_key())).is_ok()
}

/// A name of a certificate may have `*` for its first part (RFC 6125, 6.4.3).
fn fits(name: &str, host: &str) -> bool {
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let rest = name.strip_prefix("*.").zip(host.split_once('.'));
    rest.is_some_and(|(name, (first, host))| !first.is_empty() && name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests;
