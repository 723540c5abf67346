//! Opening what `get` and `diff` look into.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::brought::{Reached, bring};
use super::session::{Session, scratch};
use super::target;
use crate::backup::manifest::HashKv;
use crate::error::{Failure, Kind, Result};
use crate::inspect::look::{Source, live};
use crate::keep::catalog::BackupSet;
use crate::keep::{foreign, remote as sets};
use crate::objects::atrest::Keys;
use crate::objects::kinds::Kinds;
use crate::store::Address;
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

/// A snapshot of this node's running etcd, taken only to be looked into, within a time if that is limited.
pub(super) fn live(session: &Session, scratch: &Path, limit: Option<Duration>) -> Result<Looked> {
    let here = Scratch::make(scratch, "look")?;
    let target = target::target(session)?;
    let taking = live::snapshot(&session.context, &target, here.path());
    let source = session.block_on(async {
        match limit {
            None => taking.await,
            Some(limit) => timeout(limit, taking)
                .await
                .unwrap_or_else(|_| Err(too_slow())),
        }
    })?;
    Ok(Looked {
        source,
        hash_kv: None,
        _brought: Some(here),
        _unpacked: None,
    })
}

/// Reading the running etcd took longer than was allowed.
pub(super) fn too_slow() -> Failure {
    let what = "reading its data takes too long here; etcd-dr diff does it without a limit";
    Failure::new(Kind::NotChecked, what)
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
    // Whoever reads objects need not hold the keys in the archives.
    let part = sets::Part::Readable;
    let brought = bring(session, &Address::parse(word)?, reached, part, "look")?;
    let scratch = scratch(reached.scratch);
    let (set, unpacked) = foreign::unpacked(&session.context, brought.set, &scratch)?;
    Ok(Looked {
        source: Source::of_set(&set)?,
        hash_kv: recorded(&set),
        _brought: Some(brought.here),
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
