//! How a file is stored: as it is, compressed (zstd, RFC 8878), encrypted (age, age-encryption.org/v1).
//!
//! All of it streams: the codecs run on their own thread, with a few pieces between them and
//! the network.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::header;
use super::index::{Index, ObjectEntry};
use crate::backup::names::{self, FileKind};
use crate::backup::signature::SigningKey;
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// Bytes of a piece between codec and network.
const PIECE: usize = 1 << 20;
/// The fact that an identity of a recipient of secrets is missing.
pub(super) const SECRETS_IDENTITY: &str = "secrets-identity";
/// zstd's own default.
const LEVEL: i32 = 3;
/// The largest window that is unpacked, as a power of two: what RFC 8878 asks every decoder to
/// take, 8 MiB. This level's is a quarter of it.
const WINDOW: u32 = 23;

/// How files are stored.
#[derive(Clone, Default)]
pub struct Form {
    /// Whether files that are not compressed already are.
    pub compress: bool,
    /// What signs the index of a copy, which names the bytes as they are stored.
    pub sign: Option<Arc<SigningKey>>,
    /// Those whom files are encrypted to.
    all: Recipients,
    /// Those whom the archives are encrypted to, if they are others.
    secrets: Recipients,
}

/// Recipients of one kind of file.
#[derive(Clone, Default)]
struct Recipients {
    keys: Vec<Arc<dyn age::Recipient + Send + Sync>>,
    /// The same as text, each once.
    known: BTreeSet<String>,
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Form {{ compress: {}, recipients: {}, of secrets: {} }}",
            self.compress,
            self.all.keys.len(),
            self.secrets.keys.len()
        )
    }
}

impl Form {
    /// Adds recipients, one a line, as `age -R` reads them: `age1…`, `ssh-ed25519 …`, `ssh-rsa …`.
    /// There must be one: who names recipients wants no plain copy.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the number of the line that is not a recipient, and if the file has no
    /// recipient.
    pub fn encrypt_to(&mut self, lines: &str) -> Result<()> {
        self.all.add(lines)
    }

    /// The same for the archives alone, which hold the control plane's keys and the configuration that decrypts
    /// the data: who may read the snapshot need not be able to read these.
    ///
    /// # Errors
    /// As [`Form::encrypt_to`].
    pub fn encrypt_secrets_to(&mut self, lines: &str) -> Result<()> {
        self.secrets.add(lines)
    }

    /// Whether the archives are encrypted and nothing else is.
    pub fn has_secrets_only(&self) -> bool {
        !self.encrypts() && !self.secrets.keys.is_empty()
    }

    /// Those whom a file of this name is encrypted to.
    fn recipients_of(&self, file: &str) -> &Recipients {
        match self.is_secret(file) {
            true => &self.secrets,
            false => &self.all,
        }
    }

    /// Whether a file of this name is encrypted to the recipients of secrets.
    pub(super) fn is_secret(&self, file: &str) -> bool {
        let kind = names::recognise(file).map(|(kind, _)| kind);
        let archive = matches!(kind, Some(FileKind::Resources | FileKind::Certificates));
        archive && !self.secrets.keys.is_empty()
    }

    /// Whether files are encrypted.
    pub fn encrypts(&self) -> bool {
        !self.all.keys.is_empty()
    }

    /// What identifies the recipients of a file.
    pub(super) fn recipients_for(&self, file: &str) -> String {
        self.recipients_of(file).digest()
    }

    /// What identifies the recipients.
    pub(super) fn recipients(&self) -> String {
        self.all.digest()
    }

    /// What identifies the recipients of secrets, if there are such.
    pub(super) fn secrets_recipients(&self) -> Option<String> {
        (!self.secrets.keys.is_empty()).then(|| self.secrets.digest())
    }

    /// What is wrong with a copy that is there already for one who asks for this form; a copy that
    /// is protected better than asked for is right.
    pub(super) fn unmet_by(&self, index: &Index) -> Option<&'static str> {
        if !self.encrypts() {
            return None;
        }
        let plain = |entry: &ObjectEntry| entry.encryption.is_none();
        if index.objects.iter().any(plain) {
            return Some("is not encrypted");
        }
        let recorded = index.recipients.as_deref();
        // Earlier versions did not record them.
        let others = recorded.is_some_and(|recorded| recorded != self.recipients());
        let asked = self.secrets_recipients();
        if asked.is_some() && index.secrets_recipients != asked {
            return Some("has archives that are not encrypted to the recipients of secrets");
        }
        others.then_some("is encrypted to other recipients")
    }

    /// Whether a file of this name is compressed.
    pub(super) fn compresses(&self, file: &str) -> bool {
        self.compress && !file.ends_with(".gz")
    }
}

