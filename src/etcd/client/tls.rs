//! TLS towards etcd: PEM files read by us, checked before anything is dialled, and a verifier
//! that tells what was wrong with a server's certificate.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use x509_parser::der_parser::oid::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::cause::{self, Cause, ServerCertificate, date};
use super::transport::NotedCause;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::sys::crypto;

/// The keys that can be used.
const USABLE: &str = "an RSA key of 2048 to 4096 bits, or one on P-256, P-384, P-521 or Ed25519";
/// The largest PEM file that is read; a bundle of every public authority is a twentieth of it.
const PEM_LIMIT: u64 = 4 << 20;

/// A PEM file: where it came from, and its bytes, which `Debug` never shows.
#[derive(Clone)]
pub struct Pem {
    origin: PathBuf,
    bytes: Vec<u8>,
}

impl Pem {
    /// Bytes that were read elsewhere; `origin` is what errors call them.
    pub fn new(origin: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            origin: origin.into(),
            bytes: bytes.into(),
        }
    }

    /// Reads a file of at most 4 MiB.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it cannot be read.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self> {
        let origin = path.into();
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(&origin)?
                .take(PEM_LIMIT + 1)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().doing(Kind::Usage, || format!("reading {}", origin.display()))?;
        if bytes.len() as u64 > PEM_LIMIT {
            return Err(Failure::new(
                Kind::Usage,
                format!(
                    "reading {}: it is larger than 4 MiB, so it is not a PEM file",
                    origin.display()
                ),
            ));
        }
        Ok(Self { origin, bytes })
    }

    /// Where it came from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    fn fault(&self, what: impl fmt::Display) -> Failure {
        Failure::new(
            Kind::Usage,
            format!("reading {}: {what}", self.origin.display()),
        )
        .with(Fact::Path(self.origin.clone()))
    }

    /// All certificates in it, in their order. Those that openssl calls trusted, or X509, are
    /// certificates too, as to etcd; the uses that openssl notes after one are left out.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the text has no certificate, or is not PEM.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let mut text = std::borrow::Cow::Borrowed(self.bytes.as_slice());
        for label in ["TRUSTED CERTIFICATE", "X509 CERTIFICATE"] {
            if contains(&text, label.as_bytes()) {
                let plain = String::from_utf8_lossy(&text).replace(label, "CERTIFICATE");
                text = plain.into_bytes().into();
            }
        }
        let found = CertificateDer::pem_slice_iter(&text)
            .map(|found| found.map(without_notes))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| self.fault(format!("it is not correct PEM: {error}")))?;
        if found.is_empty() {
            return Err(self.fault("it contains no CERTIFICATE in PEM"));
        }
        Ok(found)
    }

    /// The first private key: PKCS#8, PKCS#1 (RSA) and SEC1 (elliptic curves) are read.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the text has no private key, or an encrypted one.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>> {
        // The library's own message could quote the file.
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| {
            let encrypted = contains(&self.bytes, b"ENCRYPTED");
            self.fault(if encrypted {
                "the private key is encrypted, and a passphrase cannot be given: decrypt it first"
            } else {
                "it contains no private key in PEM (PKCS#8, PKCS#1 or SEC1)"
            })
        })
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// A certificate alone, where more follows it in its block.
fn without_notes(certificate: CertificateDer<'static>) -> CertificateDer<'static> {
    let rest = X509Certificate::from_der(&certificate).map_or(0, |(rest, _)| rest.len());
    match certificate.len().checked_sub(rest) {
        Some(end) if rest > 0 => certificate.get(..end).unwrap_or_default().to_vec().into(),
        _ => certificate,
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Whom to trust, and who we are: checked when made, so that what fails later is the server's
/// doing. Holds a private key, which `Debug` never shows.
#[derive(Clone)]
pub struct TlsConfig {
    roots: Arc<RootCertStore>,
    /// The trusted certificates as they are.
    trusted: Arc<Vec<CertificateDer<'static>>>,
    ca: Vec<PathBuf>,
    identity: Option<Arc<Identity>>,
    server_name: Option<ServerName<'static>>,
}

struct Identity {
    resolver: Arc<SingleCertAndKey>,
    /// What errors say of it.
    described: String,
}

impl TlsConfig {
    /// Takes the trusted certificates (each file may hold several; none means that nothing is
    /// trusted, which is an error) and, where the server asks for one, the client's certificate
    /// (with its intermediates) and key.
    ///
    /// # Errors
    /// [`Kind::Usage`]: not PEM, no certificate, no key, a key that is not the certificate's.
    pub fn new(ca: &[Pem], client: Option<(&Pem, &Pem)>) -> Result<Self> {
        if ca.is_empty() {
            return Err(Failure::new(
                Kind::Usage,
                "no CA is configured, so no server certificate can be trusted",
            )
            .with(Fact::Missing("ca")));
        }
        let mut roots = RootCertStore::empty();
        let mut trusted = Vec::new();
        for pem in ca {
            let certificates = pem.certificates()?;
            let (usable, _) = roots.add_parsable_certificates(certificates.clone());
            if usable == 0 {
                return Err(pem.fault("none of its certificates can be read"));
            }
            trusted.extend(certificates);
        }
        let identity = client
            .map(|(certificate, key)| Identity::new(certificate, key))
            .transpose()?;
        let config = Self {
            roots: Arc::new(roots),
            trusted: Arc::new(trusted),
            ca: ca.iter().map(|pem| pem.origin.clone()).collect(),
            identity: identity.map(Arc::new),
            server_name: None,
        };
        // Made once here, so that what is wrong with it shows before anything is dialled.
        let made = config.client_config(Arc::default());
        made.doing(Kind::Usage, || "setting up TLS")?;
        Ok(config)
    }

    /// Expects this name in the server's certificate, instead of the endpoint's host.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it is neither a DNS name nor an IP address.
    pub fn with_server_name(mut self, name: &str) -> Result<Self> {
        self.server_name = Some(server_name(name)?);
        Ok(self)
    }

    /// Whether a client certificate goes with it.
    pub fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    pub(super) fn name_for(&self, host: &str) -> Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => server_name(host),
        }
    }

    pub(super) fn described_identity(&self) -> Option<&str> {
        self.identity
            .as_ref()
            .map(|identity| identity.described.as_str())
    }

    /// The TLS library's settings, with a verifier that tells `noted` what it refused.
    pub(super) fn client_config(
        &self,
        noted: Arc<NotedCause>,
    ) -> std::result::Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(crypto::provider());
        let verifier = Witness {
            inner: webpki(&self.roots, &provider)?,
            trusted: Arc::clone(&self.trusted),
            ca: self.ca.clone(),
            noted,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            Some(identity) => builder.with_client_cert_resolver(identity.resolver.clone()),
            None => builder.with_no_client_auth(),
        };
        // gRPC is HTTP/2 alone.
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("ca", &self.ca)
            .field("client", &self.described_identity())
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// A certificate is given to the server as it is, whatever version of X.509 it has: who it is
    /// for and whether it is still valid is the server's to judge.
    fn new(certificate: &Pem, key: &Pem) -> Result<Self> {
        let chain = certificate.certificates()?;
        let der = key.key()?;
        let both = || {
            let (certificate, key) = (certificate.origin.display(), key.origin.display());
            format!("reading {certificate} and {key}")
        };
        let first = chain.first().map(|first| X509Certificate::from_der(first));
        let Some(Ok((_, parsed))) = first else {
            return Err(certificate.fault("its certificate cannot be read"));
        };
        let signing = crypto::signing_key(&der).map_err(|_| {
            let what = format!("the private key cannot be used: {}", kind_of_key(&parsed));
            Failure::new(Kind::Usage, what).doing(both())
        })?;
        let own = signing.public_key();
        if own.is_some_and(|own| own.as_ref() != parsed.public_key().raw) {
            let what = "the private key does not match the certificate";
            return Err(Failure::new(Kind::Usage, what).doing(both()));
        }
        let described = chain.first().and_then(describe_client);
        Ok(Self {
            described: match described {
                Some(described) => format!("{}, {described}", certificate.origin.display()),
                None => certificate.origin.display().to_string(),
            },
            resolver: Arc::new(CertifiedKey::new(chain, signing).into()),
        })
    }
}

/// What kind of key a certificate has, and which kinds can be used.
fn kind_of_key(certificate: &X509Certificate<'_>) -> String {
    let key = certificate.public_key();
    let kind = match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("it is RSA of {} bits", rsa.key_size()),
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref();
            let curve = curve.and_then(|any| any.as_oid().ok());
            match curve {
                Some(curve) => format!("it is on the curve {curve}"),
                None => "it is on a curve without a name".to_owned(),
            }
        }
        _ => format!("it is of type {}", key.algorithm.algorithm),
    };
    format!("{kind}; make a certificate with {USABLE}")
}

