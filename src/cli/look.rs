//! Opening what `get` and `diff` look into.

use std::path::{Path, PathBuf};

use super::args::{IdentityArgs, RemoteArgs, SourceArgs};
use super::session::{Session, scratch};
use super::{remote, target, verify};
use crate::backup::manifest::HashKv;
use crate::error::{Failure, Kind, Result};
use crate::inspect::look::{Source, live};
use crate::keep::catalog::{self, BackupSet, SetState};
use crate::keep::trust::Trust;
use crate::keep::{foreign, remote as sets};
use crate::objects::atrest::Keys;
use crate::objects::kinds::Kinds;
use crate::store::{Address, LocalStore};
use crate::sys::scratch::Scratch;
use crate::sys::small::read_given;

/// The largest EncryptionConfiguration that is read.
const MAX_CONFIG: u64 = 1 << 20;

/// What is looked into, and the folder it was brought to for this run only.
pub(super) struct Looked {
    pub(super) source: Source,
    /// The HashKV that the backup recorded.
    pub(super) hash_kv: Option<HashKv>,
    _brought: Option<Scratch>,
    _unpacked: Option<Scratch>,
}

/// Where backups are and how they are reached.
#[derive(Clone, Copy)]
pub(super) struct Reached<'a> {
    pub(super) store: Option<&'a Path>,
    pub(super) scratch: Option<&'a Path>,
    pub(super) identity: &'a IdentityArgs,
    pub(super) remote: &'a RemoteArgs,
    pub(super) trust: &'a Trust,
}

impl<'a> Reached<'a> {
    pub(super) fn of(source: &'a SourceArgs, trust: &'a Trust) -> Self {
        Self {
            store: source.store.as_deref(),
            scratch: source.scratch.as_deref(),
            identity: &source.identity,
            remote: &source.remote,
            trust,
        }
    }
}

/// Finds what a word means: a backup, a snapshot file, a data directory, a URL.
pub(super) fn find(session: &Session, word: &str, reached: &Reached<'_>) -> Result<Looked> {
    if Address::is_url(word) {
        return fetch(session, word, reached);
    }
    let path = session.readable(Path::new(word));
    if let Some(source) = Source::of_data_dir(&path) {
        let what = "its WAL may have later writes, which are not shown";
        session.context.warn(
            "wal-not-read",
            format!("{word} is a member's data directory: {what}"),
        );
        return Ok(Looked {
            source,
            hash_kv: None,
            _brought: None,
            _unpacked: None,
        });
    }
    let store = session.store_to_read(reached.store)?;
    let set = reached.trust.resolve(&store, word)?;
    let (set, unpacked) = foreign::unpacked(&session.context, set, &scratch(reached.scratch))?;
    Ok(Looked {
        source: Source::of_set(&set)?,
        hash_kv: recorded(&set),
        _brought: None,
        _unpacked: unpacked,
    })
}

fn recorded(set: &BackupSet) -> Option<HashKv> {
    set.manifest.as_ref()?.database.hash_kv
}

/// A snapshot of this node's running etcd, taken only to be looked into.
pub(super) fn live(session: &Session, reached: &Reached<'_>) -> Result<Looked> {
    let here = Scratch::make(&scratch(reached.scratch), "look")?;
    let target = target::target(session)?;
    let source = session.block_on(live::snapshot(&session.context, &target, here.path()))?;
    Ok(Looked {
        source,
        hash_kv: None,
        _brought: Some(here),
        _unpacked: None,
    })
}

/// Whether a word names kinds and not a backup.
pub(super) fn is_kind(word: &str) -> bool {
    if Address::is_url(word) || Path::new(word).exists() || word.ends_with(".db") {
        return false;
    }
    let kind = word.split([',', '/']).next().unwrap_or_default();
    kind.contains('.') || !Kinds::default().called(kind).is_empty()
}

fn fetch(session: &Session, word: &str, reached: &Reached<'_>) -> Result<Looked> {
    let address = Address::parse(word)?;
    let settings = remote::settings(session, reached.remote)?;
    let identities = remote::identities(reached.identity)?;
    let scratch = scratch(reached.scratch);
    let here = Scratch::make(&scratch, "look")?;
    let brought = session.block_on(async {
        let (from, set) = remote::resolve(session, &address, &settings, reached.trust).await?;
        let (context, from, into) = (&session.context, from.as_ref(), here.path());
        if set.state == SetState::Foreign {
            foreign::fetch(context, from, &set.name, into).await?;
            return Ok(set);
        }
        // Whoever reads objects need not hold the keys in the archives.
        let part = sets::Part::Readable;
        let brought = sets::fetch(
            context,
            from,
            &set.name,
            into,
            identities,
            reached.trust,
            part,
        );
        brought.await.map(|_| set.clone())
    })?;
    let path = verify::brought_to(here.path(), &brought);
    let mut set = catalog::resolve(&LocalStore::at(&scratch), &path)?;
    for archive in [&mut set.files.resources, &mut set.files.certificates] {
        archive.take_if(|path| !path.exists());
    }
    let (set, unpacked) = foreign::unpacked(&session.context, set, &scratch)?;
    Ok(Looked {
        source: Source {
            name: address.to_string(),
            ..Source::of_set(&set)?
        },
        hash_kv: recorded(&set),
        _brought: Some(here),
        _unpacked: unpacked,
    })
}

/// The keys of EncryptionConfigurations that were named.
pub(super) fn keys(files: &[PathBuf]) -> Result<Keys> {
    let mut keys = Keys::default();
    for file in files {
        let doing = format!("reading {}", file.display());
        let read = read_given(file, MAX_CONFIG).map_err(|failure| failure.as_kind(Kind::Usage))?;
        let Some(bytes) = read else {
            let what = format!("{doing}: there is no such file");
            return Err(Failure::new(Kind::Usage, what));
        };
        let added = keys.add(&bytes);
        added.map_err(|error| Failure::new(Kind::Usage, error.to_string()).doing(doing))?;
    }
    Ok(keys)
}
