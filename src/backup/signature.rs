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

use std::path::{Path, PathBuf};

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use super::agent;
use crate::error::{Failure, Kind, Result};

/// What the signatures are for, as OpenSSH calls it.
pub const NAMESPACE: &str = "etcd-dr";
/// The largest signature that is read: one by an RSA key of 16,384 bits has 6 KiB.
pub const MAX_BYTES: u64 = 16 << 10;
/// The least bits of an RSA key.
const MIN_RSA_BITS: u32 = 2048;

/// A key that signs.
pub struct SigningKey(Signer);

/// Where its private half is.
enum Signer {
    /// Here.
    Own(Box<PrivateKey>),
    /// An agent holds it.
    Agent {
        key: PublicKey,
        /// The agent's socket.
        socket: PathBuf,
    },
}

/// Shows no part of the key.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.fingerprint())
    }
}

impl SigningKey {
    /// Reads a private key in OpenSSH's format; `passphrase` is asked for where it has one. Of a public key
    /// the agent at `agent` must hold the private half, as for `ssh-keygen -Y sign`.
    ///
    /// # Errors
    /// [`Kind::Usage`]; no part of the text is shown.
    pub fn parse(
        text: &str,
        agent: Option<&Path>,
        passphrase: impl FnOnce() -> Result<Option<String>>,
    ) -> Result<Self> {
        let usage = |what: &str| Failure::new(Kind::Usage, what.to_owned());
        if let Ok(key) = PublicKey::from_openssh(text.trim()) {
            return Self::of_agent(key, agent);
        }
        let key = PrivateKey::from_openssh(text.trim_start()).map_err(|_| {
            usage(
                "expected a private key in OpenSSH's format (ssh-keygen -p -f FILE converts others)",
            )
        })?;
        acceptable(key.public_key().key_data()).map_err(|why| usage(&why))?;
        if !key.is_encrypted() {
            return Ok(Self(Signer::Own(Box::new(key))));
        }
        let Some(passphrase) = passphrase()? else {
            return Err(usage(
                "the key has a passphrase; give it in a file (--sign-passphrase-file), or load the key into an agent and name its .pub file",
            ));
        };
        let key = key.decrypt(passphrase);
        let key = key.map_err(|_| usage("the passphrase does not fit the key"))?;
        Ok(Self(Signer::Own(Box::new(key))))
    }

    fn of_agent(key: PublicKey, agent: Option<&Path>) -> Result<Self> {
        let usage = |what: String| Failure::new(Kind::Usage, what);
        acceptable(key.key_data()).map_err(usage)?;
        let Some(socket) = agent else {
            let what = "it is a public key, and there is no agent with its private half: SSH_AUTH_SOCK is not set";
            return Err(usage(what.to_owned()));
        };
        if !agent::has(socket, &key)? {
            let fingerprint = key.fingerprint(HashAlg::Sha256);
            let socket = socket.display();
            return Err(usage(format!(
                "the agent at {socket} does not hold the private half of {fingerprint}"
            )));
        }
        let socket = socket.to_owned();
        Ok(Self(Signer::Agent { key, socket }))
    }

    /// The public half.
    fn public(&self) -> &PublicKey {
        match &self.0 {
            Signer::Own(key) => key.public_key(),
            Signer::Agent { key, .. } => key,
        }
    }

