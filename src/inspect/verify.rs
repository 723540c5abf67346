//! `verify`: a set's layers, each ok, failed, or not checked and why.
//!
//! What is found is recorded beside the Manifest, which never changes; a store that cannot be
//! written to is no error.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::layers::{DATABASE_LAYERS, LayerReport, LayerState, Layers};
use crate::backup::manifest::{CertificateExpiry, FileEntry, MAX_BYTES};
use crate::backup::names::{self, FileKind, recognise};
use crate::backup::resources::{Certificates, Rules, check_archive};
use crate::backup::{Manifest, expiry, sums};
use crate::context::Context;
use crate::error::{Doing, Kind, Result};
use crate::finding::{Finding, Layer};
use crate::keep::catalog::{BackupSet, SetSignature, Verified};
use crate::keep::database;
use crate::keep::encryption::{self, EncryptedWith};
use crate::node::layout::KUBERNETES;
use crate::sys::small;
use crate::sys::stream::Hashing;

/// How many certificates that are not valid are listed, of each archive.
const MAX_CERTIFICATES: usize = 100;

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The set's name.
    pub set: String,
    /// Whether nothing is broken.
    pub good: bool,
    /// Every layer.
    pub layers: Vec<LayerReport>,
    /// Everything that was found, errors and warnings.
    pub findings: Vec<Finding>,
    /// The certificate in the archives that expires first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earliest_certificate_expiry: Option<CertificateExpiry>,
    /// Whether the result could be recorded beside the set.
    pub recorded: bool,
    /// Objects that the API server encrypted, by key, and whether the backup can decrypt them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub encrypted: Vec<EncryptedWith>,
    /// What the snapshot says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Box<database::Report>>,
}

/// What one pass over a file gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashed {
    /// Its bytes.
    pub(super) size: u64,
    /// SHA-256 of all of it, hex.
    pub(super) sha256: String,
}

/// Checks one set. Findings are in the report; an error means that it could not be checked.
pub fn run(context: &Context, set: &BackupSet) -> Result<Report> {
    let mut check = Check {
        context,
        set,
        layers: Layers::default(),
        hashes: BTreeMap::new(),
        expiry: None,
        database: None,
    };
    check.snapshot()?;
    check.archives()?;
    check.manifest()?;
    check.pair();
    let encrypted = check.encrypted()?;
    let Check {
        layers,
        expiry,
        database,
        ..
    } = check;
    let good = layers.good();
    let recorded = set.manifest.is_some() && record(context, set, &layers, good);
    Ok(Report {
        set: set.name.clone(),
        good,
        layers: layers.reports,
        findings: layers.findings,
        earliest_certificate_expiry: expiry,
        recorded,
        encrypted,
        database,
    })
}

/// A verification under way.
struct Check<'a> {
    context: &'a Context,
    set: &'a BackupSet,
    layers: Layers,
    hashes: BTreeMap<String, Hashed>,
    expiry: Option<CertificateExpiry>,
    database: Option<Box<database::Report>>,
}

