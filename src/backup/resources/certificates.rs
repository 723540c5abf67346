//! The certificates in an archive, and which of them expires first.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::sys::yaml::{self, YamlError};

/// Larger files are not certificates.
const MAX_FILE: u64 = 4 << 20;
/// Larger files are not kubeconfigs; one with ten certificates has some 30 KiB.
const MAX_KUBECONFIG: u64 = 256 << 10;
/// As many as are kept; a node has some hundreds.
const MAX_CERTIFICATES: usize = 20_000;

/// Longer subjects are cut.
const MAX_SUBJECT: usize = 512;

/// All certificates of an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Those that could be read, in the archive's order.
    pub found: Vec<Certificate>,
    /// Those that could not.
    pub unreadable: Vec<Unreadable>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The archive entry that holds it.
    pub path: PathBuf,
    /// Its subject, as RFC 4514 writes names.
    pub subject: String,
    /// When it expires.
    pub not_after: Timestamp,
    /// Whether it signs others: a CA, mostly in a bundle, where expired ones are left over from
    /// rotations. Otherwise it identifies a server or a client.
    pub authority: bool,
}

/// A certificate that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The archive entry that holds it.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl Certificates {
    /// The one that expires first.
    pub fn earliest(&self) -> Option<&Certificate> {
        self.found.iter().min_by_key(|c| c.not_after)
    }

    /// The certificate of a server or client that expires first: something stops working then.
    pub fn earliest_leaf(&self) -> Option<&Certificate> {
        self.found
            .iter()
            .filter(|c| !c.authority)
            .min_by_key(|c| c.not_after)
    }

    /// Of those that sign others, the one that expires first.
    pub fn earliest_authority(&self) -> Option<&Certificate> {
        self.found
            .iter()
            .filter(|c| c.authority)
            .min_by_key(|c| c.not_after)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A file that should hold certificates.
    Certificates,
    /// A file of PEM blocks, which may be keys only.
    Pem,
    /// A kubeconfig, which may hold certificates in base64.
    Kubeconfig,
}

/// Collects a file's bytes if its name is one of a certificate's.
pub(super) struct Sieve {
    form: Option<Form>,
    bytes: Vec<u8>,
}

impl Sieve {
    pub(super) fn for_file(name: &Path, size: u64) -> Self {
        let extension = name
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        let form = match extension {
            "crt" => Some(Form::Certificates),
            "pem" => Some(Form::Pem),
            "conf" | "kubeconfig" => Some(Form::Kubeconfig),
            _ if name.file_name().is_some_and(|file| file == "kubeconfig") => {
                Some(Form::Kubeconfig)
            }
            _ => None,
        };
        let most = match form {
            Some(Form::Kubeconfig) => MAX_KUBECONFIG,
            _ => MAX_FILE,
        };
        Self {
            form: form.filter(|_| size <= most),
            bytes: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, part: &[u8]) {
        if self.form.is_some() {
            self.bytes.extend_from_slice(part);
        }
    }

    pub(super) fn finish(self, path: &Path, into: &mut Certificates) {
        match self.form {
            None => {}
            Some(Form::Kubeconfig) => into.add_kubeconfig(path, &self.bytes),
            Some(form) => {
                let count = into.add_pem(path, &self.bytes);
                // OpenShift writes an empty file for a bundle without certificates yet.
                let blank = self.bytes.iter().all(u8::is_ascii_whitespace);
                if count == 0 && form == Form::Certificates && !blank {
                    into.fail(path, "no certificate in it".to_owned());
                }
            }
        }
    }
}

impl Certificates {
    fn fail(&mut self, path: &Path, why: String) {
        if self.unreadable.len() < MAX_CERTIFICATES {
            self.unreadable.push(Unreadable {
                path: path.to_path_buf(),
                why,
            });
        }
    }

    /// Adds all certificates of a PEM text; says how many blocks there were, readable or not.
    fn add_pem(&mut self, path: &Path, text: &[u8]) -> usize {
        let mut count: usize = 0;
        for block in Pem::iter_from_buffer(text) {
            match block {
                Ok(pem) if pem.label == "CERTIFICATE" || pem.label == "TRUSTED CERTIFICATE" => {
                    count = count.saturating_add(1);
                    self.add_der(path, &pem.contents);
                }
                Ok(_) => {}
                Err(e) => {
                    count = count.saturating_add(1);
                    self.fail(path, e.to_string());
                }
            }
            if count > MAX_CERTIFICATES {
                self.fail(path, format!("more than {MAX_CERTIFICATES} certificates"));
                break;
            }
        }
        count
    }

    fn add_der(&mut self, path: &Path, der: &[u8]) {
        match read_der(path, der) {
            Ok(certificate) if self.found.len() < MAX_CERTIFICATES => self.found.push(certificate),
            Ok(_) => self.fail(path, format!("more than {MAX_CERTIFICATES} certificates")),
            Err(why) => self.fail(path, why),
        }
    }

