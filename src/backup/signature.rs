//! Signatures of Manifests, in the format of `ssh-keygen -Y sign` (OpenSSH, `PROTOCOL.sshsig`).
//!
//! A signature is a separate file next to the file that it signs. Any Linux can check it without
//! etcd-dr:
//!
//! ```text
//! ssh-keygen -Y verify -n etcd-dr -f allowed_signers -I NODE -s backup.json.sig < backup.json
//! ```
//!
//! The namespace `etcd-dr` keeps a signature that the key made for something else (a git commit, a
//! login) from counting here, and vice versa. Accepted are Ed25519, ECDSA on the NIST curves, and
//! RSA of 2,048 bits and more with SHA-2.

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::error::{Failure, Kind, Result};

/// What the signatures are for, as OpenSSH calls it.
pub const NAMESPACE: &str = "etcd-dr";
/// The largest signature that is read: one by an RSA key of 16,384 bits has 6 KiB.
pub const MAX_BYTES: u64 = 16 << 10;
/// The least bits of an RSA key.
const MIN_RSA_BITS: u32 = 2048;

/// A private key that signs.
pub struct SigningKey(PrivateKey);

/// Shows no part of the key.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.fingerprint())
    }
}

impl SigningKey {
    /// Reads a private key in OpenSSH's format, without a passphrase.
    ///
    /// # Errors
    /// [`Kind::Usage`]; no part of the text is shown.
    pub fn parse(text: &str) -> Result<Self> {
        let usage = |what: &str| Failure::new(Kind::Usage, what.to_owned());
        let key = PrivateKey::from_openssh(text.trim_start()).map_err(|_| {
            usage(
                "expected a private key in OpenSSH's format (ssh-keygen -p -f FILE converts others)",
            )
        })?;
        if key.is_encrypted() {
            return Err(usage(
                "the key has a passphrase; use one without, readable by root alone",
            ));
        }
        acceptable(key.public_key().key_data()).map_err(|why| usage(&why))?;
        Ok(Self(key))
    }

    /// Signs bytes; the result is the signature file's content.
    ///
    /// # Errors
    /// [`Kind::Unexpected`] if the key cannot sign.
    pub fn sign(&self, message: &[u8]) -> Result<String> {
        let failed = |e: ssh_key::Error| Failure::new(Kind::Unexpected, format!("signing: {e}"));
        let signature = self.0.sign(NAMESPACE, HashAlg::Sha512, message);
        let mut pem = signature
            .and_then(|signature| signature.to_pem(LineEnding::LF))
            .map_err(failed)?;
        if !pem.ends_with('\n') {
            pem.push('\n');
        }
        Ok(pem)
    }

    /// The key's fingerprint, as `ssh-keygen -l` prints it: `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }
}

/// A signature that fits what it signs. It says which key made it, not whether that key is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    key: KeyData,
}

impl Signature {
    /// Reads a signature file and checks it against the bytes that it is of.
    ///
    /// # Errors
    /// Why it does not hold, in a few words.
    pub fn check(pem: &[u8], message: &[u8]) -> std::result::Result<Self, String> {
        let signature = SshSig::from_pem(pem)
            .map_err(|_| "it is not a signature as ssh-keygen -Y sign makes it".to_owned())?;
        if signature.namespace() != NAMESPACE {
            return Err(format!(
                "it is for the namespace {:?}, expected {NAMESPACE:?}",
                signature.namespace()
            ));
        }
        acceptable(signature.public_key())?;
        // `ssh-rsa` alone means SHA-1, which OpenSSH refuses here, too.
        if matches!(signature.algorithm(), Algorithm::Rsa { hash: None }) {
            return Err("it is made with SHA-1".to_owned());
        }
        let key = signature.public_key().clone();
        PublicKey::from(key.clone())
            .verify(NAMESPACE, message, &signature)
            .map_err(|_| "it does not fit the content".to_owned())?;
        Ok(Self { key })
    }

    /// One that a key is said to have made.
    #[cfg(test)]
    pub(super) fn of(key: KeyData) -> Self {
        Self { key }
    }

    /// The public key that made it.
    pub fn key(&self) -> &KeyData {
        &self.key
    }

    /// Its key's fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }
}

