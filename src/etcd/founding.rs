//! The initial cluster: who founds it, and the ids that follow from that.

use std::collections::BTreeSet;

use super::ids::{ClusterId, MemberId, PeerUrls, usage};
use crate::error::Result;
use crate::etcd::membership::Member;

/// Who founds a cluster: `name=url,name=url2,other=url3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialCluster {
    text: String,
    /// In the order the names first appear.
    members: Vec<(String, PeerUrls)>,
}

impl InitialCluster {
    /// Reads the text form; a repeated name adds a URL, and no URL may appear twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut members: Vec<(String, Vec<&str>)> = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, url) = part
                .split_once('=')
                .ok_or_else(|| usage(format!("{part:?} does not have the form name=url")))?;
            if name.is_empty() || name.trim() != name {
                return Err(usage(format!("{name:?} is not a member name")));
            }
            match members.iter_mut().find(|(known, _)| known == name) {
                Some((_, urls)) => urls.push(url),
                None => members.push((name.to_owned(), vec![url])),
            }
        }
        if members.is_empty() {
            return Err(usage("the initial cluster has no member"));
        }
        let members = members
            .into_iter()
            .map(|(name, urls)| Ok((name, PeerUrls::parse(urls)?)))
            .collect::<Result<Vec<_>>>()?;
        let mut seen = BTreeSet::new();
        for url in members.iter().flat_map(|(_, urls)| urls.iter()) {
            if !seen.insert(url) {
                return Err(usage(format!(
                    "initial cluster {text} has duplicate URL {url}"
                )));
            }
        }
        Ok(Self {
            text: text.to_owned(),
            members,
        })
    }

    /// The members' names, in the order they first appear.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }

    /// The URLs of a member.
    pub fn urls(&self, name: &str) -> Option<&PeerUrls> {
        self.members
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, urls)| urls)
    }

    /// Demands that a member is in the cluster with just these URLs.
    pub fn check_local(&self, name: &str, advertised: &PeerUrls) -> Result<()> {
        let urls = self.urls(name).ok_or_else(|| {
            usage(format!(
                "the local name {name:?} is not in the initial cluster {}",
                self.text
            ))
        })?;
        if urls != advertised {
            return Err(usage(format!(
                "the initial cluster has {name}={urls}, but {advertised} is advertised"
            )));
        }
        Ok(())
    }

    /// The cluster that is founded with a token.
    pub fn found(&self, token: &str) -> Result<FoundingCluster> {
        let mut members: Vec<Member> = self
            .members
            .iter()
            .map(|(name, urls)| Member {
                id: MemberId::founding(urls, token),
                name: name.clone(),
                peer_urls: urls.to_vec(),
                client_urls: Vec::new(),
                is_learner: false,
            })
            .collect();
        members.sort_by_key(|member| member.id);
        let ids: BTreeSet<MemberId> = members.iter().map(|member| member.id).collect();
        if ids.len() != members.len() || ids.contains(&MemberId(0)) {
            return Err(usage(format!(
                "the members of {} would not get distinct ids",
                self.text
            )));
        }
        Ok(FoundingCluster {
            id: ClusterId::founded_by(ids),
            members,
        })
    }
}

/// A cluster about to be founded, or restored, which is the same to raft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundingCluster {
    /// The cluster's id.
    pub id: ClusterId,
    /// Its members, in the order of their ids.
    pub members: Vec<Member>,
}

impl FoundingCluster {
    /// The member of a name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The index that the founding log ends at, all of it committed: an entry a member.
    pub fn commit(&self) -> u64 {
        self.members.len() as u64
    }

    /// The members' ids, ascending.
    pub fn ids(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.id.0).collect()
    }
}

#[cfg(test)]
#[path = "founding_tests.rs"]
mod tests;
