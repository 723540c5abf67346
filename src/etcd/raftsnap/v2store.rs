//! The v2 store's JSON, as far as membership goes.
//!
//! ```text
//! /0/members/<id>/raftAttributes   {"peerURLs":[…],"isLearner":true}
//! /0/members/<id>/attributes       {"name":"…","clientURLs":[…]}
//! /0/removed_members/<id>          removed
//! /0/version                       3.5.0
//! /1/…                             what users stored through the v2 API
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;
use std::marker::PhantomData;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::etcd::founding::FoundingCluster;
use crate::etcd::ids::MemberId;
use crate::etcd::membership::{Member, push_string};
use crate::finding::{Finding, Layer};

/// What matters of the v2 store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct V2Store {
    /// The members, by id.
    pub members: Vec<Member>,
    /// The ids that were removed and may not come back.
    pub removed: Vec<MemberId>,
    /// The cluster's version.
    pub cluster_version: Option<String>,
    /// Whether a user has stored anything through the v2 API, which 3.6 refuses to start with.
    pub has_user_keys: bool,
}

/// Children kept of one directory; a hostile file has more.
const CHILDREN_KEPT: usize = 1000;

/// The named children of a node, of many the first.
struct Children<T> {
    named: BTreeMap<String, T>,
}

impl<T> Default for Children<T> {
    fn default() -> Self {
        Self {
            named: BTreeMap::new(),
        }
    }
}

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Children<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);

        impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for Read<T> {
            type Value = Children<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or null")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Children::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut children = Children::default();
                while let Some(name) = map.next_key::<String>()? {
                    if children.named.len() < CHILDREN_KEPT {
                        children.named.insert(name, map.next_value()?);
                    } else {
                        // It is read in any case, to come to the next one.
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(children)
            }
        }

        deserializer.deserialize_any(Read(PhantomData))
    }
}

/// A node whose children are `T`; what is deeper is ignored.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase", bound = "T: serde::Deserialize<'de>")]
struct Node<T> {
    #[serde(default)]
    value: String,
    #[serde(default = "Children::default")]
    children: Children<T>,
}