    /// Signs bytes; the result is the signature file's content.
    ///
    /// # Errors
    /// [`Kind::Unexpected`] if the key cannot sign, [`Kind::Usage`] if its agent does not.
    pub fn sign(&self, message: &[u8]) -> Result<String> {
        let failed = |e: ssh_key::Error| Failure::new(Kind::Unexpected, format!("signing: {e}"));
        let signature = match &self.0 {
            Signer::Own(key) => key.sign(NAMESPACE, HashAlg::Sha512, message),
            Signer::Agent { key, socket } => {
                let data = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, message);
                let signed = agent::sign(socket, key, &data.map_err(failed)?)?;
                SshSig::new(key.key_data().clone(), NAMESPACE, HashAlg::Sha512, signed)
            }
        };
        let mut pem = signature
            .and_then(|signature| signature.to_pem(LineEnding::LF))
            .map_err(failed)?;
        if !pem.ends_with('\n') {
            pem.push('\n');
        }
        // What an agent says is not believed.
        Signature::check(pem.as_bytes(), message)
            .map_err(|why| Failure::new(Kind::Unexpected, format!("signing: {why}")))?;
        Ok(pem)
    }

    /// The key's fingerprint, as `ssh-keygen -l` prints it: `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        self.public().fingerprint(HashAlg::Sha256).to_string()
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
    use std::process::{Child, Command, Stdio};

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

    /// A private key, unlocked by a passphrase.
    fn parsed(path: &Path, passphrase: Option<&str>) -> Result<SigningKey> {
        let text = std::fs::read_to_string(path).unwrap();
        SigningKey::parse(&text, None, || Ok(passphrase.map(str::to_owned)))
    }

    /// A real ssh-agent, which ends with the test.
    struct Agent(Child);

    impl Drop for Agent {
        fn drop(&mut self) {
            // It may have ended.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn an_agent_signs_what_ssh_keygen_accepts() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket);
        agent.stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Agent(agent.spawn().expect("running ssh-agent"));
        // It listens before it serves; ssh-add waits for it.
        let listens = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            socket.exists()
        });
        assert!(listens, "{:?}", agent.0);
        for (name, kind) in [
            ("ed25519", &["-t", "ed25519"][..]),
            ("p256", &["-t", "ecdsa", "-b", "256"]),
            ("rsa", &["-t", "rsa", "-b", "2048"]),
        ] {
            let path = keygen(dir.path(), name, kind);
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let parse = |agent| SigningKey::parse(&public, agent, || Ok(None));
            let absent = parse(None).unwrap_err().to_string();
            assert!(absent.contains("SSH_AUTH_SOCK"), "{absent}");
            let without = parse(Some(&socket)).unwrap_err().to_string();
            assert!(without.contains("does not hold"), "{without}");
            let added = Command::new("ssh-add")
                .arg("-q")
                .arg(&path)
                .env("SSH_AUTH_SOCK", &socket)
                .status()
                .unwrap();
            assert!(added.success());
            let key = parse(Some(&socket)).unwrap();
            let pem = key.sign(b"a Manifest").unwrap();
            assert!(good(dir.path(), &path, &pem, b"a Manifest"), "{name}");
            assert_eq!(
                key.fingerprint(),
                parsed(&path, None).unwrap().fingerprint()
            );
        }
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
            let key = parsed(&path, None).unwrap();
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
    fn a_signature_that_does_not_hold_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = keygen(dir.path(), "key", &["-t", "ed25519"]);
        let key = parsed(&path, None).unwrap();
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
        let Signer::Own(own) = &key.0 else { panic!() };
        let other = own.sign("git", HashAlg::Sha512, b"m").unwrap();
        let other = other.to_pem(LineEnding::LF).unwrap();
        let why = Signature::check(other.as_bytes(), b"m").unwrap_err();
        assert!(why.contains("namespace \"git\""), "{why}");
        let weak = keygen(dir.path(), "weak", &["-t", "rsa", "-b", "1024"]);
        let weak = parsed(&weak, None).unwrap_err();
        assert!(weak.to_string().contains("1024 bits"), "{weak}");
        let secret = keygen(dir.path(), "locked", &["-t", "ed25519", "-N", "passphrase"]);
        for (given, said) in [
            (None, "--sign-passphrase-file"),
            (Some("wrong"), "does not fit"),
        ] {
            let failure = parsed(&secret, given).unwrap_err();
            assert_eq!(failure.kind(), Kind::Usage);
            assert!(failure.to_string().contains(said), "{failure}");
        }
        let unlocked = parsed(&secret, Some("passphrase")).unwrap();
        let pem = unlocked.sign(b"m").unwrap();
        assert!(good(dir.path(), &secret, &pem, b"m"));
        for text in [
            "",
            "ssh-ed25519 AAAA",
            "-----BEGIN RSA PRIVATE KEY-----\nx\n",
        ] {
            let failure = SigningKey::parse(text, None, || Ok(None)).unwrap_err();
            assert!(
                failure.to_string().contains("OpenSSH's format"),
                "{failure}"
            );
        }
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }
}