    fn add_kubeconfig(&mut self, path: &Path, text: &[u8]) {
        // Other programs' .conf files are not kubeconfigs.
        let config = match yaml::from_slice::<Kubeconfig>(text) {
            Ok(config) => config,
            Err(YamlError::Aliases) => return self.fail(path, YamlError::Aliases.to_string()),
            Err(_) => return,
        };
        let users = config
            .users
            .into_iter()
            .filter_map(|named| named.user?.certificate);
        let clusters = config
            .clusters
            .into_iter()
            .filter_map(|named| named.cluster?.authority);
        for data in users.chain(clusters).filter(|data| !data.is_empty()) {
            match STANDARD.decode(data.trim()) {
                Ok(pem) => {
                    if self.add_pem(path, &pem) == 0 {
                        self.fail(path, "no certificate in its data".to_owned());
                    }
                }
                Err(e) => self.fail(path, e.to_string()),
            }
        }
    }
}

fn read_der(path: &Path, der: &[u8]) -> Result<Certificate, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    let seconds = certificate.validity().not_after.timestamp();
    let not_after = Timestamp::from_second(seconds).map_err(|e| e.to_string())?;
    let constraints = certificate.basic_constraints().map_err(|e| e.to_string())?;
    let authority = match constraints {
        Some(extension) => extension.value.ca,
        // Before version 3 nothing says so but the name.
        None if certificate.version() == X509Version::V3 => false,
        None => certificate.subject() == certificate.issuer(),
    };
    Ok(Certificate {
        path: path.to_path_buf(),
        subject: certificate
            .subject()
            .to_string()
            .chars()
            .take(MAX_SUBJECT)
            .collect(),
        not_after,
        authority,
    })
}

#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
}

#[derive(Deserialize)]
struct NamedUser {
    user: Option<User>,
}

#[derive(Deserialize)]
struct User {
    #[serde(rename = "client-certificate-data")]
    certificate: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(rename = "certificate-authority-data")]
    authority: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

    fn pem(name: &str, year: i32, authority: bool) -> String {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 2, 3);
        if authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        } else {
            params.is_ca = IsCa::ExplicitNoCa;
        }
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
    }

    fn sift(files: &[(&str, &[u8])]) -> Certificates {
        let mut certificates = Certificates::default();
        for (name, bytes) in files {
            let mut sieve = Sieve::for_file(Path::new(name), bytes.len() as u64);
            bytes.chunks(7).for_each(|part| sieve.take(part));
            sieve.finish(Path::new(name), &mut certificates);
        }
        certificates
    }

    #[test]
    fn the_first_to_expire_is_found_for_leaves_and_authorities() {
        let bundle = format!(
            "# comment\n{}{}",
            pem("old-ca", 2020, true),
            pem("new-ca", 2040, true)
        );
        let key = KeyPair::generate().unwrap().serialize_pem();
        let both = format!("{}{key}", pem("leaf-b", 2031, false));
        let found = sift(&[
            ("a/tls.crt", pem("leaf-a", 2033, false).as_bytes()),
            ("a/ca-bundle.crt", bundle.as_bytes()),
            ("kubelet.pem", both.as_bytes()),
            ("only-key.pem", key.as_bytes()),
            ("tls.key", key.as_bytes()),
            ("empty/ca-bundle.crt", b"\n"),
        ]);
        assert_eq!(found.unreadable, []);
        assert_eq!(found.found.len(), 4);
        let leaf = found.earliest_leaf().unwrap();
        assert_eq!(leaf.path, Path::new("kubelet.pem"));
        assert!(leaf.subject.contains("CN=leaf-b"), "{}", leaf.subject);
        assert_eq!(leaf.not_after, "2031-02-03T00:00:00Z".parse().unwrap());
        assert!(
            found
                .earliest_authority()
                .unwrap()
                .subject
                .contains("CN=old-ca")
        );
        assert_eq!(found.earliest(), found.earliest_authority());
    }

    #[test]
    fn kubeconfigs_hold_certificates_too() {
        let config = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    \
             certificate-authority-data: {}\nusers:\n- name: u\n  user:\n    \
             client-certificate-data: {}\n    client-key-data: x\n- name: v\n  user: {{token: t}}\n",
            STANDARD.encode(pem("ca", 2035, true)),
            STANDARD.encode(pem("admin", 2027, false)),
        );
        let found = sift(&[
            ("admin.conf", config.as_bytes()),
            ("other.conf", b"[main]\nx=1\n"),
        ]);
        assert_eq!(found.unreadable, []);
        assert!(found.earliest_leaf().unwrap().subject.contains("CN=admin"));
        assert!(
            found
                .earliest_authority()
                .unwrap()
                .subject
                .contains("CN=ca")
        );
        let broken = config.replace("client-certificate-data: ", "client-certificate-data: !!!");
        assert!(
            !sift(&[("x/kubeconfig", broken.as_bytes())])
                .found
                .is_empty()
        );
    }

    #[test]
    fn what_cannot_be_read_is_listed() {
        let good = pem("x", 2030, false);
        let cut = &good[..good.len() / 2];
        let wrong = good.replace("MII", "AAA");
        let found = sift(&[
            ("cut.crt", cut.as_bytes()),
            ("wrong.crt", wrong.as_bytes()),
            ("text.crt", b"not a certificate"),
        ]);
        let paths: Vec<_> = found
            .unreadable
            .iter()
            .map(|u| u.path.display().to_string())
            .collect();
        assert_eq!(paths, ["cut.crt", "wrong.crt", "text.crt"]);
        assert_eq!(found.earliest(), None);
    }
}
