//! Names in members' URLs, and whether the addresses behind them are still the members' own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::problems::{
    NAME_RESOLVES_ELSEWHERE, NAME_UNRESOLVED, PEER_URL_LOOPBACK, PEER_URL_NOT_LOCAL,
};
use super::report::Finding;
use crate::cluster::peer_url;
use crate::etcd::membership::Member;
use crate::node::endpoint::Endpoint;

/// What names stand for; a parameter, so that a test may have its own.
pub trait Resolver: Send + Sync {
    /// The addresses of a name.
    ///
    /// # Errors
    /// Why a name has no addresses, as a sentence.
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String>;
}

/// The machine's own resolver, with its hosts file and DNS servers. It may block for as long as
/// they are set to be waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        use std::net::ToSocketAddrs;
        // Any port: only the addresses are looked at.
        let found = (name, 1).to_socket_addrs();
        found
            .map(|found| found.map(|address| address.ip().to_canonical()).collect())
            .map_err(|error| error.to_string())
    }
}

/// Looks at every member's names, and at the peer URLs of this node's own member.
pub(super) fn check(
    members: &[Member],
    own: Option<&Member>,
    local: &[IpAddr],
    resolver: &dyn Resolver,
) -> Vec<Finding> {
    let mut known: BTreeMap<String, Result<Vec<IpAddr>, String>> = BTreeMap::new();
    let mut findings = Vec::new();
    for member in members {
        findings.extend(loopback(member, members, local));
        names_of(member, resolver, &mut known, &mut findings);
    }
    if let Some(member) = own {
        findings.extend(moved(member, local, &known));
    }
    findings
}

/// Other machines do not find a member at `localhost`. If nothing of the cluster is on another
/// address, one machine holds all of it.
fn loopback(member: &Member, members: &[Member], local: &[IpAddr]) -> Option<Finding> {
    let urls = peer_url::loopback(&member.peer_urls)?;
    let elsewhere = members.iter().any(|other| {
        let peers = other.peer_urls.iter().filter(|_| other.id != member.id);
        let mut places = peers
            .chain(&other.client_urls)
            .filter_map(|url| Endpoint::parse(url));
        places.any(|place| !place.is_every_machine())
    });
    if !elsewhere {
        return None;
    }
    let evidence = format!("no other machine can reach it at its peer URL {urls}");
    let finding = Finding::error(PEER_URL_LOOPBACK, evidence).of(member);
    let clients = member.client_urls.iter();
    let address = clients
        .filter_map(|url| Endpoint::parse(url))
        .find(|place| !place.is_every_machine())
        .map(|place| place.host)
        .or_else(|| {
            let own = local.iter().find(|ip| !ip.is_loopback());
            own.map(ToString::to_string)
        });
    Some(match address {
        Some(address) => finding.at(&address),
        None => finding,
    })
}

/// Each name must resolve, and to the right place.
fn names_of(
    member: &Member,
    resolver: &dyn Resolver,
    known: &mut BTreeMap<String, Result<Vec<IpAddr>, String>>,
    findings: &mut Vec<Finding>,
) {
    let urls = || member.peer_urls.iter().chain(&member.client_urls);
    let places: Vec<(&String, Endpoint)> = urls()
        .filter_map(|url| Some((url, Endpoint::parse(url)?)))
        .collect();
    for (url, place) in places.iter().filter(|(_, place)| place.ip().is_none()) {
        let found = known
            .entry(place.host.clone())
            .or_insert_with(|| resolver.addresses(&place.host));
        if let Err(why) = found {
            let evidence = format!("{} in {url} does not resolve: {why}", place.host);
            findings.push(
                Finding::error(NAME_UNRESOLVED, evidence)
                    .of(member)
                    .at(&place.host),
            );
        }
    }
    elsewhere(member, &places, known, findings);
}

/// A name must resolve to an address that the member's other URLs have too.
fn elsewhere(
    member: &Member,
    places: &[(&String, Endpoint)],
    known: &BTreeMap<String, Result<Vec<IpAddr>, String>>,
    findings: &mut Vec<Finding>,
) {
    let addresses = |place: &Endpoint| match place.ip() {
        Some(ip) => vec![ip],
        None => match known.get(&place.host) {
            Some(Ok(found)) => found.clone(),
            _ => Vec::new(),
        },
    };
    // What is given as an address is certain; without any, the first name's addresses are.
    let mut certain: Vec<IpAddr> = places.iter().filter_map(|(_, place)| place.ip()).collect();
    if certain.is_empty() {
        certain = places
            .first()
            .map(|(_, place)| addresses(place))
            .unwrap_or_default();
    }
    for (url, place) in places.iter().filter(|(_, place)| place.ip().is_none()) {
        // What is said of `localhost` is said elsewhere.
        if place.is_every_machine() {
            continue;
        }
        let found = addresses(place);
        let shared = found.iter().any(|ip| {
            certain.contains(ip) || (ip.is_loopback() && certain.iter().any(IpAddr::is_loopback))
        });
        if !found.is_empty() && !certain.is_empty() && !shared {
            let evidence = format!(
                "{} in {url} resolves to {}, but the member is at {}",
                place.host,
                list(&found),
                list(&certain)
            );
            findings.push(
                Finding::error(NAME_RESOLVES_ELSEWHERE, evidence)
                    .of(member)
                    .at(&place.host),
            );
        }
    }
}