/// Whether a key is of a kind that may sign.
pub(super) fn acceptable(key: &KeyData) -> std::result::Result<(), String> {
    match key {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => Ok(()),
        KeyData::Rsa(key) if key.key_size() >= MIN_RSA_BITS => Ok(()),
        KeyData::Rsa(key) => Err(format!(
            "its RSA key has {} bits, expected {MIN_RSA_BITS} or more",
            key.key_size()
        )),
        other => Err(format!(
            "a key of type {} is not supported: use Ed25519, ECDSA or RSA",
            other.algorithm()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    /// Makes a key pair with the real ssh-keygen.
    fn keygen(dir: &Path, name: &str, kind: &[&str]) -> std::path::PathBuf {
        let path = dir.join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "", "-f"])
            .arg(&path)
            .args(kind)
            .status()
            .expect("running ssh-keygen");
        assert!(made.success());
        path
    }

    fn good(dir: &Path, key: &Path, signature: &str, message: &[u8]) -> bool {
        use std::io::Write;
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let signers = dir.join("allowed");
        std::fs::write(&signers, format!("node-1 {public}")).unwrap();
        let file = dir.join("signature");
        std::fs::write(&file, signature).unwrap();
        let mut child = Command::new("ssh-keygen")
            .args(["-Y", "verify", "-n", NAMESPACE, "-I", "node-1", "-f"])
            .arg(&signers)
            .arg("-s")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("running ssh-keygen");
        child.stdin.take().unwrap().write_all(message).unwrap();
        let output = child.wait_with_output().unwrap();
        output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with("Good")
    }

    #[test]
    fn ssh_keygen_accepts_ours_and_we_accept_its() {
        let dir = tempfile::tempdir().unwrap();
        let kinds: [(&str, &[&str]); 3] = [
            ("ed25519", &["-t", "ed25519"]),
            ("p256", &["-t", "ecdsa", "-b", "256"]),
            ("rsa", &["-t", "rsa", "-b", "2048"]),
        ];
        for (name, kind) in kinds {
            let path = keygen(dir.path(), name, kind);
            let key = SigningKey::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let ours = key.sign(b"a Manifest").unwrap();
            assert!(good(dir.path(), &path, &ours, b"a Manifest"), "{name}");
            assert!(!good(dir.path(), &path, &ours, b"another"), "{name}");
            let file = dir.path().join(format!("{name}.txt"));
            std::fs::write(&file, b"a Manifest").unwrap();
            let signed = Command::new("ssh-keygen")
                .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
                .args([&path, &file])
                .stderr(Stdio::null())
                .status()
                .unwrap();
            assert!(signed.success());
            let theirs = std::fs::read(dir.path().join(format!("{name}.txt.sig"))).unwrap();
            let checked = Signature::check(&theirs, b"a Manifest").unwrap();
            assert_eq!(checked.fingerprint(), key.fingerprint(), "{name}");
            let altered = Signature::check(&theirs, b"a manifest").unwrap_err();
            assert_eq!(altered, "it does not fit the content");
            assert_eq!(
                Signature::check(ours.as_bytes(), b"a Manifest"),
                Ok(checked)
            );
        }
    }

    #[test]
    fn what_does_not_hold_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = keygen(dir.path(), "key", &["-t", "ed25519"]);
        let key = SigningKey::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let pem = key.sign(b"m").unwrap();
        for at in 0..pem.len() {
            let mut bytes = pem.clone().into_bytes();
            bytes[at] ^= 1;
            // A flipped bit may only change what PEM ignores, and never what was signed.
            if let Ok(checked) = Signature::check(&bytes, b"m") {
                assert_eq!(checked.fingerprint(), key.fingerprint(), "{at}");
            }
        }
        for cut in 0..pem.trim_end().len() {
            assert!(
                Signature::check(&pem.as_bytes()[..cut], b"m").is_err(),
                "{cut}"
            );
        }
        let other = key.0.sign("git", HashAlg::Sha512, b"m").unwrap();
        let other = other.to_pem(LineEnding::LF).unwrap();
        let why = Signature::check(other.as_bytes(), b"m").unwrap_err();
        assert!(why.contains("namespace \"git\""), "{why}");
        let weak = keygen(dir.path(), "weak", &["-t", "rsa", "-b", "1024"]);
        let weak = SigningKey::parse(&std::fs::read_to_string(&weak).unwrap()).unwrap_err();
        assert!(weak.to_string().contains("1024 bits"), "{weak}");
        let secret = keygen(dir.path(), "locked", &["-t", "ed25519", "-N", "passphrase"]);
        let secret = SigningKey::parse(&std::fs::read_to_string(&secret).unwrap()).unwrap_err();
        assert_eq!(secret.kind(), Kind::Usage);
        assert!(secret.to_string().contains("passphrase"), "{secret}");
        for text in [
            "",
            "ssh-ed25519 AAAA",
            "-----BEGIN RSA PRIVATE KEY-----\nx\n",
        ] {
            let failure = SigningKey::parse(text).unwrap_err();
            assert!(
                failure.to_string().contains("OpenSSH's format"),
                "{failure}"
            );
        }
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }
}
