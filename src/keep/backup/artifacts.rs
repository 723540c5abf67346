//! The files of a set being made: written, read back, compared, made durable.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::request::Timings;
use super::session::Run;
use super::sink::{Received, Sink};
use super::source::Source;
use crate::backup::expiry;
use crate::backup::manifest::{CertificateExpiry, Database, FileEntry};
use crate::backup::names::{FileKind, Stamp};
use crate::backup::resources::{self, ArchiveContents, Certificates, Packing, Rules, Selection};
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::download::{DownloadOptions, Downloaded, download};
use crate::etcd::kubernetes::ClusterVersion;
use crate::etcd::snapshot::{Collected, Sums};
use crate::event::Event;
use crate::finding::Severity;
use crate::keep::database;
use crate::keep::encryption::{self, EncryptedWith};
use crate::node::collect::CollectList;
use crate::sys::blocking::blocking;
use crate::sys::fs::{self, FILE_MODE, OutFile};
use crate::sys::stream::Hashing;

/// How archives are buffered on their way to the disk, in bytes.
const BUFFER: usize = 256 << 10;

/// What was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Artifacts {
    pub(super) files: Vec<FileEntry>,
    pub(super) database: Database,
    pub(super) expiry: Option<CertificateExpiry>,
    /// The ClusterVersion in the snapshot.
    pub(super) version: Option<ClusterVersion>,
    pub(super) kube_system_uid: Option<String>,
    pub(super) timings: Timings,
    /// The objects that the API server encrypted, and whether the backup can decrypt them.
    pub(super) encrypted: Vec<EncryptedWith>,
    /// What the check of the snapshot collected.
    collected: Collected,
}

/// A snapshot that is not whole is no backup, whatever is allowed.
fn sound(report: &database::Report, sha256: &str) -> Result<()> {
    if let Some(found) = report
        .findings
        .listed()
        .iter()
        .find(|found| found.severity == Severity::Error)
    {
        return Err(Failure::new(
            Kind::BadBackup,
            format!("the snapshot received from etcd is damaged: {found}"),
        ));
    }
    if report.sha256.as_deref() != Some(sha256) {
        return Err(Failure::new(
            Kind::Store,
            "the disk returns other bytes than were written",
        ));
    }
    Ok(())
}

/// A file's entry in the Manifest.
pub(super) fn entry(name: &str, kind: FileKind, size: u64, sha256: [u8; 32]) -> FileEntry {
    FileEntry {
        name: name.to_owned(),
        kind,
        size,
        mode: format!("{FILE_MODE:04o}"),
        sha256: hex::encode(sha256),
    }
}

impl Artifacts {
    /// Writes the snapshot and the archives into the staging directory.
    pub(super) async fn write(
        run: &Run<'_>,
        source: &Source,
        dir: &Path,
        stamp: &Stamp,
    ) -> Result<Self> {
        let mut artifacts = Self::default();
        artifacts.snapshot(run, source, dir, stamp).await?;
        let began = Instant::now();
        let plan = &run.node.plan;
        let lists = [
            (
                FileKind::Resources,
                stamp.resources(),
                Some(&plan.resources),
            ),
            (
                FileKind::Certificates,
                stamp.certificates(),
                plan.certs.as_ref(),
            ),
        ];
        for (kind, name, list) in lists {
            let Some(list) =
                list.filter(|list| !list.entries.is_empty() || !list.elsewhere.is_empty())
            else {
                continue;
            };
            let work = Archive {
                context: run.context.clone(),
                path: dir.join(&name),
                name,
                kind,
                selection: selection(list, run.request.target.layout.node_path(&list.base)),
            };
            let (file, expiry) = blocking(move || work.write()).await?;
            artifacts.files.push(file);
            artifacts.expiry = earlier(artifacts.expiry.take(), expiry);
        }
        artifacts.timings.archives = began.elapsed();
        artifacts.try_keys(run, dir).await?;
        Ok(artifacts)
    }

    /// Tries the keys in the archives on what the API server encrypted. A backup that does not hold them is as good as
    /// any other, and useless for those objects once the node is gone.
    async fn try_keys(&mut self, run: &Run<'_>, dir: &Path) -> Result<()> {
        let collected = std::mem::take(&mut self.collected);
        let archives = self
            .files
            .iter()
            .filter(|file| matches!(file.kind, FileKind::Resources | FileKind::Certificates));
        let archives: Vec<PathBuf> = archives.map(|file| dir.join(&file.name)).collect();
        let tried = blocking(move || Ok(encryption::survey(&collected, &archives))).await?;
        match tried {
            Ok(encrypted) => self.encrypted = encrypted,
            Err(why) => {
                let what = format!("cannot tell whether the backup can decrypt its objects: {why}");
                run.context.warn(encryption::CANNOT_DECRYPT, what);
            }
        }
        // What a plugin encrypts has a warning of its own, if the node's configuration names the plugin.
        let named =
            |with: &&EncryptedWith| run.node.api.kms.is_empty() || !with.key.starts_with("kms:");
        for what in self
            .encrypted
            .iter()
            .filter(named)
            .filter_map(EncryptedWith::warning)
        {
            run.context.warn(encryption::CANNOT_DECRYPT, what);
        }
        Ok(())
    }

