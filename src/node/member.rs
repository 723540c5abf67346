//! Which etcd member is this node's own, by its addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::endpoint::parse_ip;
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// A member as the node's variables describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedMember {
    /// The part of the variables' names that stands for the node: its name with `_` for each `-`
    /// and `.`.
    pub safe: String,
    /// The member's name, which is the node's.
    pub name: String,
    /// The node's address, as etcd announces it.
    pub ip: Option<IpAddr>,
}

/// How the local member was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// The caller named the node.
    Named,
    /// This address is the machine's and the member's.
    Address(IpAddr),
}

/// The members that `NODE_<safe>_ETCD_NAME` and `NODE_<safe>_IP` tell of.
pub fn members<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<NamedMember> {
    let variables: BTreeMap<&str, &str> = variables.into_iter().collect();
    variables
        .iter()
        .filter_map(|(name, value)| {
            let safe = name.strip_prefix("NODE_")?.strip_suffix("_ETCD_NAME")?;
            let ip = variables.get(format!("NODE_{safe}_IP").as_str());
            Some(NamedMember {
                safe: safe.to_owned(),
                name: (*value).to_owned(),
                ip: ip.and_then(|text| parse_ip(text)),
            })
        })
        .collect()
}

/// Finds the local member.
/// A configured name decides alone. Otherwise an address of the machine must be exactly one
/// member's. A loopback address, which every machine has, counts only where nothing else matched.
pub fn local_member(
    members: &[NamedMember],
    named: Option<&str>,
    local_addresses: &[IpAddr],
) -> Result<(NamedMember, Evidence)> {
    if let Some(name) = named {
        return by_name(members, name);
    }
    for loopback in [false, true] {
        let matched: Vec<(&NamedMember, IpAddr)> = members
            .iter()
            .filter_map(|member| Some((member, member.ip?)))
            .filter(|(_, ip)| ip.is_loopback() == loopback)
            .filter(|(_, ip)| {
                local_addresses
                    .iter()
                    .any(|local| local.to_canonical() == *ip)
            })
            .collect();
        match matched.as_slice() {
            [] => {}
            [(member, ip)] => return Ok(((*member).clone(), Evidence::Address(*ip))),
            several => {
                return Err(Failure::refused_for_good(
                    "local-member-ambiguous",
                    "finding this node's etcd member: addresses of this machine belong to more \
                     than one member"
                        .to_owned(),
                )
                .with(Fact::Candidates(
                    several.iter().map(|(member, _)| describe(member)).collect(),
                ))
                .with(Fact::Missing("node-name")));
            }
        }
    }
    let seen: Vec<String> = local_addresses.iter().map(ToString::to_string).collect();
    Err(Failure::refused_for_good(
        "local-member-unknown",
        format!(
            "finding this node's etcd member: none of this machine's addresses ({}) belongs to a member",
            seen.join(", ")
        ),
    )
    .with(Fact::Candidates(members.iter().map(describe).collect()))
    .with(Fact::Missing("node-name")))
}

fn by_name(members: &[NamedMember], name: &str) -> Result<(NamedMember, Evidence)> {
    let exact = members.iter().find(|member| member.name == name);
    match exact {
        Some(member) => Ok((member.clone(), Evidence::Named)),
        None => Err(Failure::refused_for_good(
            "local-member-unknown",
            format!("finding this node's etcd member: no member is named {name:?}"),
        )
        .with(Fact::Candidates(members.iter().map(describe).collect()))
        .with(Fact::Missing("node-name"))),
    }
}

fn describe(member: &NamedMember) -> String {
    match member.ip {
        Some(ip) => format!("{} ({ip})", member.name),
        None => format!("{} (no address)", member.name),
    }
}

/// The addresses of this machine's interfaces.
pub fn machine_addresses() -> Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .doing(Kind::Unexpected, || "listing this machine's addresses")?
        .into_iter()
        .map(|interface| interface.ip())
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn three() -> Vec<NamedMember> {
        members([
            ("NODE_master_0_ocp_ETCD_NAME", "master-0.ocp"),
            ("NODE_master_0_ocp_IP", "192.168.10.10"),
            ("NODE_master_0_ocp_ETCD_URL_HOST", "192.168.10.10"),
            ("NODE_master_1_ocp_ETCD_NAME", "master-1.ocp"),
            ("NODE_master_1_ocp_IP", "[fd00::10]"),
            ("NODE_lo_ETCD_NAME", "lo"),
            ("NODE_lo_IP", "127.0.0.1"),
            ("ETCD_NAME", "x"),
        ])
    }

    #[test]
    fn addresses_decide_for_both_families() {
        let members = three();
        assert_eq!(members.len(), 3);
        let find = |addresses: &[&str]| local_member(&members, None, &ips(addresses));
        let (member, evidence) = find(&["127.0.0.1", "::1", "192.168.10.10"]).unwrap();
        assert_eq!(member.name, "master-0.ocp");
        assert_eq!(
            evidence,
            Evidence::Address("192.168.10.10".parse().unwrap())
        );
        assert_eq!(
            find(&["fe80::1", "fd00:0:0::10"]).unwrap().0.name,
            "master-1.ocp"
        );
        assert_eq!(
            find(&["::ffff:192.168.10.10"]).unwrap().0.name,
            "master-0.ocp"
        );
        assert_eq!(find(&["127.0.0.1", "10.9.9.9"]).unwrap().0.name, "lo");
    }

    #[test]
    fn doubt_is_refused_with_the_candidates() {
        let members = three();
        let failure = local_member(&members, None, &ips(&["10.0.0.1", "::1"])).unwrap_err();
        assert_eq!(failure.refusal(), Some("local-member-unknown"));
        assert!(
            matches!(&failure.facts()[1], Fact::Candidates(list) if list.len() == 3
                && list.contains(&"master-1.ocp (fd00::10)".to_owned()))
        );
        let both = ips(&["192.168.10.10", "fd00::10"]);
        let failure = local_member(&members, None, &both).unwrap_err();
        assert_eq!(failure.refusal(), Some("local-member-ambiguous"));
        assert_eq!(
            local_member(&members, Some("lo"), &both).unwrap().0.name,
            "lo"
        );
        let failure = local_member(&members, Some("master-0"), &both).unwrap_err();
        assert_eq!(failure.refusal(), Some("local-member-unknown"));
        assert_eq!(failure.kind(), Kind::Refused);
    }

    #[test]
    fn this_machine_has_addresses() {
        let addresses = machine_addresses().unwrap();
        assert!(addresses.iter().any(IpAddr::is_loopback), "{addresses:?}");
    }
}
