//! Makes what was staged a backup: summary, checksums, the Manifest last, then the rename.

use std::path::Path;

use super::artifacts::{self, Artifacts};
use super::request::{Taken, Timings};
use super::session::Run;
use super::source::Source;
use crate::backup::manifest::{
    self, Check, Cluster, Component, FileEntry, Manifest, Member, Node, Quality, SCHEMA_VERSION,
    Tool,
};
use crate::backup::names::{self, BackupId, FileKind};
use crate::backup::{Stamp, environment, sums};
use crate::error::{Failure, Kind, Result};
use crate::keep::copies::Record;
use crate::keep::{advice, catalog, chain, lineage};
use crate::store::Staging;
use crate::sys::digest::sha256;
use crate::sys::fs;

impl Run<'_> {
    pub(super) fn manifest(
        &self,
        source: &Source,
        artifacts: &Artifacts,
        number: u64,
        checks: Vec<Check>,
        quality: Quality,
    ) -> Result<Manifest> {
        let status = &source.status;
        let version = artifacts.version.as_ref();
        let id = status.header.cluster_id.to_string();
        let components = self.node.plan.components.iter().map(|live| Component {
            name: live.component.name().to_owned(),
            revision: live.revision.map(|revision| u64::from(revision.number)),
            image: live.image.clone(),
        });
        Ok(Manifest {
            schema_version: SCHEMA_VERSION,
            tool: Tool {
                name: "etcd-dr".to_owned(),
                version: self.request.tool_version.clone(),
            },
            id: BackupId(number).to_string(),
            created: self.context.now,
            node: Node {
                host: self.request.host.clone(),
                name: self.node.name().map(str::to_owned),
                profile: self.node.profile().word().to_owned(),
            },
            cluster: Cluster {
                etcd_id: id.clone(),
                uuid: version.and_then(|version| version.uuid.clone()),
                ocp_version: version.and_then(|version| version.version.clone()),
                kube_system_uid: artifacts.kube_system_uid.clone(),
                former_ids: lineage::former_ids(&self.request.target.layout, &id)?,
            },
            member: Member {
                id: status.header.member_id.to_string(),
                name: source.member_name.clone(),
                endpoint: source.endpoint.clone(),
                etcd_version: status.version.clone(),
                leader: status.is_leader(),
                learner: status.is_learner,
                raft_term: status.raft_term,
                raft_index: status.raft_index,
                raft_applied_index: status.raft_applied_index,
            },
            database: artifacts.database.clone(),
            files: artifacts.files.clone(),
            components: components.collect(),
            quality,
            checks,
            earliest_certificate_expiry: artifacts.expiry.clone(),
            other_etcds: advice::others_of(&self.node.api),
            kms_plugins: self.node.api.kms.clone(),
            previous: None,
        })
    }

    /// Makes the staged files a set: summary, checksums, the Manifest last, then the rename.
    pub(super) fn commit(
        &self,
        staging: Staging,
        number: u64,
        mut manifest: Manifest,
    ) -> Result<Taken> {
        let dir = staging.dir();
        let summary = environment::render(&manifest);
        manifest.files.push(add_file(
            dir,
            names::ENVIRONMENT,
            FileKind::Environment,
            summary.as_bytes(),
        )?);
        let listed = sums::render(&manifest.files);
        manifest.files.push(add_file(
            dir,
            names::SUMS,
            FileKind::Sums,
            listed.as_bytes(),
        )?);
        if self.request.pin {
            let since = format!("pinned {}\n", self.context.now);
            fs::write_new(&dir.join(names::PINNED), since.as_bytes())?;
        }
        if !self.request.copies.is_empty() {
            let record = Record::asked(self.request.copies.iter().cloned());
            fs::write_new(&dir.join(names::COPIES), &record.to_bytes()?)?;
        }
        let node = manifest.origin().1.to_owned();
        // Read last, under the store's lock: no other backup can come in between.
        manifest.previous = chain::newest(&catalog::list(self.store)?, &node);
        let bytes = manifest.to_bytes()?;
        // Before the Manifest: from its rename on the set is a backup, and must have its signature.
        if let Some(key) = &self.request.sign {
            let signature = key.sign(&bytes)?;
            fs::write_new(&dir.join(names::SIGNATURE), signature.as_bytes())?;
        }
        fs::write_new(&dir.join(names::MANIFEST), &bytes)?;
        self.context.cancel.check()?;
        let mut problems = Vec::new();
        match self.store.commit(staging, number) {
            Err(failure) if failure.kind() == Kind::Partial => problems.push(failure.to_string()),
            other => drop(other?),
        }
        match self.store.point_latest(number) {
            // The set is there; what is missing is a convenience that this file system lacks.
            Err(failure) if failure.io_kind().is_some_and(no_links) => {
                self.context.warn("no-symbolic-links", failure.to_string());
            }
            Err(failure) => problems.push(failure.to_string()),
            Ok(()) => {}
        }
        Ok(Taken {
            dir: self.store.set_dir(number),
            problems,
            manifest,
            is_set: true,
            timings: Timings::default(),
            encrypted: Vec::new(),
            shared: None,
            pruned: None,
        })
    }

    /// Moves the staged files out as `cluster-backup.sh` leaves them; the snapshot goes last,
    /// since OpenShift's restore script looks for that first.
    pub(super) fn commit_flat(
        &self,
        staging: Staging,
        dir: &Path,
        mut manifest: Manifest,
    ) -> Result<Taken> {
        let dirty = manifest.quality.state == manifest::QualityState::Dirty;
        let stamp = Stamp::new(self.context.now, dirty);
        fs::sync_dir(staging.dir())?;
        manifest
            .files
            .sort_by_key(|file| file.kind == FileKind::Snapshot);
        for file in &mut manifest.files {
            let name = match file.kind {
                FileKind::Snapshot => stamp.snapshot(),
                FileKind::Resources => stamp.resources(),
                _ => stamp.certificates(),
            };
            let to = dir.join(&name);
            // A rename would replace it without an error.
            if to.symlink_metadata().is_ok() {
                return Err(Failure::new(
                    Kind::Store,
                    format!("{} exists already", to.display()),
                ));
            }
            fs::rename(&staging.dir().join(&file.name), &to)?;
            file.name = name;
        }
        drop(staging);
        fs::sync_dir(dir)?;
        Ok(Taken {
            dir: dir.to_owned(),
            problems: Vec::new(),
            manifest,
            is_set: false,
            timings: Timings::default(),
            encrypted: Vec::new(),
            shared: None,
            pruned: None,
        })
    }
}

/// Writes a small file into a set and describes it.
fn add_file(dir: &Path, name: &str, kind: FileKind, content: &[u8]) -> Result<FileEntry> {
    fs::write_new(&dir.join(name), content)?;
    Ok(artifacts::entry(
        name,
        kind,
        content.len() as u64,
        sha256(content),
    ))
}

/// What a file system without symbolic links answers.
fn no_links(error: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{PermissionDenied, Unsupported};
    matches!(error, PermissionDenied | Unsupported)
}