impl Recipients {
    /// Adds those of a text.
    fn add(&mut self, lines: &str) -> Result<()> {
        let before = self.keys.len();
        for (number, line) in lines.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parsed: Option<Arc<dyn age::Recipient + Send + Sync>> =
                match age::x25519::Recipient::from_str(line) {
                    Ok(recipient) => Some(Arc::new(recipient)),
                    Err(_) => match age::ssh::Recipient::from_str(line) {
                        Ok(recipient) => Some(Arc::new(recipient)),
                        Err(_) => None,
                    },
                };
            let Some(recipient) = parsed else {
                let what = format!(
                    "line {} is neither an age recipient nor an SSH key",
                    number + 1
                );
                return Err(Failure::new(Kind::Usage, what));
            };
            // An SSH key's comment is not part of it.
            let key: Vec<&str> = line.split_whitespace().take(2).collect();
            self.known.insert(key.join(" "));
            self.keys.push(recipient);
        }
        if self.keys.len() == before {
            let what = "expected a recipient (age1... or an SSH public key), found none";
            return Err(Failure::new(Kind::Usage, what));
        }
        self.check()
    }

    /// That what is encrypted to so many can be read again: the head of a file is bounded.
    fn check(&self) -> Result<()> {
        let encrypt = || -> io::Result<()> {
            let recipients = self.keys.iter();
            let recipients = recipients.map(|one| one.as_ref() as &dyn age::Recipient);
            let encryptor =
                age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
            let empty = encryptor.wrap_output(Vec::new())?.finish()?;
            header::bounded(empty.as_slice()).map(drop)
        };
        encrypt().doing(Kind::Usage, || {
            format!("encrypting to {} recipients", self.keys.len())
        })
    }

    /// What identifies the recipients: SHA-256 of them all, in whatever order they were given;
    /// empty if there are no recipients.
    fn digest(&self) -> String {
        if self.known.is_empty() {
            return String::new();
        }
        let mut hash = Sha256::new();
        for recipient in &self.known {
            hash.update(recipient);
            hash.update("\n");
        }
        hex::encode(hash.finalize())
    }
}

/// What encrypted copies are read with.
#[derive(Default)]
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

impl Identities {
    /// Adds those of a file's text: lines `AGE-SECRET-KEY-1…`, or one SSH private key without a
    /// passphrase.
    ///
    /// # Errors
    /// [`Kind::Usage`]; no line of the file is shown.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let usage = |what: &str| Failure::new(Kind::Usage, format!("reading an identity: {what}"));
        if text.trim_start().starts_with("-----BEGIN") {
            let key = age::ssh::Identity::from_buffer(text.as_bytes(), None);
            match key.map_err(|_| usage("it is not a readable SSH key"))? {
                age::ssh::Identity::Encrypted(_) => {
                    return Err(usage("the SSH key has a passphrase"));
                }
                age::ssh::Identity::Unsupported(_) => {
                    return Err(usage("SSH keys of this type are not supported"));
                }
                key => self.0.push(Box::new(key)),
            }
            return Ok(());
        }
        let before = self.0.len();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = age::x25519::Identity::from_str(line);
            let key = key.map_err(|_| usage(&format!("line {} is not an identity", number + 1)))?;
            self.0.push(Box::new(key));
        }
        if self.0.len() == before {
            return Err(usage("it contains no identity"));
        }
        Ok(())
    }
}

/// A file as it was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// Hands pieces to the network; fails once nobody takes them.
struct Pieces {
    to: mpsc::Sender<Bytes>,
    filling: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.filling, Vec::with_capacity(PIECE));
        let sent = self.to.blocking_send(Bytes::from(piece));
        sent.map_err(|_| io::Error::other("the transfer has ended"))
    }
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = PIECE.saturating_sub(self.filling.len());
        let taken = data.get(..room).unwrap_or(data);
        self.filling.extend_from_slice(taken);
        if self.filling.len() >= PIECE {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies what is left of a reader, hashing it.
fn pour(from: &mut dyn Read, to: &mut dyn Write, most: u64) -> io::Result<Plain> {
    let mut hash = Sha256::new();
    let mut size = 0u64;
    let mut buffer = vec![0; PIECE];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let piece = buffer.get(..read).unwrap_or_default();
        size = size.saturating_add(read as u64);
        if size > most {
            return Err(io::Error::other(format!(
                "expected {most} bytes, found more"
            )));
        }
        hash.update(piece);
        to.write_all(piece)?;
    }
    let sha256 = hex::encode(hash.finalize());
    Ok(Plain { size, sha256 })
}

