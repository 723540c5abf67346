//! A member as etcd's database keeps it: bucket `members`, key the id as hex text, value JSON.
//!
//! The field order, the fields left out and the escapes are Go's, so that the text equals what
//! etcd itself writes (etcd, `server/etcdserver/api/membership/member.go`).

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::etcd::ids::MemberId;

/// One member of a cluster, from etcd's API or from its files. Serialized as etcd-dr shows it, which
/// is not as etcd stores it: for that see [`Member::to_json`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The id.
    pub id: MemberId,
    /// The name; empty until the member has published it.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until the member has published them.
    pub client_urls: Vec<String>,
    /// Whether it only follows.
    pub is_learner: bool,
}

/// Go writes an empty list as `null`.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberJson {
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "peerURLs", deserialize_with = "list")]
    peer_urls: Vec<String>,
    #[serde(default, rename = "clientURLs", deserialize_with = "list")]
    client_urls: Vec<String>,
    #[serde(default)]
    is_learner: bool,
}

impl Member {
    /// The name, or the id of a member that has not started yet.
    pub fn label(&self) -> String {
        if self.name.is_empty() {
            self.id.to_string()
        } else {
            self.name.clone()
        }
    }

    /// The key in the buckets `members` and `members_removed`.
    pub fn db_key(&self) -> String {
        self.id.to_string()
    }

    /// The value in the bucket `members`; of a founding member also the context of the entry that
    /// adds it.
    pub fn to_json(&self) -> String {
        let mut out = format!("{{\"id\":{}", self.id.0);
        out.push_str(",\"peerURLs\":");
        push_list(&mut out, &self.peer_urls);
        if self.is_learner {
            out.push_str(",\"isLearner\":true");
        }
        push_attributes(&mut out, &self.name, &self.client_urls, true);
        out.push('}');
        out
    }

    /// What the v2 store keeps as `raftAttributes`.
    pub fn raft_attributes_json(&self) -> String {
        let mut out = String::from("{\"peerURLs\":");
        push_list(&mut out, &self.peer_urls);
        if self.is_learner {
            out.push_str(",\"isLearner\":true");
        }
        out.push('}');
        out
    }

    /// What the v2 store keeps as `attributes`.
    pub fn attributes_json(&self) -> String {
        let mut out = String::from("{");
        push_attributes(&mut out, &self.name, &self.client_urls, false);
        out.push('}');
        out
    }

    /// Reads a member from its JSON; unknown fields are ignored, as etcd does.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let member: MemberJson = serde_json::from_slice(json)?;
        let id = member
            .id
            .ok_or_else(|| serde::de::Error::missing_field("id"))?;
        Ok(member.with_id(MemberId(id)))
    }

    /// Reads what the v2 store keeps of a member as one of its attributes.
    pub(crate) fn from_attributes(id: MemberId, json: &str) -> Result<Self, serde_json::Error> {
        let member: MemberJson = serde_json::from_str(json)?;
        Ok(member.with_id(id))
    }
}

impl MemberJson {
    fn with_id(self, id: MemberId) -> Member {
        let member = self;
        Member {
            id,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            is_learner: member.is_learner,
        }
    }
}

fn push_attributes(out: &mut String, name: &str, client_urls: &[String], mut comma: bool) {
    if !name.is_empty() {
        if comma {
            out.push(',');
        }
        out.push_str("\"name\":");
        push_string(out, name);
        comma = true;
    }
    if !client_urls.is_empty() {
        if comma {
            out.push(',');
        }
        out.push_str("\"clientURLs\":");
        push_list(out, client_urls);
    }
}

fn push_list(out: &mut String, items: &[String]) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_string(out, item);
    }
    out.push(']');
}

/// Appends a JSON string with Go's escapes, which also hide what HTML would read.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::founding::InitialCluster;

    #[test]
    fn json_is_that_of_etcd() {
        let cluster = InitialCluster::parse("a&b<c>\"é=http://127.0.0.1:23801")
            .unwrap()
            .found("etcd-cluster")
            .unwrap();
        assert_eq!(
            cluster.members[0].to_json(),
            "{\"id\":13668033151171901709,\"peerURLs\":[\"http://127.0.0.1:23801\"],\
             \"name\":\"a\\u0026b\\u003cc\\u003e\\\"é\"}"
        );
    }

    #[test]
    fn a_member_survives_its_json() {
        let member = Member {
            id: MemberId(u64::MAX),
            name: "tab\t nul\0 ls\u{2028}".into(),
            peer_urls: vec!["http://a:1".into(), "http://b:1".into()],
            client_urls: vec!["http://c:1".into()],
            is_learner: true,
        };
        assert_eq!(
            Member::from_json(member.to_json().as_bytes()).unwrap(),
            member
        );
        assert!(member.to_json().contains("tab\\t nul\\u0000 ls\\u2028"));
        assert_eq!(
            member.raft_attributes_json(),
            "{\"peerURLs\":[\"http://a:1\",\"http://b:1\"],\"isLearner\":true}"
        );
        let bare = Member::from_json(b"{\"id\":1,\"peerURLs\":null,\"more\":{}}").unwrap();
        assert_eq!(bare.peer_urls, Vec::<String>::new());
        assert_eq!(bare.attributes_json(), "{}");
    }

    #[test]
    fn hostile_json_is_an_error() {
        assert!(Member::from_json(b"").is_err());
        assert!(Member::from_json(b"{\"id\":-1}").is_err());
        let deep = [vec![b'['; 100_000], b"1".to_vec()].concat();
        assert!(Member::from_json(&deep).is_err());
    }
}
