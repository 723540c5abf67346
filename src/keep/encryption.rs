//! Whether a backup can decrypt itself: which of its objects the API server encrypted, and whether the backup has the
//! keys.
//!
//! | API server | its EncryptionConfiguration |
//! | --- | --- |
//! | kube-apiserver on OpenShift | `secrets/encryption-config/encryption-config` of its revision, in the archive |
//! | kube-apiserver elsewhere | the file that `--encryption-provider-config` names, in the archive |
//! | OpenShift's other API servers | Secrets `openshift-config-managed/encryption-config-*` in the database, which kube-apiserver encrypted |

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::Serialize;

use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::FileSource;
use crate::etcd::keyspace::{Database, Keyspace};
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
/// Keys and plugins that are told of.
const MAX_PROVIDERS: usize = 64;

/// Objects that were encrypted with one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EncryptedWith {
    /// `aescbc:v1:KEY`, `kms:v2:PLUGIN`, …
    pub key: String,
    /// How many objects.
    pub objects: u64,
    /// Why the backup cannot decrypt them; nothing where it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Looks for encrypted objects and tries one of each key.
///
/// # Errors
/// As [`Database::open`] and [`from_archives`].
pub fn survey(snapshot: &Path, archives: &[PathBuf]) -> Result<Vec<EncryptedWith>> {
    let doing = || format!("reading {}", snapshot.display());
    let file = FileSource::open(snapshot).doing(Kind::NotChecked, doing)?;
    let database = Database::open(&file)?;
    let encrypted = Keyspace::by_value(&database, &|value| described(value).is_some())?;
    if encrypted.is_empty() {
        return Ok(Vec::new());
    }
    let mut keys = from_archives(archives)?;
    keys.merge(from_database(&database, &keys)?);
    let mut found: BTreeMap<String, EncryptedWith> = BTreeMap::new();
    for key in encrypted.keys() {
        let value = encrypted.value(key.value)?;
        let name = described(&value).unwrap_or_default();
        if let Some(known) = found.get_mut(&name) {
            known.objects += 1;
        } else if found.len() < MAX_PROVIDERS {
            let why = match decode(key.name, &value, &keys) {
                Err(Unread::Locked(why)) => Some(why.to_string()),
                _ => None,
            };
            let with = EncryptedWith {
                key: name.clone(),
                objects: 1,
                why,
            };
            found.insert(name, with);
        }
    }
    Ok(found.into_values().collect())
}
/// The keys of every EncryptionConfiguration in archives.
///
/// # Errors
/// [`Kind::NotChecked`] where an archive cannot be read.
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
    let managed = |key: &[u8]| std::str::from_utf8(key).is_ok_and(|key| key.contains(MANAGED));
    let secrets = Keyspace::read(database, None, &managed)?;
    let mut keys = Keys::default();
    for secret in secrets.keys() {
        let Ok(object) = decode(secret.name, &secrets.value(secret.value)?, known) else {
            continue;
        };
        let file = object
            .json
            .get("data")
            .and_then(|data| data.get("encryption-config")?.as_str());
        if let Some(file) = file.and_then(|file| STANDARD.decode(file).ok()) {
            // What is no configuration holds no keys; what needs one names it.
            let _ = keys.add(&file);
        }
    }
    Ok(keys)
}
