//! Recorded changes in a store away from the node.
//!
//! ```text
//! <cluster>/<node>/changes/
//!   20261130T120000Z-67dd97daf3ded3f.0000000000000048211-0000000000000048290.changes[.zst][.1f0c2a3b.age]
//! ```
//!
//! An object is a segment, compressed and encrypted as copies are. It is put once and never replaced; its own
//! hash says whether it came whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::form::{self, Form, Identities};
use super::index::ObjectEntry;
use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::segment::{FILE_SUFFIX, MAX_BYTES, Name, Segment};
use crate::event::Event;
use crate::store::LocalStore;
use crate::store::objects::Store;
use crate::sys::fs::{self, OutFile};

/// The folder below a node's.
pub(super) const FOLDER: &str = "changes";
/// Pieces between a codec and the network.
const PIECES: usize = 4;
/// Segments that are brought at a time.
const AT_A_TIME: usize = 8;
/// What a codec may add to a segment.
const SLACK: u64 = 1 << 20;

/// A segment's place: its chain and its name.
pub type Place = (String, Name);

/// The segments below a node's folder, and the objects that hold them.
///
/// # Errors
/// Those of the store.
pub async fn list_changes(store: &dyn Store, node: &str) -> Result<BTreeMap<Place, String>> {
    let folder = format!("{node}/{FOLDER}");
    let mut found = BTreeMap::new();
    for object in store.list(&folder).await? {
        let last = object.name.rsplit('/').next().unwrap_or_default();
        if let Some(place) = parse(last) {
            found.entry(place).or_insert(object.name);
        }
    }
    Ok(found)
}

/// The chain and the name that an object's name begins with.
pub(super) fn parse(object: &str) -> Option<Place> {
    let (chain, rest) = object.split_once('.')?;
    let end = rest.find(FILE_SUFFIX)?.checked_add(FILE_SUFFIX.len())?;
    let name = Name::parse(rest.get(..end)?)?;
    let plain = chain
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (plain && !chain.is_empty()).then(|| (chain.to_owned(), name))
}

/// Puts a segment below a node's folder; the bytes that were sent.
///
/// # Errors
/// [`Kind::Store`].
pub async fn put_change(
    store: &dyn Store,
    node: &str,
    place: &Place,
    path: &Path,
    form: &Form,
) -> Result<u64> {
    let compress = form.compress;
    let mut object = format!("{node}/{FOLDER}/{}.{}", place.0, place.1);
    if compress {
        object.push_str(".zst");
    }
    if form.encrypts() {
        // Two who encrypt the same make different bytes, and must not replace each other's.
        let random = hex::encode(crate::sys::random::bytes::<4>()?);
        object.push_str(&format!(".{random}.age"));
    }
    let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
    let (to, mut from) = mpsc::channel::<Bytes>(PIECES);
    let (path, form) = (path.to_owned(), form.clone());
    let reading = tokio::task::spawn_blocking(move || form::encode(&path, &form, compress, to));
    let mut upload = store.stage(&object, size).await?;
    let mut sent = 0u64;
    while let Some(piece) = from.recv().await {
        sent = sent.saturating_add(piece.len() as u64);
        if let Err(failure) = upload.write(piece).await {
            upload.abort().await;
            return Err(failure);
        }
    }
    let read = reading
        .await
        .doing(Kind::Unexpected, || "running a thread")?;
    if let Err(failure) = read {
        upload.abort().await;
        return Err(failure);
    }
    upload.commit().await?;
    Ok(sent)
}

/// Brings the segments that follow a revision into a directory's `changes`, each checked; those that are
/// there already stay. How many were brought.
///
/// # Errors
/// [`Kind::BadBackup`] for one that is not whole; [`Kind::Usage`] with [`Fact::Missing`] `identity`
/// where they are encrypted and none was given; [`Kind::Store`].
pub async fn bring_changes(
    context: &Context,
    store: &dyn Store,
    node: &str,
    after: i64,
    into: &LocalStore,
    identities: Arc<Identities>,
) -> Result<usize> {
    let mut wanted = Vec::new();
    for ((chain, name), object) in list_changes(store, node).await? {
        let dir = into.changes().join(&chain);
        let path = dir.join(name.to_string());
        if name.last <= after || path.symlink_metadata().is_ok() {
            continue;
        }
        fs::mkdir_all(&dir)?;
        wanted.push((object, path));
    }
    let brought = wanted.len();
    let arriving = futures_util::stream::iter(wanted).map(|(object, path)| {
        let identities = Arc::clone(&identities);
        async move {
            context.cancel.check()?;
            bring(store, &object, &path, identities).await
        }
    });
    let mut arriving = arriving.buffered(AT_A_TIME);
    while let Some(arrived) = arriving.next().await {
        arrived?;
    }
    context.tell(Event::Note(format!(
        "brought {brought} segments of recorded changes"
    )));
    Ok(brought)
}