impl Check<'_> {
    /// Reads the snapshot: trailer, meta pages, all pages, every entry.
    fn snapshot(&mut self) -> Result<()> {
        let Some(path) = self.set.files.snapshot.clone() else {
            for layer in DATABASE_LAYERS {
                self.layers.skip(layer, "there is no snapshot");
            }
            return Ok(());
        };
        let name = file_name(&path);
        let Some(report) = database::read(
            self.context,
            &path,
            encryption::wanted(database::cluster_keys()),
        )?
        else {
            let finding =
                Finding::error(Layer::Trailer, "the snapshot", "no such file").in_file(name);
            self.layers.findings.push(finding);
            self.layers.close(Layer::Trailer, "");
            for layer in DATABASE_LAYERS.into_iter().skip(1) {
                self.layers.skip(layer, "there is no snapshot");
            }
            return Ok(());
        };
        self.layers.database(&report, &name);
        if let Some(sha256) = &report.sha256 {
            self.hashes.insert(
                name,
                Hashed {
                    size: report.size,
                    sha256: sha256.clone(),
                },
            );
        }
        self.database = Some(Box::new(report));
        Ok(())
    }

    /// Tries to decrypt what the API server encrypted; in a broken backup it is not looked for.
    fn encrypted(&self) -> Result<Vec<EncryptedWith>> {
        let files = &self.set.files;
        let archives = [&files.resources, &files.certificates];
        let archives: Vec<PathBuf> = archives.into_iter().flatten().cloned().collect();
        match &self.database {
            Some(report) if self.layers.good() => encryption::survey(&report.collected, &archives),
            _ => Ok(Vec::new()),
        }
    }

    /// Reads each archive to its end.
    fn archives(&mut self) -> Result<()> {
        let archives = [
            self.set.files.resources.clone(),
            self.set.files.certificates.clone(),
        ];
        let mut entries = 0;
        let mut any = false;
        for path in archives.iter().flatten() {
            any = true;
            entries += self.archive(path)?;
        }
        if !any {
            self.layers.skip(Layer::Archive, "there is no archive");
            self.layers.skip(Layer::Certificates, "there is no archive");
            return Ok(());
        }
        self.layers
            .close(Layer::Archive, format!("{entries} entries"));
        self.layers.close(Layer::Certificates, "");
        Ok(())
    }

    fn archive(&mut self, path: &Path) -> Result<usize> {
        let doing = || format!("reading {}", path.display());
        let name = file_name(path);
        let file = match File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.layers.findings.push(
                    Finding::error(Layer::Archive, "the archive", "no such file").in_file(name),
                );
                return Ok(0);
            }
            other => other.doing(Kind::NotChecked, doing)?,
        };
        let mut input = Hashing::new(file);
        let rules = Rules {
            node_base: Some(KUBERNETES.into()),
            ..Rules::default()
        };
        let read = check_archive(&mut input, &rules).map_err(|failure| failure.doing(doing()))?;
        // What the reader did not want still counts for the digest.
        std::io::copy(&mut input, &mut std::io::sink()).doing(Kind::NotChecked, doing)?;
        let (_, sha256, size) = input.finish();
        self.hashes.insert(
            name.clone(),
            Hashed {
                size,
                sha256: hex::encode(sha256),
            },
        );
        self.layers.findings.extend(
            read.findings
                .into_iter()
                .map(|finding| finding.in_file(name.clone())),
        );
        self.certificates(&read.contents.certificates, &name);
        Ok(read.contents.entries.len())
    }

    /// Certificates that cannot be read or have expired are worth knowing, and no damage.
    fn certificates(&mut self, certificates: &Certificates, archive: &str) {
        let warn = |found: String| {
            Finding::warning(Layer::Certificates, "a certificate that is valid", found)
                .in_file(archive)
        };
        let invalid = invalid(certificates, self.context.now);
        self.layers.findings.extend(invalid.into_iter().map(warn));
        let first = expiry::earliest(certificates);
        self.expiry = self
            .expiry
            .take()
            .into_iter()
            .chain(first)
            .min_by_key(|expiry| expiry.time);
    }

    /// Holds every file against the Manifest and SHA256SUMS.
    fn manifest(&mut self) -> Result<()> {
        let Some(manifest) = &self.set.manifest else {
            let why = match self.set.problems.first() {
                Some(problem) if self.set.dir.join(names::MANIFEST).exists() => {
                    self.layers.findings.push(
                        Finding::error(Layer::Manifest, "a readable Manifest", problem.clone())
                            .in_file(names::MANIFEST),
                    );
                    self.layers.close(Layer::Manifest, "");
                    return Ok(());
                }
                _ => "it has no Manifest",
            };
            self.layers.skip(Layer::Manifest, why);
            return Ok(());
        };
        for entry in &manifest.files {
            let found = self.file(entry)?;
            self.layers.findings.extend(found);
        }
        self.sums(manifest)?;
        let signed = match &self.set.signature {
            SetSignature::None => String::new(),
            SetSignature::Fits(signature) => format!(", signed by {}", signature.fingerprint()),
            SetSignature::Bad(why) => {
                let expected = "a signature of the Manifest";
                self.layers.findings.push(
                    Finding::error(Layer::Manifest, expected, why.clone())
                        .in_file(names::SIGNATURE),
                );
                String::new()
            }
        };
        let files = manifest.files.len();
        self.layers
            .close(Layer::Manifest, format!("{files} files{signed}"));
        Ok(())
    }

    /// One file against its entry.
    fn file(&mut self, entry: &FileEntry) -> Result<Vec<Finding>> {
        let wrong = |expected: String, found: String| {
            vec![Finding::error(Layer::Manifest, expected, found).in_file(entry.name.clone())]
        };
        let hashed = match self.hashes.get(&entry.name) {
            Some(hashed) => hashed.clone(),
            None => match hash_file(self.context, &self.set.dir.join(&entry.name))? {
                Some(hashed) => hashed,
                None => return Ok(wrong("the file".into(), "none".into())),
            },
        };
        if hashed.size != entry.size {
            return Ok(wrong(
                format!("{} bytes", entry.size),
                format!("{} bytes", hashed.size),
            ));
        }
        if hashed.sha256 != entry.sha256 {
            return Ok(wrong(format!("SHA-256 {}", entry.sha256), hashed.sha256));
        }
        Ok(Vec::new())
    }

    /// SHA256SUMS against the Manifest: a reader of either must read the same.
    fn sums(&mut self, manifest: &Manifest) -> Result<()> {
        let path = self.set.dir.join(names::SUMS);
        let Some(bytes) = small::read(&path, MAX_BYTES)? else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut wrong = |expected: String, found: String| {
            self.layers
                .findings
                .push(Finding::error(Layer::Manifest, expected, found).in_file(names::SUMS));
        };
        let listed = match sums::parse(&text) {
            Ok(listed) => listed
                .into_iter()
                .map(|(digest, name)| (name, digest))
                .collect::<BTreeMap<_, _>>(),
            Err(line) => {
                wrong(
                    "64 hex digits, two spaces and a name".into(),
                    format!("something else in line {line}"),
                );
                return Ok(());
            }
        };
        for entry in manifest
            .files
            .iter()
            .filter(|entry| entry.kind != FileKind::Sums)
        {
            match listed.get(&entry.name) {
                Some(digest) if *digest == entry.sha256 => {}
                Some(digest) => wrong(
                    format!("{} for {}", entry.sha256, entry.name),
                    digest.clone(),
                ),
                None => wrong(format!("a line for {}", entry.name), "none".into()),
            }
        }
        Ok(())
    }

    /// Whether snapshot and archives belong together.
    fn pair(&mut self) {
        let stamp = |path: &Path| recognise(path.file_name()?.to_str()?).map(|(_, stamp)| stamp);
        let files = &self.set.files;
        match (&files.snapshot, &files.resources) {
            (Some(_), Some(_)) if self.set.manifest.is_some() => {
                self.layers.close(Layer::Pair, "bound by the Manifest")
            }
            (Some(snapshot), Some(resources))
                if stamp(snapshot).is_some() && stamp(snapshot) == stamp(resources) =>
            {
                self.layers
                    .close(Layer::Pair, "both names have the same timestamp");
            }
            (Some(_), Some(_)) => {
                let finding = Finding::error(
                    Layer::Pair,
                    "names with the same timestamp",
                    "two different timestamps",
                );
                self.layers.findings.push(finding);
                self.layers.close(Layer::Pair, "");
            }
            _ => self
                .layers
                .skip(Layer::Pair, "there is no archive of static-pod resources"),
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// Hashes a whole file; `None` if it does not exist.
pub(super) fn hash_file(context: &Context, path: &Path) -> Result<Option<Hashed>> {
    let doing = || format!("reading {}", path.display());
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(Kind::NotChecked, doing)?,
    };
    let mut input = Hashing::new(file);
    let read = std::io::copy(&mut input, &mut context.cancel.writer(std::io::sink()));
    context.cancel.check()?;
    read.doing(Kind::NotChecked, doing)?;
    let (_, sha256, size) = input.finish();
    Ok(Some(Hashed {
        size,
        sha256: hex::encode(sha256),
    }))
}

/// Writes what was found beside the Manifest; false where the store does not let us.
fn record(context: &Context, set: &BackupSet, layers: &Layers, good: bool) -> bool {
    let failed = layers
        .reports
        .iter()
        .filter(|report| report.state == LayerState::Failed);
    let failed = failed.filter_map(|report| {
        let word = serde_json::to_value(report.layer).ok()?;
        word.as_str().map(str::to_owned)
    });
    let verified = Verified {
        good,
        ..Verified::new(context.now, failed.collect())
    };
    verified.write_to(context, &set.dir)
}

/// The certificates that cannot be read or have expired, each in a sentence; of very many the first
/// [`MAX_CERTIFICATES`], and how many more there are.
fn invalid(certificates: &Certificates, now: Timestamp) -> Vec<String> {
    let unreadable = certificates.unreadable.iter();
    let unreadable = unreadable.map(|one| format!("{}: {}", one.path.display(), one.why));
    // An expired authority is left over from a rotation.
    let leaves = certificates.found.iter().filter(|one| !one.authority);
    let expired = leaves.filter(|one| one.not_after < now).map(|one| {
        format!(
            "{}: {} expired at {}",
            one.path.display(),
            one.subject,
            one.not_after
        )
    });
    let mut invalid: Vec<String> = unreadable.chain(expired).collect();
    let more = invalid.len().saturating_sub(MAX_CERTIFICATES);
    invalid.truncate(MAX_CERTIFICATES);
    if more > 0 {
        invalid.push(format!("{more} more certificates are not valid"));
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::resources::{Certificate, Unreadable};

    #[test]
    fn of_very_many_invalid_certificates_the_first_are_listed_and_the_rest_counted() {
        let now: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
        let expired = |n: usize, authority: bool| Certificate {
            path: format!("{n}.crt").into(),
            subject: format!("CN={n}"),
            not_after: Timestamp::UNIX_EPOCH,
            authority,
        };
        let mut certificates = Certificates {
            found: (0..98).map(|n| expired(n, false)).collect(),
            unreadable: vec![Unreadable {
                path: "x.crt".into(),
                why: "it is empty".to_owned(),
            }],
        };
        certificates.found.push(expired(98, true));
        let all = invalid(&certificates, now);
        assert_eq!(all.len(), 99);
        assert_eq!(all[0], "x.crt: it is empty");
        assert_eq!(all[98], "97.crt: CN=97 expired at 1970-01-01T00:00:00Z");
        certificates.found.extend((0..7).map(|n| expired(n, false)));
        let some = invalid(&certificates, now);
        assert_eq!(some.len(), MAX_CERTIFICATES + 1);
        assert_eq!(some[MAX_CERTIFICATES], "6 more certificates are not valid");
    }
}