/// The node's own member must be where its peers look for it.
fn moved(
    member: &Member,
    local: &[IpAddr],
    known: &BTreeMap<String, Result<Vec<IpAddr>, String>>,
) -> Option<Finding> {
    let mut announced = Vec::new();
    for place in member
        .peer_urls
        .iter()
        .filter_map(|url| Endpoint::parse(url))
    {
        match place.ip() {
            Some(ip) => announced.push(ip),
            None => match known.get(&place.host) {
                Some(Ok(found)) => announced.extend(found),
                // Said already.
                _ => return None,
            },
        }
    }
    let here = |ip: &IpAddr| ip.is_loopback() || local.iter().any(|own| own.to_canonical() == *ip);
    if announced.is_empty() || announced.iter().any(here) {
        return None;
    }
    let own: Vec<IpAddr> = local
        .iter()
        .filter(|ip| !ip.is_loopback())
        .copied()
        .collect();
    let evidence = format!(
        "its peer URLs {} point to {}, but this machine's addresses are {}",
        member.peer_urls.join(", "),
        list(&announced),
        list(&own)
    );
    let finding = Finding::error(PEER_URL_NOT_LOCAL, evidence).of(member);
    Some(match own.first() {
        Some(ip) => finding.at(&ip.to_string()),
        None => finding,
    })
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if texts.is_empty() {
        return "none".to_owned();
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::ids::MemberId;

    struct Table;

    impl Resolver for Table {
        fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
            match name {
                "m0.example" => Ok(vec!["10.0.0.1".parse().unwrap()]),
                "stale.example" => Ok(vec!["10.0.0.99".parse().unwrap()]),
                "localhost" => Ok(vec!["127.0.0.1".parse().unwrap()]),
                _ => Err("no such name".to_owned()),
            }
        }
    }

    fn named(peers: &[&str], clients: &[&str]) -> Member {
        let texts = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect();
        Member {
            id: MemberId(1),
            name: "m0".to_owned(),
            peer_urls: texts(peers),
            client_urls: texts(clients),
            is_learner: false,
        }
    }

    fn found(member: &Member, local: &[&str]) -> Vec<&'static str> {
        let local: Vec<IpAddr> = local.iter().map(|ip| ip.parse().unwrap()).collect();
        let findings = check(std::slice::from_ref(member), Some(member), &local, &Table);
        findings.iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn names_and_addresses() {
        let here = &["127.0.0.1", "10.0.0.1"];
        let well = named(&["https://m0.example:2380"], &["https://10.0.0.1:2379"]);
        assert!(found(&well, here).is_empty());
        let lost = named(&["https://gone.example:2380"], &["https://10.0.0.1:2379"]);
        assert_eq!(found(&lost, here), [NAME_UNRESOLVED]);
        let stale = named(&["https://stale.example:2380"], &["https://10.0.0.1:2379"]);
        assert_eq!(
            found(&stale, here),
            [NAME_RESOLVES_ELSEWHERE, PEER_URL_NOT_LOCAL]
        );
        let names = named(
            &["https://m0.example:2380"],
            &["https://stale.example:2379"],
        );
        assert_eq!(found(&names, here), [NAME_RESOLVES_ELSEWHERE]);
        let moved = named(&["https://10.0.0.1:2380"], &["https://10.0.0.1:2379"]);
        assert_eq!(
            found(&moved, &["127.0.0.1", "10.0.0.7"]),
            [PEER_URL_NOT_LOCAL]
        );
    }

    #[test]
    fn a_peer_url_of_every_machine_is_found_where_others_must_reach_it() {
        let here = &["127.0.0.1", "10.0.0.1"];
        for url in [
            "http://localhost:2380",
            "https://127.0.0.1:2380",
            "https://127.0.1.1:2380",
            "https://[::1]:2380",
        ] {
            let member = named(&[url], &["https://10.0.0.1:2379"]);
            assert_eq!(found(&member, here), [PEER_URL_LOOPBACK], "{url}");
            // All of it on one machine.
            let alone = named(&[url], &["http://127.0.0.1:2379"]);
            assert!(found(&alone, here).is_empty(), "{url}");
        }
        let one = named(
            &["https://127.0.0.1:2380", "https://10.0.0.1:2380"],
            &["https://10.0.0.1:2379"],
        );
        assert!(found(&one, here).is_empty());
    }
}
