//! `list --ranges URL` and `verify --ranges URL`: the recorded changes of each node in a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::args::{IdentityArgs, RemoteArgs, VerifyArgs};
use super::super::brought::{Reached, bring};
use super::super::recorded::chains;
use super::super::remote;
use super::super::session::{Session, scratch};
use crate::error::Result;
use crate::inspect::ranges::{self, RangesFound};
use crate::keep::catalog::BackupSet;
use crate::keep::ranges::{Reachable, continuation, reachable};
use crate::keep::remote::{self as sets, Recordings};
use crate::keep::trust::Trust;
use crate::store::objects::{self, Store};
use crate::store::{Address, LocalStore};
use crate::sys::scratch::Scratch;

/// What can be reached of each node's clusters.
pub(super) fn look(
    session: &Session,
    address: &Address,
    (args, identity): (&RemoteArgs, &IdentityArgs),
    trust: &Trust,
) -> Result<Vec<Reachable>> {
    let settings = remote::settings(session, args)?;
    let identities = remote::identities(identity)?;
    let (all, recordings) = session.block_on(async {
        let store = objects::open(address, &settings).await?;
        let looking = async {
            let (all, mut recordings) = sets::list_recorded(store.as_ref(), "").await?;
            for recordings in recordings.values_mut() {
                recordings
                    .read_beginnings(store.as_ref(), &identities)
                    .await?;
            }
            Ok((all, recordings))
        };
        session.context.cancel.guard(looking).await
    })?;
    let mut found = Vec::new();
    for (node, (mut own, recordings)) in by_node(all, recordings) {
        trust.mark(&mut own);
        found.extend(
            reachable(&recordings.chains, &own)
                .into_iter()
                .map(|one| Reachable {
                    node: Some(node.clone()),
                    ..one
                }),
        );
    }
    Ok(found)
}

/// The sets and the recorded changes of each node, by its folder.
fn by_node(
    all: Vec<BackupSet>,
    recordings: BTreeMap<String, Recordings>,
) -> BTreeMap<String, (Vec<BackupSet>, Recordings)> {
    let mut nodes: BTreeMap<String, (Vec<BackupSet>, Recordings)> = BTreeMap::new();
    for (node, recordings) in recordings {
        nodes.entry(node).or_default().1 = recordings;
    }
    for set in all.into_iter().filter(BackupSet::is_good) {
        if let Some((node, _)) = set.name.rsplit_once('/') {
            nodes.entry(node.to_owned()).or_default().0.push(set);
        }
    }
    nodes
}

/// Brings the recorded changes of each node, checks them, and proves each backup's continuation by the
/// next one; one backup is here at a time.
pub(super) fn verify(
    session: &Session,
    address: &Address,
    args: &VerifyArgs,
    trust: &Trust,
) -> Result<RangesFound> {
    let settings = remote::settings(session, &args.source.remote)?;
    let identities = remote::identities(&args.source.identity)?;
    let (store, nodes) = session.block_on(async {
        let store = objects::open(address, &settings).await?;
        let listing = sets::list_recorded(store.as_ref(), "");
        let (all, recordings) = session.context.cancel.guard(listing).await?;
        Ok((store, by_node(all, recordings)))
    })?;
    let mut found = RangesFound {
        good: true,
        chains: Vec::new(),
        proofs: Vec::new(),
    };
    for (node, (mut own, _)) in nodes
        .into_iter()
        .filter(|(_, (_, found))| !found.chains.is_empty())
    {
        trust.mark(&mut own);
        let reached = Reached::of(&args.source, trust);
        let one = Node {
            session,
            address,
            reached,
            store: Arc::clone(&store),
        };
        let of_node = one.verify(&node, &own, &identities)?;
        found.good &= of_node.good;
        found.chains.extend(of_node.chains);
        found.proofs.extend(of_node.proofs);
    }
    Ok(found)
}

/// A store, on behalf of one of its nodes.
struct Node<'a> {
    session: &'a Session,
    address: &'a Address,
    reached: Reached<'a>,
    store: Arc<dyn Store>,
}

impl Node<'_> {
    fn verify(
        &self,
        node: &str,
        own: &[BackupSet],
        identities: &Arc<sets::Identities>,
    ) -> Result<RangesFound> {
        let session = self.session;
        let scratch = scratch(self.reached.scratch);
        let here = Scratch::make(&scratch, "ranges")?;
        let into = LocalStore::at(here.path());
        session.block_on(async {
            let (context, keys) = (&session.context, Arc::clone(identities));
            sets::bring_changes(context, self.store.as_ref(), node, 0, &into, keys).await
        })?;
        let chains = chains(session, &into)?;
        let read = chains.clone();
        let read = session.blocking(move |context| ranges::read_all(&context, &read))?;
        let mut proofs = Vec::new();
        for set in own.iter().filter(|set| set.is_good()) {
            let Some(continued) = continuation(&chains, own, set) else {
                continue;
            };
            // Where nothing proves it, nothing is fetched.
            if !continued.is_provable()? {
                proofs.push(ranges::unproven(set, &continued));
                continue;
            }
            let url = Address::parse(&format!("{}/{}", self.address, set.name))?;
            let brought = bring(session, &url, &self.reached, sets::Part::Data, "ranges")?;
            let (base, scratch) = (brought.set.clone(), scratch.clone());
            let proven = session
                .blocking(move |context| ranges::prove(&context, &base, &continued, &scratch))?;
            proofs.push(ranges::Proven {
                base: set.name.clone(),
                ..proven
            });
        }
        Ok(RangesFound::of(read, proofs))
    }
}
