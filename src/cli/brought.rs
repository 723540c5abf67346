//! Bringing a backup that is named by a URL to this machine, for the commands that read one.

use std::path::Path;

use super::args::{IdentityArgs, RemoteArgs, SourceArgs};
use super::remote;
use super::session::{Session, scratch};
use crate::error::Result;
use crate::keep::catalog::{self, BackupSet, SetState};
use crate::keep::trust::Trust;
use crate::keep::{foreign, remote as sets};
use crate::store::{Address, LocalStore};
use crate::sys::scratch::Scratch;

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

/// A backup of another store, in a folder that goes with this run.
pub(super) struct Brought {
    /// The backup as it is here, under the URL's name. Another program's may still be packed.
    pub(super) set: BackupSet,
    /// The backup as the store shows it.
    pub(super) there: BackupSet,
    /// The folder.
    pub(super) here: Scratch,
}

/// Brings a part of the backup at a URL to a scratch folder.
///
/// # Errors
/// Those of resolving the name, of the signature, and of fetching.
pub(super) fn bring(
    session: &Session,
    address: &Address,
    reached: &Reached<'_>,
    part: sets::Part,
    purpose: &str,
) -> Result<Brought> {
    let settings = remote::settings(session, reached.remote)?;
    let identities = remote::identities(reached.identity)?;
    let (trust, scratch) = (reached.trust, scratch(reached.scratch));
    let here = Scratch::make(&scratch, purpose)?;
    let there = session.block_on(async {
        let (store, set) = remote::resolve(session, address, &settings, trust).await?;
        let (context, store, into) = (&session.context, store.as_ref(), here.path());
        match set.state {
            SetState::Foreign => foreign::fetch(context, store, &set.name, into).await?,
            _ => {
                let name = &set.name;
                sets::fetch(context, store, name, into, identities, trust, part).await?;
            }
        }
        Ok(set)
    })?;
    let path = match there.state {
        SetState::Foreign => {
            let file = there.name.rsplit('/').next().unwrap_or_default();
            here.path().join(file)
        }
        _ => here.path().to_owned(),
    };
    let mut set = BackupSet {
        name: address.to_string(),
        ..catalog::resolve(&LocalStore::at(&scratch), &path.display().to_string())?
    };
    // What was left out is in the Manifest nevertheless.
    let partial = part != sets::Part::Whole;
    let files = [&mut set.files.resources, &mut set.files.certificates];
    for archive in files.into_iter().filter(|_| partial) {
        archive.take_if(|path| !path.exists());
    }
    Ok(Brought { set, there, here })
}
