//! TLS towards etcd: PEM files read by us, checked before anything is dialled, and a verifier
//! that tells what was wrong with a server's certificate.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::cause::{Cause, ServerCertificate, date};
use super::wire::Wire;
use crate::error::{Doing, Fact, Failure, Kind, Result};

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
    /// [`Kind::Usage`] where it cannot be read.
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
                    "reading {}: it is over 4 MiB, so no PEM file",
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

    /// All certificates in it, in their order.
    ///
    /// # Errors
    /// [`Kind::Usage`] where there is none, or what is there is not PEM.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let found = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| self.fault(format!("it is not correct PEM: {error}")))?;
        if found.is_empty() {
            return Err(self.fault("it holds no CERTIFICATE in PEM"));
        }
        Ok(found)
    }

    /// The first private key: PKCS#8, PKCS#1 (RSA) and SEC1 (elliptic curves) are read.
    ///
    /// # Errors
    /// [`Kind::Usage`] where there is none, or it is encrypted.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>> {
        // The library's own message could quote what stands in the file.
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| {
            let encrypted = self.bytes.windows(9).any(|window| window == b"ENCRYPTED");
            self.fault(if encrypted {
                "the private key is encrypted, and there is no one to ask for its pass phrase"
            } else {
                "it holds no private key in PEM (PKCS#8, PKCS#1 or SEC1)"
            })
        })
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
    ca: Vec<PathBuf>,
    identity: Option<Arc<Identity>>,
    server_name: Option<ServerName<'static>>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
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
                "no certificate authority is given, so no server's certificate could be trusted",
            )
            .with(Fact::Missing("ca")));
        }
        let mut roots = RootCertStore::empty();
        for pem in ca {
            let (usable, _) = roots.add_parsable_certificates(pem.certificates()?);
            if usable == 0 {
                return Err(pem.fault("none of its certificates can be read"));
            }
        }
        let identity = client
            .map(|(certificate, key)| Identity::new(certificate, key))
            .transpose()?;
        let config = Self {
            roots: Arc::new(roots),
            ca: ca.iter().map(|pem| pem.origin.clone()).collect(),
            identity: identity.map(Arc::new),
            server_name: None,
        };
        config.client_config(Arc::default()).map_err(|error| {
            let what = match &error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    "the private key is not that of the certificate".to_owned()
                }
                other => format!("they cannot be used: {other}"),
            };
            let mut doing = "setting up TLS".to_owned();
            if let Some((certificate, key)) = client {
                doing = format!(
                    "reading {} and {}",
                    certificate.origin.display(),
                    key.origin.display()
                );
            }
            Failure::new(Kind::Usage, what).doing(doing)
        })?;
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

    /// The TLS library's settings, with a verifier that tells `wire` what it refused.
    pub(super) fn client_config(
        &self,
        wire: Arc<Wire>,
    ) -> std::result::Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = Witness {
            inner: webpki(&self.roots, &provider)?,
            ca: self.ca.clone(),
            wire,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
            }
            None => builder.with_no_client_auth(),
        };
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
    fn new(certificate: &Pem, key: &Pem) -> Result<Self> {
        let chain = certificate.certificates()?;
        let described = chain.first().and_then(describe_client);
        Ok(Self {
            key: key.key()?,
            described: match described {
                Some(described) => format!("{}, {described}", certificate.origin.display()),
                None => certificate.origin.display().to_string(),
            },
            chain,
        })
    }
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
        format!("taking {name:?} as the server's name")
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

/// Decides nothing itself: asks the usual verifier, and notes what was refused.
#[derive(Debug)]
struct Witness {
    inner: Arc<WebPkiServerVerifier>,
    ca: Vec<PathBuf>,
    wire: Arc<Wire>,
}

impl Witness {
    fn note(&self, error: &rustls::Error, certificate: &CertificateDer<'_>) {
        let rustls::Error::InvalidCertificate(fault) = error else {
            return;
        };
        let cause = Cause::of_certificate(fault);
        let about_trust = matches!(
            fault,
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature
        );
        self.wire.note(Cause::ServerCertificate(ServerCertificate {
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
