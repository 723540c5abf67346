//! What a member that was added must start with.

use std::fmt::Write as _;

use serde::Serialize;

use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;
use crate::sys::quote;

/// The settings that etcd on the new member's machine needs at its first start, with an empty data
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartWith {
    /// `--name`
    pub name: String,
    /// `--initial-advertise-peer-urls`
    pub initial_advertise_peer_urls: Vec<String>,
    /// `--initial-cluster`: every member, the new one among them.
    pub initial_cluster: String,
    /// `--initial-cluster-state`: always `existing`.
    pub initial_cluster_state: &'static str,
}

impl StartWith {
    /// The settings of the member `id`, which gets the name `name`, among all members.
    pub fn new(members: &[Member], id: MemberId, name: &str) -> Self {
        let own = members.iter().find(|member| member.id == id);
        let mut pairs = Vec::new();
        for member in members {
            // etcd compares only the URLs of the others. A member whose name is empty, as before
            // its first start, or would break the list is listed by its id.
            let called = if member.id == id {
                name.to_owned()
            } else if is_name(&member.name) {
                member.name.clone()
            } else {
                member.id.to_string()
            };
            for url in &member.peer_urls {
                pairs.push(format!("{called}={url}"));
            }
        }
        Self {
            name: name.to_owned(),
            initial_advertise_peer_urls: own
                .map(|member| member.peer_urls.clone())
                .unwrap_or_default(),
            initial_cluster: pairs.join(","),
            initial_cluster_state: "existing",
        }
    }

    fn pairs(&self) -> [(&'static str, String); 4] {
        [
            ("name", self.name.clone()),
            (
                "initial-advertise-peer-urls",
                self.initial_advertise_peer_urls.join(","),
            ),
            ("initial-cluster", self.initial_cluster.clone()),
            (
                "initial-cluster-state",
                self.initial_cluster_state.to_owned(),
            ),
        ]
    }

    /// `ETCD_NAME="…"` and so on, one per line, as a shell can source and systemd can read them.
    pub fn env(&self) -> String {
        let mut text = String::new();
        for (flag, value) in self.pairs() {
            let variable = flag.to_ascii_uppercase().replace('-', "_");
            let _ = writeln!(text, "ETCD_{variable}={}", quote::env(&value));
        }
        text
    }

    /// etcd's flags on one line, for a shell.
    pub fn flags(&self) -> String {
        let flags: Vec<String> = self
            .pairs()
            .iter()
            .map(|(flag, value)| format!("--{flag}={}", quote::shell(value)))
            .collect();
        flags.join(" ") + "\n"
    }

    /// The same as items of a static pod's `command`, in YAML.
    pub fn pod(&self) -> String {
        self.pairs()
            .iter()
            .map(|(flag, value)| format!("- {}\n", quote::yaml(&format!("--{flag}={value}"))))
            .collect()
    }
}

/// Whether a name can be part of `--initial-cluster` and needs no quoting anywhere.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/@+".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        let member = |id, name: &str, urls: &[&str]| Member {
            id: MemberId(id),
            name: name.to_owned(),
            peer_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            client_urls: Vec::new(),
            is_learner: false,
        };
        let members = [
            member(1, "m0", &["https://a:2380", "https://b:2380"]),
            member(0xab, "", &["https://c:2380"]),
            member(2, "", &["https://d:2380"]),
        ];
        let start = StartWith::new(&members, MemberId(2), "m2");
        let cluster = "m0=https://a:2380,m0=https://b:2380,ab=https://c:2380,m2=https://d:2380";
        assert_eq!(
            start.env(),
            format!(
                "ETCD_NAME=\"m2\"\nETCD_INITIAL_ADVERTISE_PEER_URLS=\"https://d:2380\"\n\
                 ETCD_INITIAL_CLUSTER=\"{cluster}\"\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n"
            )
        );
        assert_eq!(
            start.flags(),
            format!(
                "--name=m2 --initial-advertise-peer-urls=https://d:2380 \
                 --initial-cluster='{cluster}' --initial-cluster-state=existing\n"
            )
        );
        assert!(start.pod().starts_with("- \"--name=m2\"\n- \"--initial-"));
    }

    #[test]
    fn names_of_others_are_never_code() {
        let url = |member: u64| vec![format!("https://h{member}:2380")];
        let hostile = [
            "e\";touch x;\"",
            "e';touch x;'",
            "$(x)",
            "a=b",
            "a,b",
            "\n- evil",
        ];
        let mut members: Vec<Member> = (0..)
            .zip(hostile)
            .map(|(number, name)| Member {
                id: MemberId(0xa0 + number),
                name: name.to_owned(),
                peer_urls: url(number),
                client_urls: Vec::new(),
                is_learner: false,
            })
            .collect();
        members.push(Member {
            id: MemberId(1),
            name: String::new(),
            peer_urls: url(9),
            client_urls: Vec::new(),
            is_learner: true,
        });
        let start = StartWith::new(&members, MemberId(1), "new");
        let all = [start.env(), start.flags(), start.pod()].concat();
        assert!(!all.contains("touch") && !all.contains("evil"), "{all}");
        assert!(start.initial_cluster.starts_with("a0=https://h0:2380,a1="));
        assert!(start.initial_cluster.ends_with(",new=https://h9:2380"));
    }

    #[test]
    fn names_that_would_break_the_list_are_left_out() {
        for name in ["", "a=b", "a,b", "a b", "a\"b", "a'b", "a\n", "ä$"] {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(is_name("master-0.ocp.example.com") && is_name("ip_10:1"));
    }
}