    async fn snapshot(
        &mut self,
        run: &Run<'_>,
        source: &Source,
        dir: &Path,
        stamp: &Stamp,
    ) -> Result<()> {
        let context = run.context;
        let name = stamp.snapshot();
        let path = dir.join(&name);
        let began = Instant::now();
        let (received, downloaded) = stream(run, source, dir, &path).await?;
        let sums = Sums {
            file: downloaded.file_sha256,
            database: downloaded.database_sha256,
        };
        let report = self
            .sync_and_check(context, &path, received, sums, began)
            .await?;
        let sha256 = hex::encode(downloaded.file_sha256);
        // Before anything is recorded about the file: a snapshot that is damaged or that the disk
        // does not give back is no backup, whatever is allowed.
        sound(&report, &sha256).map_err(|f| f.doing(format!("checking {}", path.display())))?;
        context.tell(Event::Note(format!(
            "{} bytes in {:.2?}; waited {:.2?} for the server, {:.2?} for the disk",
            downloaded.size,
            downloaded.elapsed,
            downloaded.waited_for_server,
            downloaded.waited_for_sink
        )));
        self.files.push(entry(
            &name,
            FileKind::Snapshot,
            downloaded.size,
            downloaded.file_sha256,
        ));
        self.describe(context, downloaded, &report);
        self.collected = report.collected;
        Ok(())
    }

    /// Makes the file durable, and ends its check.
    async fn sync_and_check(
        &mut self,
        context: &Context,
        path: &Path,
        received: Received,
        sums: Sums,
        began: Instant,
    ) -> Result<database::Report> {
        let Received {
            mut file,
            back,
            look,
        } = received;
        // The pages were decoded as they passed. What ends the check are the trees, which need all of
        // them; meanwhile fsync waits for the disk, and then the last pieces are compared with it.
        // Neither result counts before both are there.
        let checking = {
            let (context, path) = (context.clone(), path.to_owned());
            blocking(move || database::read_received(&context, &path, look, &sums))
        };
        let at = path.to_owned();
        let written = file.len();
        let synced = blocking(move || {
            let synced = file.sync();
            synced.doing(Kind::Store, || format!("syncing {}", at.display()))
        });
        synced.await?;
        self.timings.snapshot = began.elapsed();
        let at = path.to_owned();
        let compared = blocking(move || {
            let compared = back.finish(written);
            compared.doing(Kind::Store, || format!("checking {}", at.display()))
        });
        compared.await?;
        let report = checking.await?;
        self.timings.check = began.elapsed().saturating_sub(self.timings.snapshot);
        report.ok_or_else(|| Failure::new(Kind::Store, format!("{} is gone", path.display())))
    }

    /// Notes what the Manifest will say of the database and its cluster.
    fn describe(&mut self, context: &Context, downloaded: Downloaded, report: &database::Report) {
        self.database = Database {
            // The trailer is of the file, and not of the database.
            size: downloaded.size.saturating_sub(32),
            sha256: hex::encode(downloaded.database_sha256),
            storage_version: downloaded.storage_version,
            ..Database::default()
        };
        database::describe(report, &mut self.database);
        self.kube_system_uid = database::kube_system_uid(report);
        match database::cluster_version(report) {
            Some(Ok(version)) => self.version = Some(version),
            Some(Err(why)) => {
                context.warn(
                    "object-unreadable",
                    format!("the ClusterVersion cannot be read: {why}"),
                );
            }
            None => {}
        }
    }
}

/// Streams a snapshot from etcd into a new file.
async fn stream(
    run: &Run<'_>,
    source: &Source,
    dir: &Path,
    path: &Path,
) -> Result<(Received, Downloaded)> {
    const PHASE: &str = "snapshot";
    let context = run.context;
    let file =
        OutFile::create(path).doing(Kind::Store, || format!("creating {}", path.display()))?;
    let observer = Arc::clone(&context.observer);
    let options = DownloadOptions {
        stall_timeout: run.request.stall_timeout,
        max_rate: run.request.max_rate,
        on_progress: Some(Arc::new(move |progress| {
            observer.event(Event::PhaseProgress {
                phase: PHASE,
                done: progress.received,
            });
        })),
        on_announced: Some(run.room(dir)),
    };
    context.tell(Event::PhaseStarted {
        phase: PHASE,
        about: format!("taking a snapshot from {}", source.endpoint),
        total: Some(source.status.db_size),
    });
    // The sink ends the download where the operator interrupts it or etcd's disk gets full:
    // the stream cannot be asked to pause without the server keeping its snapshot open.
    let sink = Sink::new(
        file,
        context.cancel.clone(),
        dir.to_owned(),
        run.is_beside_etcd(dir),
        source.status.db_size,
    )
    .doing(Kind::Store, || format!("writing {}", path.display()))?;
    let (sink, downloaded) = context
        .cancel
        .guard(download(&source.connection, sink, &options))
        .await
        .map_err(|failure| match failure.kind() {
            Kind::Store => failure.doing(format!("writing {}", path.display())),
            _ => failure,
        })?;
    context.tell(Event::PhaseDone {
        phase: PHASE,
        done: downloaded.size,
    });
    let at = path.to_owned();
    let received = blocking(move || {
        let received = sink.finish();
        received.doing(Kind::Store, || format!("writing {}", at.display()))
    });
    Ok((received.await?, downloaded))
}

