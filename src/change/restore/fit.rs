//! Whether a backup's static pods fit this node: pods made for another node, or for an address that
//! this machine does not have, would never run here.

use std::net::IpAddr;

use super::refusals::{ADDRESS_NOT_LOCAL, NODE_MISMATCH};
use super::request::Request;
use crate::change::transaction::pods::PodSeen;
use crate::node::access::EtcdAccess;
use crate::node::component::Component;
use crate::node::endpoint::{Endpoint, parse_ip, split_list};
use crate::node::pod::Container;

/// The refusal of static pods that are not this node's, by name, and why.
pub(super) fn misfit(
    request: &Request,
    access: &EtcdAccess,
    node: &str,
    pods: &[PodSeen],
) -> Option<(&'static str, String)> {
    let etcd = pods.iter().find(|seen| seen.component == Component::Etcd);
    let etcd = etcd.and_then(|seen| seen.pod.container("etcd").or(seen.pod.containers.first()));
    let manifest = request.set.manifest.as_ref();
    let taken_on = manifest.and_then(|manifest| manifest.node.name.clone());
    // Without a backup's Manifest the pod manifest still names the member; OpenShift's has a
    // variable there.
    let named = || {
        let name = etcd.and_then(|etcd| etcd.flag("name"));
        name.filter(|name| !name.contains('$')).map(str::to_owned)
    };
    if let Some(taken_on) = taken_on.or_else(named).filter(|name| name != node) {
        return Some((
            NODE_MISMATCH,
            format!(
                "the backup was taken on {taken_on}, but this node is {node}: its static pods are specific to that node, so only etcd's data can be restored here"
            ),
        ));
    }
    let missing = missing_addresses(etcd?, node, request, access);
    if missing.is_empty() {
        return None;
    }
    Some((
        ADDRESS_NOT_LOCAL,
        format!(
            "the backup's etcd manifest uses {}, but this machine has no such address: etcd would not start with it",
            missing.join(", ")
        ),
    ))
}

/// The addresses that etcd would listen on and this machine does not have, and those that it would
/// advertise although neither the machine nor the node's own manifest has them.
fn missing_addresses(
    etcd: &Container,
    node: &str,
    request: &Request,
    access: &EtcdAccess,
) -> Vec<String> {
    let own = &request.options.target.overrides.local_addresses;
    let advertised = access.peer_urls.iter().flat_map(|urls| &urls.value);
    let advertised: Vec<_> = advertised
        .chain(&access.member_endpoints.value)
        .filter_map(|url| Endpoint::parse(url)?.ip())
        .collect();
    let urls = |flag: &str| {
        let variable = format!("ETCD_{}", flag.replace('-', "_").to_uppercase());
        let value = etcd.flag(flag).or(etcd.env(&variable));
        value.map(split_list).unwrap_or_default()
    };
    let mut missing = Vec::new();
    // OpenShift's etcd listens on all addresses; a variable has the node's.
    let safe = node.replace(['-', '.'], "_");
    let of_node = etcd.env(&format!("NODE_{safe}_IP")).and_then(parse_ip);
    let elsewhere =
        |ip: &IpAddr| !ip.is_loopback() && !own.iter().any(|own| own.to_canonical() == *ip);
    missing.extend(of_node.filter(elsewhere).map(|ip| ip.to_string()));
    for (flag, listens) in [
        ("listen-client-urls", true),
        ("listen-peer-urls", true),
        ("advertise-client-urls", false),
        ("initial-advertise-peer-urls", false),
    ] {
        let places = urls(flag);
        for ip in places.iter().filter_map(|url| Endpoint::parse(url)?.ip()) {
            // All of 127.0.0.0/8 is every machine's.
            let here = ip.is_loopback()
                || ip.is_unspecified()
                || own.iter().any(|own| own.to_canonical() == ip);
            let known = !listens && advertised.contains(&ip);
            let text = ip.to_string();
            if !here && !known && !missing.contains(&text) {
                missing.push(text);
            }
        }
    }
    missing
}