/// Brings one segment: beside its place, checked, and then renamed.
async fn bring(
    store: &dyn Store,
    object: &str,
    path: &Path,
    identities: Arc<Identities>,
) -> Result<()> {
    let beside = path.with_extension("arriving");
    fs::unlink(&beside)?;
    let doing = || format!("writing {}", beside.display());
    let file = OutFile::create(&beside).doing(Kind::Store, doing)?;
    let mut file = receive(store, object, file, identities).await?;
    file.sync().doing(Kind::Store, doing)?;
    // Checked before it gets its name: whoever lists the directory takes it for whole.
    Segment::open(&beside).map_err(|failure| failure.doing(format!("fetching {object}")))?;
    fs::rename(&beside, path)?;
    fs::sync_dir(fs::parent(path))
}

/// Reads one segment, which is checked.
///
/// # Errors
/// As [`bring_changes`].
pub(super) async fn read(
    store: &dyn Store,
    object: &str,
    identities: Arc<Identities>,
) -> Result<Segment> {
    let bytes = receive(store, object, Vec::new(), identities).await?;
    Segment::parse(bytes).map_err(|failure| failure.doing(format!("fetching {object}")))
}

/// Receives an object and undoes its form.
async fn receive<W: Write + Send + 'static>(
    store: &dyn Store,
    object: &str,
    mut into: W,
    identities: Arc<Identities>,
) -> Result<W> {
    let entry = entry(object);
    if form::needs_identity([&entry], &identities) {
        let what = format!("{object} is encrypted");
        return Err(Failure::new(Kind::Usage, what).with(Fact::Missing("identity")));
    }
    let (to, from) = mpsc::channel(PIECES);
    let decoding = tokio::task::spawn_blocking(move || {
        form::decode(&entry, &identities, from, &mut into, MAX_BYTES)?;
        Ok(into)
    });
    let Some(mut body) = store.read(object, MAX_BYTES + SLACK).await? else {
        let what = format!("{object} is not there any more");
        return Err(Failure::new(Kind::Store, what));
    };
    let mut arrived = Ok(());
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => {
                // A codec that ended early says why below.
                if to.send(piece).await.is_err() {
                    break;
                }
            }
            Err(failure) => {
                arrived = Err(failure);
                break;
            }
        }
    }
    drop(to);
    let decoded = decoding
        .await
        .doing(Kind::Unexpected, || "running a thread")?;
    arrived.and(decoded)
}

/// What an object's name says of its form.
fn entry(object: &str) -> ObjectEntry {
    let (encrypted, plain) = match object.strip_suffix(".age") {
        Some(rest) => (true, rest.rsplit_once('.').map_or(rest, |(rest, _)| rest)),
        None => (false, object),
    };
    ObjectEntry {
        file: object.to_owned(),
        object: object.to_owned(),
        size: 0,
        sha256: String::new(),
        compression: plain.ends_with(".zst").then(|| "zstd".to_owned()),
        encryption: encrypted.then(|| "age".to_owned()),
        secrets: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_tell_place_and_form() {
        let name = "0000000000000000005-0000000000000000009.changes";
        let place = Some(("20261130T120000Z-c1".to_owned(), Name { first: 5, last: 9 }));
        for (suffix, form) in [
            ("", (false, false)),
            (".zst", (true, false)),
            (".zst.0a1b2c3d.age", (true, true)),
            (".0a1b2c3d.age", (false, true)),
        ] {
            let object = format!("20261130T120000Z-c1.{name}{suffix}");
            assert_eq!(parse(&object), place, "{object}");
            let entry = entry(&object);
            assert_eq!(
                (entry.compression.is_some(), entry.encryption.is_some()),
                form,
                "{object}"
            );
        }
        for other in ["", "x", name, &format!("../x.{name}"), &format!(".{name}")] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