/// Sends a reader's bytes as they are, hashing them; each piece is read where it is sent from.
fn pass(from: &mut File, to: &mpsc::Sender<Bytes>) -> io::Result<Plain> {
    let mut hash = Sha256::new();
    let mut size = 0u64;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut *from).take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        hash.update(&piece);
        size = size.saturating_add(piece.len() as u64);
        to.blocking_send(Bytes::from(piece))
            .map_err(|_| io::Error::other("the transfer has ended"))?;
    }
    let sha256 = hex::encode(hash.finalize());
    Ok(Plain { size, sha256 })
}

/// Reads a file and sends it in its form; what is returned is of the file itself.
pub(super) fn encode(
    path: &Path,
    form: &Form,
    compress: bool,
    to: mpsc::Sender<Bytes>,
) -> Result<Plain> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let recipients = form.recipients_of(&name);
    let go = || -> io::Result<Plain> {
        let mut file = File::open(path)?;
        let out = Pieces {
            to,
            filling: Vec::with_capacity(PIECE),
        };
        // Read into the piece that is sent: without a codec there is nothing to copy it for.
        if !form.encrypts() && !compress {
            return pass(&mut file, &out.to);
        }
        let (plain, mut out) = if form.encrypts() {
            let recipients = recipients
                .keys
                .iter()
                .map(|one| one.as_ref() as &dyn age::Recipient);
            let encryptor =
                age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
            let (plain, out) = squeeze(&mut file, encryptor.wrap_output(out)?, compress)?;
            (plain, out.finish()?)
        } else {
            squeeze(&mut file, out, compress)?
        };
        if !out.filling.is_empty() {
            out.send()?;
        }
        Ok(plain)
    };
    go().doing(Kind::Store, || format!("reading {}", path.display()))
}

fn squeeze<W: Write>(file: &mut File, mut out: W, compress: bool) -> io::Result<(Plain, W)> {
    if !compress {
        return Ok((pour(file, &mut out, u64::MAX)?, out));
    }
    let mut encoder = zstd::Encoder::new(out, LEVEL)?;
    let plain = pour(file, &mut encoder, u64::MAX)?;
    Ok((plain, encoder.finish()?))
}

/// Takes pieces from the network as a reader.
struct Arriving {
    from: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(into.len().min(self.piece.len()));
        if let Some(place) = into.get_mut(..taken.len()) {
            place.copy_from_slice(&taken);
        }
        Ok(taken.len())
    }
}

/// Undoes a form while it arrives and writes the file, of at most `most` bytes.
pub(super) fn decode(
    entry: &ObjectEntry,
    identities: &Identities,
    from: mpsc::Receiver<Bytes>,
    file: &mut impl Write,
    most: u64,
) -> Result<Plain> {
    let arriving = Arriving {
        from,
        piece: Bytes::new(),
    };
    let doing = || format!("unpacking {}", entry.object);
    let opened: Box<dyn Read> = if entry.encryption.is_some() {
        let bounded = header::bounded(BufReader::new(arriving)).doing(Kind::BadBackup, doing)?;
        let decryptor = age::Decryptor::new_buffered(bounded).doing(Kind::BadBackup, doing)?;
        let keys = identities
            .0
            .iter()
            .map(|one| one.as_ref() as &dyn age::Identity);
        let decrypted = decryptor.decrypt(keys);
        Box::new(match decrypted {
            Err(age::DecryptError::NoMatchingKeys) if entry.secrets => {
                return Err(for_others(entry));
            }
            other => other.doing(Kind::BadBackup, doing)?,
        })
    } else {
        Box::new(arriving)
    };
    let mut plain: Box<dyn Read> = if entry.compression.is_some() {
        let mut decoder = zstd::Decoder::new(opened).doing(Kind::BadBackup, doing)?;
        // A frame says how much memory it takes.
        decoder
            .window_log_max(WINDOW)
            .doing(Kind::BadBackup, doing)?;
        Box::new(decoder)
    } else {
        opened
    };
    pour(&mut plain, file, most).doing(Kind::Store, doing)
}

