//! The cryptography of TLS: ring's, and what certificates are made with besides.
//!
//! ring has no P-521 and no SHA-512 for the smaller curves, and etcd, as Go's library, takes both.
//! The rest is from the crates that SFTP brings (`p256`, `p384`, `p521`).

use std::fmt;
use std::sync::{Arc, LazyLock};

use p521::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p521::pkcs8::{DecodePrivateKey, EncodePublicKey};
use rustls::crypto::{CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer, alg_id,
};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The cryptography that every TLS connection here is made with.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        signature_verification_algorithms: *ALGORITHMS,
        key_provider: &Keys,
        ..ring::default_provider()
    }
}

/// A private key that can sign: of one of ring's kinds, or P-521.
///
/// # Errors
/// If it is of another kind, or of a size that is not supported.
pub fn signing_key(der: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, Error> {
    let rings = ring::sign::any_supported_type(der);
    let own = || -> Option<p521::SecretKey> {
        match der {
            PrivateKeyDer::Pkcs8(der) => {
                p521::SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok()
            }
            PrivateKeyDer::Sec1(der) => p521::SecretKey::from_sec1_der(der.secret_sec1_der()).ok(),
            _ => None,
        }
    };
    rings.or_else(|cause| {
        let secret = own().ok_or(cause)?;
        let public = secret.public_key().to_public_key_der();
        let public = public.map_err(|cause| Error::General(cause.to_string()))?;
        Ok(Arc::new(P521 {
            key: Arc::new(secret.into()),
            public: public.into_vec(),
        }) as Arc<dyn SigningKey>)
    })
}

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, der: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        signing_key(&der)
    }
}

/// A P-521 private key. Its `Debug` shows nothing of it.
struct P521 {
    key: Arc<p521::ecdsa::SigningKey>,
    public: Vec<u8>,
}

impl fmt::Debug for P521 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P521")
    }
}

impl SigningKey for P521 {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = SignatureScheme::ECDSA_NISTP521_SHA512;
        let signer = P521Signer(Arc::clone(&self.key));
        offered
            .contains(&scheme)
            .then(|| Box::new(signer) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.public.as_slice().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

struct P521Signer(Arc<p521::ecdsa::SigningKey>);

impl fmt::Debug for P521Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P521Signer")
    }
}

impl Signer for P521Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signed: Result<p521::ecdsa::DerSignature, _> =
            self.0.sign_prehash(&Sha512::digest(message));
        let signed = signed.map_err(|cause| Error::General(cause.to_string()))?;
        Ok(signed.as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}

/// One way in which a certificate or a handshake may be signed.
struct Ecdsa {
    name: &'static str,
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    digest: fn(&[u8]) -> Vec<u8>,
    verify: Verify,
}

/// Holds a signature against a key and a digest.
type Verify = fn(key: &[u8], digest: &[u8], signature: &[u8]) -> Option<()>;

impl fmt::Debug for Ecdsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let digest = (self.digest)(message);
        (self.verify)(public_key, &digest, signature).ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

fn padded_sha256(message: &[u8]) -> Vec<u8> {
    // ECDSA takes a digest as a number, and the crate none that is shorter than half the field's 66
    // bytes: zeros before it make no other number of it.
    let mut digest = vec![0; 16];
    digest.extend_from_slice(&Sha256::digest(message));
    digest
}

fn sha384(message: &[u8]) -> Vec<u8> {
    Sha384::digest(message).to_vec()
}

fn sha512(message: &[u8]) -> Vec<u8> {
    Sha512::digest(message).to_vec()
}

/// Verifies a signature in DER over a digest with a key as an uncompressed point.
macro_rules! verify {
    ($curve:ident) => {
        |key, digest, signature| {
            let key = $curve::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?;
            let signature = $curve::ecdsa::Signature::from_der(signature).ok()?;
            key.verify_prehash(digest, &signature).ok()
        }
    };
}

static P521_SHA256: Ecdsa = Ecdsa {
    name: "ECDSA_P521_SHA256",
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA256,
    digest: padded_sha256,
    verify: verify!(p521),
};
static P521_SHA384: Ecdsa = Ecdsa {
    name: "ECDSA_P521_SHA384",
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA384,
    digest: sha384,
    verify: verify!(p521),
};
static P521_SHA512: Ecdsa = Ecdsa {
    name: "ECDSA_P521_SHA512",
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA512,
    digest: sha512,
    verify: verify!(p521),
};
static P384_SHA512: Ecdsa = Ecdsa {
    name: "ECDSA_P384_SHA512",
    key: alg_id::ECDSA_P384,
    signature: alg_id::ECDSA_SHA512,
    digest: sha512,
    verify: verify!(p384),
};
static P256_SHA512: Ecdsa = Ecdsa {
    name: "ECDSA_P256_SHA512",
    key: alg_id::ECDSA_P256,
    signature: alg_id::ECDSA_SHA512,
    digest: sha512,
    verify: verify!(p256),
};

static WITH_SHA512: [&dyn SignatureVerificationAlgorithm; 3] =
    [&P521_SHA512, &P384_SHA512, &P256_SHA512];

/// ring's algorithms and ours, made once.
static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
    let rings = ring::default_provider().signature_verification_algorithms;
    let mut all = rings.all.to_vec();
    let ours: [&'static dyn SignatureVerificationAlgorithm; 5] = [
        &P521_SHA256,
        &P521_SHA384,
        &P521_SHA512,
        &P384_SHA512,
        &P256_SHA512,
    ];
    all.extend(ours);
    let mut mapping = rings.mapping.to_vec();
    // The first is TLS 1.3's; in TLS 1.2 a scheme names the digest alone.
    mapping.push((SignatureScheme::ECDSA_NISTP521_SHA512, &WITH_SHA512));
    WebPkiSupportedAlgorithms {
        all: all.leak(),
        mapping: mapping.leak(),
    }
});
