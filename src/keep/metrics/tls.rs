//! Who serves the metrics, and who may read them: certificates that are reloaded when their files
//! change, as they do on every rotation.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::client::Pem;
use crate::sys::crypto;

/// Where the certificates are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's, its intermediates after it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Those that readers' certificates are signed by; `None`: everybody may read.
    pub client_ca: Option<PathBuf>,
}

/// What tells one version of a file from another: a rotation rewrites it, renames over it or
/// turns a link.
type Stamp = Option<(u64, u64, i64, i64, i64, i64)>;

/// The server's side of TLS.
pub struct Tls {
    files: TlsFiles,
    now: Mutex<Now>,
}

struct Now {
    stamps: Vec<Stamp>,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Kind::Usage`] if they cannot be read, or do not belong together.
    pub fn new(files: TlsFiles) -> Result<Self> {
        let now = Now {
            stamps: files.stamps(),
            acceptor: files.acceptor()?,
        };
        Ok(Self {
            files,
            now: Mutex::new(now),
        })
    }

    /// Whether readers of the metrics must have a certificate.
    pub fn asks(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// For the next connection; with what is wrong with files that have changed since, once for
    /// each change: the connection is served with what was read before.
    pub fn acceptor(&self) -> (TlsAcceptor, Option<Failure>) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        let mut wrong = None;
        if stamps != now.stamps {
            now.stamps = stamps;
            match self.files.acceptor() {
                Ok(acceptor) => now.acceptor = acceptor,
                Err(failure) => wrong = Some(failure),
            }
        }
        (now.acceptor.clone(), wrong)
    }
}

impl TlsFiles {
    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            let (written, changed) = ((meta.mtime(), meta.mtime_nsec()), meta.ctime());
            Some((
                meta.ino(),
                meta.len(),
                written.0,
                written.1,
                changed,
                meta.ctime_nsec(),
            ))
        };
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| stamp(path))
            .collect()
    }

    fn acceptor(&self) -> Result<TlsAcceptor> {
        let doing = || "setting up TLS for the metrics";
        let provider = Arc::new(crypto::provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .doing(Kind::Usage, doing)?;
        let builder = match &self.client_ca {
            Some(path) => {
                let pem = Pem::read(path)?;
                let mut roots = RootCertStore::empty();
                let (usable, _) = roots.add_parsable_certificates(pem.certificates()?);
                if usable == 0 {
                    let what = format!("no certificate in {} can be read", path.display());
                    return Err(Failure::new(Kind::Usage, what).doing(doing()));
                }
                // Who has none is turned away by what it asks for: probes have none.
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .allow_unauthenticated()
                    .build();
                builder.with_client_cert_verifier(verifier.doing(Kind::Usage, doing)?)
            }
            None => builder.with_no_client_auth(),
        };
        let chain = Pem::read(&self.cert)?.certificates()?;
        let key = Pem::read(&self.key)?.key()?;
        let mut config = builder
            .with_single_cert(chain, key)
            .doing(Kind::Usage, || {
                let (cert, key) = (self.cert.display(), self.key.display());
                format!("using {cert} and {key}")
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
