//! `restore URL/…/latest` to a moment: which backup of the store leads there.

use super::super::args::RestoreArgs;
use super::super::remote;
use super::super::session::Session;
use crate::backup::names::BackupId;
use crate::error::{Fact, Failure, Kind, Result};
use crate::etcd::history::Target;
use crate::keep::catalog::BackupSet;
use crate::keep::ranges::Chain;
use crate::keep::trust::Trust;
use crate::keep::{reach, remote as sets};
use crate::store::Address;
use crate::store::objects;

/// What such a URL ends with.
const LATEST: &str = "/latest";

/// The backups of one node in a store, and its recorded changes.
#[derive(Default)]
struct Node {
    sets: Vec<BackupSet>,
    chains: Vec<Chain>,
}

/// The URLs of the backups to try in turn, if `word` means the newest one of a store away from the node;
/// the first that reaches the target is meant.
///
/// # Errors
/// [`Kind::Usage`] with [`Fact::Candidates`] where the store has several nodes; those of the store.
pub(super) fn candidates(
    session: &Session,
    args: &RestoreArgs,
    word: &str,
    target: &Target,
    trust: &Trust,
) -> Result<Option<Vec<String>>> {
    let Some(above) = word.strip_suffix(LATEST).filter(|_| Address::is_url(word)) else {
        return Ok(None);
    };
    let (store, mut node) = match is_node(session, args, above)? {
        true => of_node(session, args, word)?,
        false => (above.to_owned(), only_node(session, args, above)?),
    };
    trust.mark(&mut node.sets);
    let now = session.context.now;
    let found = reach::candidates(&node.sets, &node.chains, target, now);
    let urls: Vec<String> = found
        .iter()
        .map(|set| format!("{store}/{}", set.name))
        .collect();
    // Without any, what is wrong with the name is said where it is resolved.
    Ok((!urls.is_empty()).then_some(urls))
}

/// Whether a URL is that of a node's folder: backups are directly in it.
fn is_node(session: &Session, args: &RestoreArgs, url: &str) -> Result<bool> {
    let (address, settings) = (
        Address::parse(url)?,
        remote::settings(session, &args.remote)?,
    );
    let level = session.block_on(async {
        let store = objects::open(&address, &settings).await?;
        session.context.cancel.guard(store.level("")).await
    })?;
    let mut folders = level.folders.iter();
    Ok(folders.any(|folder| BackupId::parse(folder).is_some()))
}

/// The node of URL/CLUSTER/NODE/latest, and the URL of its store.
fn of_node(session: &Session, args: &RestoreArgs, word: &str) -> Result<(String, Node)> {
    let (store, name) = Address::parse(word)?.split_set(|_| false)?;
    let folder = name.strip_suffix(LATEST).unwrap_or_default();
    let found = look(session, args, &store, folder)?.pop();
    let node = found.map(|(_, node)| node).unwrap_or_default();
    Ok((store.to_string().trim_end_matches('/').to_owned(), node))
}

/// The one node of a store.
fn only_node(session: &Session, args: &RestoreArgs, url: &str) -> Result<Node> {
    let mut found = look(session, args, &Address::parse(url)?, "")?;
    if found.len() > 1 {
        let nodes = found.into_iter();
        let what = format!(
            "{url} has backups of {} nodes: give one of them",
            nodes.len()
        );
        let candidates = nodes.map(|(node, _)| format!("{url}/{node}{LATEST}"));
        let candidates = Fact::Candidates(candidates.collect());
        return Err(Failure::new(Kind::Usage, what).with(candidates));
    }
    Ok(found.pop().map(|(_, node)| node).unwrap_or_default())
}

/// The nodes below a folder of a store that have a good backup.
fn look(
    session: &Session,
    args: &RestoreArgs,
    store: &Address,
    folder: &str,
) -> Result<Vec<(String, Node)>> {
    let settings = remote::settings(session, &args.remote)?;
    let (all, mut recordings) = session.block_on(async {
        let store = objects::open(store, &settings).await?;
        let listing = sets::list_recorded(store.as_ref(), folder);
        session.context.cancel.guard(listing).await
    })?;
    let mut nodes: Vec<(String, Node)> = Vec::new();
    for set in all.into_iter().filter(BackupSet::is_good) {
        let Some((folder, _)) = set.name.rsplit_once('/') else {
            continue;
        };
        let folder = folder.to_owned();
        match nodes.iter_mut().find(|(name, _)| *name == folder) {
            Some((_, node)) => node.sets.push(set),
            None => {
                let recorded = recordings.remove(&folder).unwrap_or_default();
                let node = Node {
                    sets: vec![set],
                    chains: recorded.chains,
                };
                nodes.push((folder, node));
            }
        }
    }
    Ok(nodes)
}
