//! Whether a backup can decrypt itself: which of its objects the API server encrypted, and whether the backup has the
//! keys.
//!
//! | API server | its EncryptionConfiguration |
//! | --- | --- |
//! | kube-apiserver on OpenShift | `secrets/encryption-config/encryption-config` of its revision, in the archive |
//! | kube-apiserver elsewhere | the file that `--encryption-provider-config` names, in the archive |
//! | OpenShift's other API servers | Secrets `openshift-config-managed/encryption-config-*` in the database, which kube-apiserver encrypted |

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::Serialize;

use crate::error::{Doing, Kind, Result};
use crate::etcd::keyspace::{Database, Keyspace};
use crate::etcd::kubernetes::PREFIXES;
use crate::etcd::snapshot::{Collected, KeyFilter};
use crate::objects::atrest::{Keys, described};
use crate::objects::{Unread, decode};

/// A larger file is not an EncryptionConfiguration.
const MAX_FILE: u64 = 1 << 20;
/// Bytes that are unpacked of an archive in the search.
const MAX_ARCHIVE: u64 = 4 << 30;
/// What every EncryptionConfiguration, new or old, contains.
const MARK: &[u8] = b"EncryptionConfig";
/// Where OpenShift's operators keep the configurations of its other API servers.
const MANAGED: &str = "/secrets/openshift-config-managed/encryption-config-";

/// The warning about objects that a backup cannot decrypt.
pub const CANNOT_DECRYPT: &str = "cannot-decrypt";

/// Objects that were encrypted with one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EncryptedWith {
    /// `aescbc:v1:KEY`, `kms:v2:PLUGIN`, …
    pub key: String,
    /// What the objects' keys in etcd begin with: API servers name their keys alike.
    pub under: String,
    /// How many objects.
    pub objects: u64,
    /// Why the backup cannot decrypt them; nothing if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl EncryptedWith {
    /// What is lost without the key, for [`CANNOT_DECRYPT`].
    pub fn warning(&self) -> Option<String> {
        let why = self.why.as_deref()?;
        Some(format!(
            "the backup cannot decrypt {} of its objects, under {}, {why}: keep the API server's encryption configuration with the backup",
            self.objects, self.under
        ))
    }
}

/// What a pass over a snapshot collects for [`survey`]: how many values are encrypted with each key, one of each, and the
/// configurations that the database holds.
pub fn wanted(filter: KeyFilter) -> KeyFilter {
    let managed = PREFIXES.map(|prefix| format!("{prefix}{MANAGED}").into_bytes());
    let prefixes = filter.prefixes.into_iter().chain(managed);
    KeyFilter {
        prefixes: prefixes.collect(),
        classify: Some(class),
        ..filter
    }
}

/// How a value is encrypted, and by which API server.
fn class(key: &[u8], value: &[u8]) -> Option<(String, String)> {
    described(value).map(|with| (with, under(key)))
}

/// What the keys of an API server's objects begin with, as far as that tells OpenShift's API servers apart.
fn under(key: &[u8]) -> String {
    const OAUTH: &[u8] = b"/openshift.io/oauth/";
    let end = match key.starts_with(OAUTH) {
        true => OAUTH.len(),
        false => {
            let slash = key.iter().skip(1).position(|byte| *byte == b'/');
            slash.map_or(0, |at| at + 2)
        }
    };
    String::from_utf8_lossy(key.get(..end).unwrap_or_default()).into_owned()
}

/// Tries one value of each key that a pass over the snapshot met ([`wanted`]).
///
/// # Errors
/// As [`from_archives`].
pub fn survey(collected: &Collected, archives: &[PathBuf]) -> Result<Vec<EncryptedWith>> {
    if collected.classes.is_empty() {
        return Ok(Vec::new());
    }
    let mut keys = from_archives(archives)?;
    let managed = collected
        .values
        .iter()
        .filter(|found| is_managed(&found.key));
    let managed = managed.filter_map(|found| Some((found.key.as_slice(), found.value.as_deref()?)));
    keys.merge(from_secrets(managed, &keys));
    let tried = collected
        .classes
        .iter()
        .map(|((with, under), class)| EncryptedWith {
            key: with.clone(),
            under: under.clone(),
            objects: class.count,
            why: match decode(&class.key, &class.value, &keys) {
                Err(Unread::Locked(why)) => Some(why.to_string()),
                _ => None,
            },
        });
    Ok(tried.collect())
}

/// The keys of every EncryptionConfiguration in archives.
///
/// # Errors
/// [`Kind::NotChecked`] if an archive cannot be read.
pub fn from_archives(archives: &[PathBuf]) -> Result<Keys> {
    let mut keys = Keys::default();
    for archive in archives {
        let doing = || format!("reading {}", archive.display());
        from_archive(archive, &mut keys).doing(Kind::NotChecked, doing)?;
    }
    Ok(keys)
}

fn from_archive(path: &Path, keys: &mut Keys) -> std::io::Result<()> {
    let unpacked = GzDecoder::new(File::open(path)?).take(MAX_ARCHIVE);
    let mut archive = tar::Archive::new(unpacked);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() || entry.size() > MAX_FILE {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        if content.windows(MARK.len()).any(|window| window == MARK) {
            // Another file may contain the word: it holds no keys then.
            let _ = keys.add(&content);
        }
    }
    Ok(())
}

/// Adds the keys that the database itself has, in Secrets that are read with those that are known.
///
/// # Errors
/// As [`Keyspace::read`].
pub fn from_database(database: &Database<'_>, known: &Keys) -> Result<Keys> {
    let secrets = Keyspace::read(database, None, &is_managed)?;
    let mut values = Vec::new();
    for secret in secrets.keys() {
        values.push((secret.name, secrets.value(secret.value)?));
    }
    let values = values.iter().map(|(name, value)| (*name, value.as_slice()));
    Ok(from_secrets(values, known))
}

fn is_managed(key: &[u8]) -> bool {
    std::str::from_utf8(key).is_ok_and(|key| key.contains(MANAGED))
}

/// The keys in Secrets that hold an EncryptionConfiguration each, as far as the keys that are known open them.
fn from_secrets<'a>(secrets: impl Iterator<Item = (&'a [u8], &'a [u8])>, known: &Keys) -> Keys {
    let mut keys = Keys::default();
    for (name, value) in secrets {
        let Ok(object) = decode(name, value, known) else {
            continue;
        };
        let file = object
            .json
            .get("data")
            .and_then(|data| data.get("encryption-config")?.as_str());
        if let Some(file) = file.and_then(|file| STANDARD.decode(file).ok()) {
            // What is not a configuration holds no keys; what needs one names it.
            let _ = keys.add(&file);
        }
    }
    keys
}