impl<T> Node<T> {
    fn child(&self, name: &str) -> Option<&T> {
        self.children.named.get(name)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Leaf {
    #[serde(default)]
    value: String,
}

/// The tree down to the attributes of a member.
type Root = Node<Node<Node<Node<Leaf>>>>;

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Root,
}

impl V2Store {
    pub(super) fn parse(
        json: &[u8],
        findings: &mut Vec<Finding>,
    ) -> Result<Self, serde_json::Error> {
        let root = serde_json::from_slice::<Store>(json)?.root;
        let mut store = Self {
            has_user_keys: root
                .child("1")
                .is_some_and(|users| !users.children.named.is_empty()),
            ..Self::default()
        };
        if store.has_user_keys {
            findings.push(Finding::warning(
                Layer::RaftSnap,
                "nothing that users stored below /1",
                "keys of the v2 API, with which etcd 3.6 does not start",
            ));
        }
        let Some(own) = root.child("0") else {
            return Ok(store);
        };
        store.cluster_version = own
            .child("version")
            .map(|version| version.value.clone())
            .filter(|version| !version.is_empty());
        if let Some(removed) = own.child("removed_members") {
            for name in removed.children.named.keys() {
                match MemberId::from_hex(name) {
                    Some(id) => store.removed.push(id),
                    None => findings.push(no_id(name)),
                }
            }
        }
        if let Some(members) = own.child("members") {
            for (name, node) in &members.children.named {
                let Some(id) = MemberId::from_hex(name) else {
                    findings.push(no_id(name));
                    continue;
                };
                store.members.push(member(id, node)?);
            }
        }
        store.members.sort_by_key(|member| member.id);
        store.removed.sort();
        Ok(store)
    }
}

fn no_id(name: &str) -> Finding {
    Finding::error(Layer::RaftSnap, "a member id", format!("{name:?}"))
}

fn member(id: MemberId, node: &Node<Leaf>) -> Result<Member, serde_json::Error> {
    let text = |name| node.child(name).map(|leaf| leaf.value.as_str());
    // Both texts have some of the fields of a whole member.
    let raft = Member::from_attributes(id, text("raftAttributes").unwrap_or_default())?;
    let published = Member::from_attributes(id, text("attributes").unwrap_or("{}"))?;
    Ok(Member {
        name: published.name,
        client_urls: published.client_urls,
        ..raft
    })
}

const FILE: &str = "\"ExpireTime\":\"0001-01-01T00:00:00Z\",\"Value\":";

/// Opens a directory: its path and the index it came with.
fn open(out: &mut String, path: &str, index: u64) {
    let name = path.rsplit('/').next().unwrap_or_default();
    if path != "/" {
        let _ = write!(out, "\"{name}\":");
    }
    let _ = write!(
        out,
        "{{\"Path\":\"{path}\",\"CreatedIndex\":{index},\"ModifiedIndex\":{index},{FILE}\"\",\
         \"Children\":{{"
    );
}

/// What a store is written with.
struct Content<'a> {
    /// Each with the index that it came with.
    members: Vec<(&'a Member, u64)>,
    /// Whether they have started, and published their names and client URLs.
    published: bool,
    removed: &'a [MemberId],
    version: Option<&'a str>,
    /// The index of the last change.
    index: u64,
}

/// The store of a cluster about to be founded, each node as etcd writes it.
pub(super) fn founding(cluster: &FoundingCluster) -> String {
    write(Content {
        members: cluster.members.iter().zip(1..).collect(),
        published: false,
        removed: &[],
        version: None,
        index: cluster.commit(),
    })
}

/// The store of a cluster that has come as far as this index.
pub(super) fn at(store: &V2Store, index: u64) -> String {
    write(Content {
        members: store.members.iter().map(|member| (member, index)).collect(),
        published: true,
        removed: &store.removed,
        version: store.cluster_version.as_deref(),
        index,
    })
}

/// A node with a value.
fn leaf(out: &mut String, path: &str, index: u64, value: &str) {
    let name = path.rsplit('/').next().unwrap_or_default();
    let _ = write!(
        out,
        "\"{name}\":{{\"Path\":\"{path}\",\"CreatedIndex\":{index},\"ModifiedIndex\":{index},{FILE}"
    );
    push_string(out, value);
    out.push_str(",\"Children\":null}");
}

fn write(mut content: Content<'_>) -> String {
    let index = content.index;
    let mut out = String::from("{\"Root\":");
    open(&mut out, "/", 0);
    open(&mut out, "/0", 0);
    open(&mut out, "/0/members", 1);
    // As text an id has no leading zeros, so that the order is another one.
    content.members.sort_by_key(|(member, _)| member.db_key());
    for (i, (member, index)) in content.members.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let path = format!("/0/members/{}", member.id);
        open(&mut out, &path, index);
        if content.published {
            let attributes = member.attributes_json();
            leaf(&mut out, &format!("{path}/attributes"), index, &attributes);
            out.push(',');
        }
        let attributes = member.raft_attributes_json();
        leaf(
            &mut out,
            &format!("{path}/raftAttributes"),
            index,
            &attributes,
        );
        out.push_str("}}");
    }
    out.push_str("}}");
    if !content.removed.is_empty() {
        out.push(',');
        open(&mut out, "/0/removed_members", index);
        for (i, id) in content.removed.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            leaf(
                &mut out,
                &format!("/0/removed_members/{id}"),
                index,
                "removed",
            );
        }
        out.push_str("}}");
    }
    if let Some(version) = content.version {
        out.push(',');
        leaf(&mut out, "/0/version", index, version);
    }
    out.push_str("}},");
    open(&mut out, "/1", 0);
    let _ = write!(
        out,
        "}}}}}}}},\"CurrentIndex\":{index},\"CurrentVersion\":2}}"
    );
    out
}