/// That none of the identities opens an archive: it is for the recipients of secrets.
fn for_others(entry: &ObjectEntry) -> Failure {
    let what = format!(
        "{} is encrypted to the recipients of secrets, and no identity given is one of theirs",
        entry.file
    );
    Failure::new(Kind::Usage, what).with(Fact::Missing(SECRETS_IDENTITY))
}

/// Whether nothing can be read without an identity, and none was given.
pub(super) fn needs_identity<'a>(
    entries: impl IntoIterator<Item = &'a ObjectEntry>,
    identities: &Identities,
) -> bool {
    identities.0.is_empty() && entries.into_iter().any(|entry| entry.encryption.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    const SSH: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBo99GDKbUDYUHYHrmdc3a/bzQ8aUFob6B3WL9eYsd55";

    fn form(recipients: &[&str]) -> Form {
        let mut form = Form::default();
        for recipient in recipients {
            form.encrypt_to(recipient).unwrap();
        }
        form
    }

    #[test]
    fn who_names_recipients_names_one() {
        for text in [
            "",
            " ",
            "\n\n",
            "# a comment",
            "# a\n\t\n# b",
            "age1nonsense",
            "ssh-dss x",
        ] {
            let mut form = Form::default();
            let failure = form.encrypt_to(text).unwrap_err();
            assert_eq!(failure.kind(), Kind::Usage, "{text:?}");
            // One that was given before makes up for nothing.
            form.encrypt_to(AGE).unwrap();
            assert!(form.encrypt_to(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_same_recipients_are_the_same_however_they_are_given() {
        let commented = format!("# ops\n{SSH} ops@example.com\n\n{AGE}\n");
        let recipients = form(&[AGE, SSH]).recipients();
        assert_eq!(recipients, form(&[&commented]).recipients());
        assert_eq!(recipients, form(&[SSH, AGE, AGE]).recipients());
        assert_ne!(recipients, form(&[AGE]).recipients());
        assert_eq!(Form::default().recipients(), "");
    }

    #[test]
    fn an_existing_copy_must_be_protected_as_requested() {
        let entry = |encryption: Option<&str>| ObjectEntry {
            file: "f".into(),
            object: "o".into(),
            size: 1,
            sha256: String::new(),
            compression: None,
            encryption: encryption.map(str::to_owned),
            secrets: false,
        };
        let index = |recipients: Option<String>, objects: Vec<ObjectEntry>| Index {
            schema_version: 1,
            manifest_sha256: String::new(),
            objects,
            recipients,
            secrets_recipients: None,
        };
        let (asked, age) = (form(&[AGE]), Some("age"));
        let plain = index(None, vec![entry(age), entry(None)]);
        assert_eq!(asked.unmet_by(&plain), Some("is not encrypted"));
        assert_eq!(Form::default().unmet_by(&plain), None);
        let to = |form: &Form| index(Some(form.recipients()), vec![entry(age)]);
        assert_eq!(asked.unmet_by(&to(&asked)), None);
        assert!(asked.unmet_by(&to(&form(&[SSH]))).is_some());
        assert!(asked.unmet_by(&to(&form(&[AGE, SSH]))).is_some());
        assert_eq!(Form::default().unmet_by(&to(&asked)), None);
        // The archives, to others than the rest.
        let mut apart = form(&[AGE]);
        apart.encrypt_secrets_to(SSH).unwrap();
        assert!(apart.unmet_by(&to(&asked)).is_some());
        let both = Index {
            secrets_recipients: apart.secrets_recipients(),
            ..to(&asked)
        };
        assert_eq!(apart.unmet_by(&both), None);
        assert_eq!(asked.unmet_by(&both), None);
        let (archive, snapshot) = (
            "static_kuberesources_2026-11-21_061530.tar.gz",
            "snapshot_2026-11-21_061530.db",
        );
        assert!(
            apart.is_secret(archive) && !apart.is_secret(snapshot) && !asked.is_secret(archive)
        );
        assert_ne!(
            apart.recipients_for(archive),
            apart.recipients_for(snapshot)
        );
        // By a version that did not record them.
        assert_eq!(asked.unmet_by(&index(None, vec![entry(age)])), None);
    }
}