/// The certificate of two that expires first.
fn earlier(
    a: Option<CertificateExpiry>,
    b: Option<CertificateExpiry>,
) -> Option<CertificateExpiry> {
    a.into_iter().chain(b).min_by_key(|expiry| expiry.time)
}

/// What of a list goes into an archive.
pub(super) fn selection(list: &CollectList, node_base: PathBuf) -> Selection {
    Selection {
        base: list.base.clone(),
        node_base: Some(node_base),
        entries: list.entries.clone(),
        skip: list.skip.clone(),
        elsewhere: list
            .elsewhere
            .iter()
            .map(|other| (other.source.clone(), other.name.clone()))
            .collect(),
    }
}

/// An archive to be made, on a thread that may block.
struct Archive {
    context: Context,
    path: PathBuf,
    name: String,
    kind: FileKind,
    selection: Selection,
}

impl Archive {
    /// Writes it, makes it durable, reads it to its end and holds it against the tree.
    fn write(self) -> Result<(FileEntry, Option<CertificateExpiry>)> {
        const PHASE: &str = "archive";
        self.context.tell(Event::PhaseStarted {
            phase: PHASE,
            about: format!("archiving into {}", self.name),
            total: None,
        });
        let (mut written, mut digest, mut size) = self.pack(Packing::Usual)?;
        if Rules::default().is_dense(written.content_bytes(), size) {
            // No reader would take it for one of ours.
            fs::unlink(&self.path)?;
            (written, digest, size) = self.pack(Packing::Stored)?;
        }
        let certificates = self.check(digest, &written)?;
        self.context.tell(Event::PhaseDone {
            phase: PHASE,
            done: size,
        });
        Ok((
            entry(&self.name, self.kind, size, digest),
            expiry::earliest(&certificates),
        ))
    }

    /// Writes it and makes it durable.
    fn pack(&self, packing: Packing) -> Result<(ArchiveContents, [u8; 32], u64)> {
        let doing = || format!("writing {}", self.path.display());
        let file = OutFile::create(&self.path).doing(Kind::Store, doing)?;
        let buffered = BufWriter::with_capacity(BUFFER, file);
        let mut out = self.context.cancel.writer(Hashing::new(buffered));
        let written = resources::write_packed(&self.selection, &mut out, packing);
        self.context.cancel.check()?;
        let written = written.map_err(|failure| failure.doing(doing()))?;
        let (buffered, digest, size) = out.into_inner().finish();
        let mut file = buffered
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .doing(Kind::Store, doing)?;
        file.sync().doing(Kind::Store, doing)?;
        Ok((written, digest, size))
    }

    /// Reads the finished archive to its end: it must hold what was meant to be written, and that
    /// must still be the node's tree.
    fn check(&self, digest: [u8; 32], written: &ArchiveContents) -> Result<Certificates> {
        let doing = || format!("checking {}", self.path.display());
        let file = File::open(&self.path).doing(Kind::Store, doing)?;
        let mut hashing = Hashing::new(file);
        let rules = Rules {
            node_base: self.selection.node_base.clone(),
            ..Rules::default()
        };
        let read = resources::check_archive(&mut hashing, &rules)
            .map_err(|failure| failure.doing(doing()))?;
        let wrong = |what: String| Failure::new(Kind::Store, what).doing(doing());
        if let Some(finding) = read.findings.first() {
            return Err(wrong(finding.to_string()));
        }
        if hashing.finish().1 != digest || read.contents.entries != written.entries {
            return Err(wrong(
                "the disk returns other bytes than were written".to_owned(),
            ));
        }
        let differences = resources::compare_with_tree(&read.contents, &self.selection)?;
        if let Some(first) = differences.first() {
            let more = differences.len() - 1;
            let what = format!("{first} (and {more} more) changed while being archived");
            return Err(Failure::refused_for_good("resources-changed", what).doing(doing()));
        }
        Ok(read.contents.certificates)
    }
}