fn webpki(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> std::result::Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).doing(Kind::Usage, || {
        format!("using {name:?} as the server's name")
    })
}

/// "for …, issued by …, valid until …".
fn describe_client(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let not_after = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(format!(
        "for {}, issued by {}, valid until {}",
        parsed.subject(),
        parsed.issuer(),
        date(not_after)
    ))
}

fn describe_server(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(format!(
        "for {}, issued by {}",
        parsed.subject(),
        parsed.issuer()
    ))
}

/// Why a server's key is not accepted, if it is too short.
fn weak_key(certificate: &CertificateDer<'_>) -> Option<String> {
    const LEAST: usize = 2_048;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < LEAST => Some(format!(
            "its RSA key has {} bits, and fewer than {LEAST} are insecure",
            rsa.key_size()
        )),
        _ => None,
    }
}

/// Judges a server's certificate that is itself the one that is trusted, byte for byte: webpki
/// takes none that may sign others, Go's library does. Nobody has to have signed it; what is left is
/// whether it is for this name, for a server, and valid now.
fn is_the_trusted_one(
    certificate: &CertificateDer<'_>,
    trusted: &[CertificateDer<'static>],
    name: &ServerName<'_>,
    now: UnixTime,
) -> std::result::Result<(), rustls::Error> {
    use rustls::CertificateError as Fault;
    if !trusted
        .iter()
        .any(|one| one.as_ref() == certificate.as_ref())
    {
        return Err(Fault::UnknownIssuer.into());
    }
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| Fault::BadEncoding)?;
    if !rest.is_empty() {
        return Err(Fault::BadEncoding.into());
    }
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(Fault::NotValidYet.into());
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(Fault::Expired.into());
    }
    let usage = parsed
        .extended_key_usage()
        .map_err(|_| Fault::BadEncoding)?;
    if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
        return Err(Fault::InvalidPurpose.into());
    }
    let known = |oid: &Oid<'_>| {
        use x509_parser::oid_registry as oid;
        [
            oid::OID_X509_EXT_BASIC_CONSTRAINTS,
            oid::OID_X509_EXT_KEY_USAGE,
            oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
            oid::OID_X509_EXT_SUBJECT_ALT_NAME,
        ]
        .contains(oid)
    };
    // A critical extension limits the certificate in a way that nothing here would check.
    let mut extensions = parsed.extensions().iter();
    if extensions.any(|extension| extension.critical && !known(&extension.oid)) {
        return Err(Fault::UnhandledCriticalExtension.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

/// Asks the usual verifier, decides itself only over a certificate that is the trusted one, and notes
/// what was refused.
#[derive(Debug)]
struct Witness {
    inner: Arc<WebPkiServerVerifier>,
    trusted: Arc<Vec<CertificateDer<'static>>>,
    ca: Vec<PathBuf>,
    noted: Arc<NotedCause>,
}

impl Witness {
    fn note(&self, error: &rustls::Error, certificate: &CertificateDer<'_>) {
        let rustls::Error::InvalidCertificate(fault) = error else {
            return;
        };
        let cause = weak_key(certificate).unwrap_or_else(|| Cause::of_certificate(fault));
        let about_trust = matches!(
            fault,
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature
        );
        self.noted.note(Cause::ServerCertificate(ServerCertificate {
            fault: cause,
            described: describe_server(certificate),
            ca: if about_trust {
                self.ca.clone()
            } else {
                Vec::new()
            },
        }));
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .or_else(|error| match cause::is_authority(&error) {
                true => is_the_trusted_one(end_entity, &self.trusted, server_name, now)
                    .map(|()| ServerCertVerified::assertion())
                    .map_err(|other| match other {
                        // What the usual verifier said says more.
                        rustls::Error::InvalidCertificate(
                            rustls::CertificateError::UnknownIssuer,
                        ) => error,
                        other => other,
                    }),
                false => Err(error),
            })
            .inspect_err(|error| self.note(error, end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
