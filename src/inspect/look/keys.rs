//! The keys with which an API server encrypted what it stored, out of a backup.
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

use crate::error::{Doing, Kind, Result};
use crate::etcd::keyspace::{Database, Keyspace};
use crate::objects::atrest::Keys;
use crate::objects::decode;

/// A larger file is not an EncryptionConfiguration.
const MAX_FILE: u64 = 1 << 20;
/// Bytes that are unpacked of an archive in the search.
const MAX_ARCHIVE: u64 = 4 << 30;
/// What every EncryptionConfiguration, new or old, contains.
const MARK: &[u8] = b"EncryptionConfig";
/// Where OpenShift's operators keep the configurations of its other API servers.
const MANAGED: &str = "/secrets/openshift-config-managed/encryption-config-";

/// The keys of every EncryptionConfiguration in archives.
///
/// # Errors
/// [`Kind::NotChecked`] where an archive cannot be read.
pub(super) fn from_archives(archives: &[PathBuf]) -> Result<Keys> {
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
pub(super) fn from_database(database: &Database<'_>, known: &Keys) -> Result<Keys> {
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
