//! Whether other members of the cluster run: next to them, a restored single member would be a
//! second cluster.
//!
//! First every source that may know of members is read (the backup, the member's own list or files,
//! the manifest's `--initial-cluster` or `etcd.env`). Then each member is asked at each of its
//! addresses: at client URLs for its status, at peer URLs for the members. An address that refuses
//! or times out means a member that does not run; an address that could not be asked proves
//! nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::refusals::{OTHER_MEMBERS_RUNNING, OTHER_MEMBERS_UNKNOWN, Refusals};
use crate::cluster::connect;
use crate::etcd::client::{
    ConnectOptions, Connection, Endpoint as Client, Knock, Member, Status, knock, peer_members,
};
use crate::etcd::snapshot;
use crate::node::access::EtcdAccess;
use crate::node::endpoint::Endpoint;

/// How long a member may take to answer before it counts as not running: two round trips over a bad
/// line to a busy server.
pub(crate) const ANSWER: Duration = Duration::from_secs(3);

/// A member as one source knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its id.
    #[serde(skip)]
    pub id: Option<u64>,
    /// Its name; empty if it is not known.
    pub name: String,
    /// Where it serves clients.
    #[serde(rename = "clientURLs")]
    pub client_urls: Vec<String>,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
}

impl From<&snapshot::Member> for Known {
    fn from(member: &snapshot::Member) -> Self {
        Self {
            id: Some(member.id),
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
            peer_urls: member.peer_urls.clone(),
        }
    }
}

impl From<&Member> for Known {
    fn from(member: &Member) -> Self {
        Self {
            id: Some(member.id.0),
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
            peer_urls: member.peer_urls.clone(),
        }
    }
}

impl Known {
    /// What the rest is called by: name, id or an address.
    fn label(&self) -> String {
        let url = || {
            self.client_urls
                .iter()
                .chain(&self.peer_urls)
                .next()
                .cloned()
        };
        match (self.name.is_empty(), self.id) {
            (false, _) => self.name.clone(),
            (true, Some(id)) => format!("member {id:x}"),
            (true, None) => url().unwrap_or_default(),
        }
    }

    fn urls(&self) -> impl Iterator<Item = &String> {
        self.client_urls.iter().chain(&self.peer_urls)
    }

    fn hosts(&self) -> impl Iterator<Item = String> {
        let places = self.urls().filter_map(|url| Endpoint::parse(url));
        places.map(|place| place.host)
    }

    fn add(&mut self, other: Self) {
        self.id = self.id.or(other.id);
        if self.name.is_empty() {
            self.name = other.name;
        }
        for url in other.client_urls {
            if !self.client_urls.contains(&url) {
                self.client_urls.push(url);
            }
        }
        for url in other.peer_urls {
            if !self.peer_urls.contains(&url) {
                self.peer_urls.push(url);
            }
        }
    }
}

/// What is known of this node's own member, so that it is not taken for another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    /// Its id now, and its id in the backup.
    pub(crate) ids: BTreeSet<u64>,
    /// Its name, which is the node's.
    pub(crate) name: String,
    /// The machine's addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Hosts at which the node says that its own member is.
    pub(crate) hosts: BTreeSet<String>,
}

impl Own {
    /// By the node's files. A configured endpoint may be another member's.
    pub(crate) fn of(access: &EtcdAccess, name: &str, target: &connect::Target) -> Self {
        let endpoint = target
            .overrides
            .endpoints
            .is_none()
            .then_some(&access.endpoint.value);
        let peers = access.peer_urls.iter().flat_map(|urls| &urls.value);
        let places = endpoint.into_iter().chain(peers);
        Self {
            ids: BTreeSet::new(),
            name: name.to_owned(),
            addresses: target.overrides.local_addresses.clone(),
            hosts: places
                .filter_map(|url| Some(Endpoint::parse(url)?.host))
                .collect(),
        }
    }

    fn is(&self, known: &Known) -> bool {
        known.id.is_some_and(|id| self.ids.contains(&id))
            || (!known.name.is_empty() && known.name == self.name)
    }

    /// Whether an address leads to this machine, whichever member it is listed for.
    fn is_here(&self, url: &str) -> bool {
        let Some(place) = Endpoint::parse(url) else {
            return false;
        };
        // Of all loopback addresses, only these two are sure to be every machine's own.
        let loopback = ["localhost", "127.0.0.1", "::1"].contains(&place.host.as_str());
        let ip = place.ip();
        loopback
            || self
                .addresses
                .iter()
                .any(|own| Some(own.to_canonical()) == ip)
    }
}

/// All members that some source knows, and the current ones, if the member itself knows them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Circle {
    pub(crate) own: Own,
    pub(crate) members: Vec<Known>,
    /// Client URLs of which nobody says whose they are.
    pub(crate) endpoints: Vec<String>,
    /// The members as the node's own member lists them; one that is missing was removed.
    pub(crate) current: Option<Vec<Known>>,
}

impl Circle {
    /// Adds what the node's access says: `--initial-cluster` or `etcd.env`.
    pub(crate) fn add_access(&mut self, access: &EtcdAccess) {
        self.add_peers(&access.peers);
        self.endpoints.extend(access.member_endpoints.value.clone());
    }

    /// Adds members by name and peer URL.
    pub(crate) fn add_peers(&mut self, peers: &[(String, String)]) {
        self.members.extend(peers.iter().map(|(name, url)| Known {
            name: name.clone(),
            peer_urls: vec![url.clone()],
            ..Known::default()
        }));
    }

    /// The other members, each once, with all addresses from all sources.
    pub(crate) fn others(&self) -> Vec<Known> {
        let current = self.current.iter().flatten();
        let all: Vec<&Known> = self.members.iter().chain(current).collect();
        let mut own_hosts = self.own.hosts.clone();
        for own in all.iter().filter(|known| self.own.is(known)) {
            own_hosts.extend(own.hosts());
        }
        let mut others: Vec<Known> = Vec::new();
        let mut add = |known: Known| {
            let same = |other: &&mut Known| {
                (known.id.is_some() && other.id == known.id)
                    || (!known.name.is_empty() && other.name == known.name)
                    || known
                        .urls()
                        .any(|url| other.urls().any(|theirs| theirs == url))
            };
            match others.iter_mut().find(same) {
                Some(other) => other.add(known),
                None => others.push(known),
            }
        };
        for known in all.iter().filter(|known| !self.own.is(known)) {
            let mut known = (*known).clone();
            let had = known.urls().count();
            known.client_urls.retain(|url| !self.own.is_here(url));
            known.peer_urls.retain(|url| !self.own.is_here(url));
            // All its addresses lead here: it is this machine under another name.
            if had == 0 || known.urls().count() > 0 {
                add(known);
            }
        }
        for url in &self.endpoints {
            let host = Endpoint::parse(url).map(|place| place.host);
            let own = host.is_some_and(|host| own_hosts.contains(&host));
            if !own && !self.own.is_here(url) {
                let client_urls = vec![url.clone()];
                add(Known {
                    client_urls,
                    ..Known::default()
                });
            }
        }
        others.sort_by_key(Known::label);
        others
    }

    /// Whether the node's own member knows that this one is no longer a member.
    fn was_removed(&self, other: &Known) -> bool {
        self.current.as_ref().is_some_and(|current| {
            !current.iter().any(|known| {
                (known.id.is_some() && known.id == other.id)
                    || (!known.name.is_empty() && known.name == other.name)
                    || known
                        .urls()
                        .any(|url| other.urls().any(|theirs| theirs == url))
            })
        })
    }

    /// Asks all of them at once.
    pub(crate) async fn ask(&self, options: Option<&ConnectOptions>) -> Others {
        let mut found = Others::default();
        if self.members.is_empty() && self.current.is_none() {
            let why = "neither the backup nor this node has a list of the members";
            found.unknown.push(why.to_owned());
        }
        let mut asked = Vec::new();
        found.members = self.others();
        for other in found.members.clone() {
            let (own, options) = (self.own.ids.clone(), options.cloned());
            let removed = self.was_removed(&other);
            asked.push(tokio::spawn(async move {
                let answers = ask_one(&other, &own, options.as_ref()).await;
                (other.label(), judge(answers, removed))
            }));
        }
        for answer in asked {
            match answer.await {
                Ok((name, Verdict::Lives { at, cluster })) => {
                    let named = name != at;
                    let place = if named { format!("{name} at {at}") } else { at };
                    found.clusters.extend(cluster.map(|id| (place.clone(), id)));
                    found.living.push(place);
                    found.names.extend(named.then_some(name));
                }
                Ok((name, Verdict::Unknown(why))) => found.unknown.push(format!("{name}: {why}")),
                Ok((_, Verdict::Away)) => {}
                Err(error) => found.unknown.push(error.to_string()),
            }
        }
        found
    }
}

/// What was found out of the other members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Others {
    /// All that were asked.
    pub(crate) members: Vec<Known>,
    /// Voting members that answer, and where.
    pub(crate) living: Vec<String>,
    /// Names among them.
    pub(crate) names: Vec<String>,
    /// Where one of them said which cluster it belongs to.
    pub(crate) clusters: Vec<(String, u64)>,
    /// Those of which nobody can tell, and why.
    pub(crate) unknown: Vec<String>,
}

impl Others {
    /// The members that must not run, for the journal; empty if the operator has allowed them.
    pub(crate) fn to_stay_away(&self, allows: impl Fn(&str) -> bool) -> Vec<Known> {
        match allows(OTHER_MEMBERS_RUNNING) || allows(OTHER_MEMBERS_UNKNOWN) {
            true => Vec::new(),
            false => self.members.clone(),
        }
    }

    /// The refusals; `then` says what to do about members that answer.
    pub(crate) fn refusals(&self, then: &str) -> Refusals {
        let mut refusals = Vec::new();
        if !self.living.is_empty() {
            let living = self.living.join(", ");
            let what = format!("other voting members still answer ({living}): {then}");
            refusals.push((OTHER_MEMBERS_RUNNING, what));
        }
        if !self.unknown.is_empty() {
            let unknown = self.unknown.join("; ");
            let what = format!(
                "cannot tell whether other members run ({unknown}): if one does, a restore creates a second cluster"
            );
            refusals.push((OTHER_MEMBERS_UNKNOWN, what));
        }
        refusals
    }
}

/// The same connection options, with short timeouts for members that may be gone.
pub(crate) fn patiently(options: ConnectOptions) -> ConnectOptions {
    let mut options = options;
    options.connect_timeout = ANSWER;
    options.call_timeout = ANSWER;
    options
}

/// What one address said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// This node's own member is there.
    Own,
    /// A voting member, or a server that does not say that it is a learner.
    Voter {
        at: String,
        /// The id of its cluster, where it said so.
        cluster: Option<u64>,
    },
    Learner,
    Silent,
    Unclear(String),
    Untried(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Lives { at: String, cluster: Option<u64> },
    Unknown(String),
    Away,
}

/// What the answers at all addresses of a member come to.
fn judge(answers: Vec<Answer>, removed: bool) -> Verdict {
    let mut unclear = None;
    let mut untried = None;
    let mut asked = false;
    for answer in answers {
        match answer {
            Answer::Voter { at, cluster } => return Verdict::Lives { at, cluster },
            // None of these makes a second cluster: a learner has no vote.
            Answer::Own | Answer::Learner | Answer::Silent => asked = true,
            Answer::Unclear(why) => unclear = unclear.or(Some(why)),
            Answer::Untried(why) => untried = untried.or(Some(why)),
        }
    }
    match (unclear, untried) {
        // Whatever runs there, the members no longer count it.
        _ if removed => Verdict::Away,
        (Some(why), _) => Verdict::Unknown(why),
        _ if asked => Verdict::Away,
        (None, Some(why)) => Verdict::Unknown(why),
        (None, None) => Verdict::Unknown("it has no address".to_owned()),
    }
}

async fn ask_one(
    other: &Known,
    own: &BTreeSet<u64>,
    options: Option<&ConnectOptions>,
) -> Vec<Answer> {
    let clients = other
        .client_urls
        .iter()
        .map(|url| client(url, own, options));
    let clients = futures_util::future::join_all(clients);
    let peers = other.peer_urls.iter().map(|url| peer(url, own, options));
    let peers = futures_util::future::join_all(peers);
    let (mut clients, peers) = tokio::join!(clients, peers);
    clients.extend(peers);
    clients
}

/// Where a member serves clients.
async fn client(url: &str, own: &BTreeSet<u64>, options: Option<&ConnectOptions>) -> Answer {
    let Some(place) = Endpoint::parse(url) else {
        return Answer::Untried(format!("{url} is not an address that can be dialed"));
    };
    let status = async { status(&place, options?).await };
    // A status needs certificates that are accepted; a connection shows that something listens.
    let knock = knock(place.tls, &place.host, place.port, ANSWER);
    let (status, knock) = tokio::join!(status, knock);
    match status {
        Some(status) if own.contains(&status.header.member_id.0) => Answer::Own,
        Some(status) if status.is_learner => Answer::Learner,
        Some(status) => Answer::Voter {
            at: url.to_owned(),
            cluster: Some(status.header.cluster_id.0),
        },
        None => of_knock(url, knock),
    }
}

async fn status(place: &Endpoint, options: &ConnectOptions) -> Option<Status> {
    let endpoint = Client::parse(&place.to_string(), place.tls).ok()?;
    let connection = Connection::open(&endpoint, options).await.ok()?;
    connection.status().await.ok()
}

/// Where its peers reach it.
async fn peer(url: &str, own: &BTreeSet<u64>, options: Option<&ConnectOptions>) -> Answer {
    let Some(place) = Endpoint::parse(url) else {
        return Answer::Untried(format!("{url} is not an address that can be dialed"));
    };
    let knock = knock(place.tls, &place.host, place.port, ANSWER).await;
    if knock != Knock::Answers {
        return of_knock(url, knock);
    }
    let listed = async {
        let endpoint = Client::parse(&place.to_string(), place.tls).ok()?;
        let says = peer_members(&endpoint, options?).await.ok()?;
        let member = says.members.into_iter().find(|member| {
            let mut places = member
                .peer_urls
                .iter()
                .filter_map(|url| Endpoint::parse(url));
            places.any(|there| there == place)
        });
        Some((says.cluster_id, member))
    };
    let (cluster, member) = listed.await.unwrap_or_default();
    match member {
        Some(member) if own.contains(&member.id) => Answer::Own,
        Some(member) if member.is_learner => Answer::Learner,
        // It answers, and only a status could tell that it is a learner.
        _ => Answer::Voter {
            at: url.to_owned(),
            cluster,
        },
    }
}

fn of_knock(url: &str, knock: Knock) -> Answer {
    match knock {
        Knock::Answers => Answer::Voter {
            at: url.to_owned(),
            cluster: None,
        },
        Knock::Silent => Answer::Silent,
        Knock::Unclear(why) => Answer::Unclear(format!("{url}: {why}")),
        Knock::Untried(why) => Answer::Untried(format!("{url}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: u64, name: &str, clients: &[&str], peers: &[&str]) -> Known {
        let texts = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect();
        Known {
            id: (id > 0).then_some(id),
            name: name.to_owned(),
            client_urls: texts(clients),
            peer_urls: texts(peers),
        }
    }

    fn circle() -> Circle {
        Circle {
            own: Own {
                ids: BTreeSet::from([1]),
                name: "cp-0".to_owned(),
                addresses: vec!["10.99.0.1".parse().unwrap()],
                hosts: BTreeSet::from(["10.99.0.7".to_owned()]),
            },
            ..Circle::default()
        }
    }

    #[test]
    fn the_own_member_is_never_another_whatever_it_is_called() {
        let mut circle = circle();
        circle.members = vec![
            // Without client URLs, as etcd up to 3.5.16 keeps a member in its bucket.
            known(1, "cp-0", &[], &["https://10.99.0.1:2380"]),
            // As the backup has it: another id, an address of before.
            known(9, "cp-0", &[], &["https://10.99.0.9:2380"]),
            // Under another name, at this machine's address.
            known(8, "old-name", &["https://10.99.0.1:2379"], &[]),
        ];
        circle.endpoints = vec![
            "https://127.0.0.1:2379".to_owned(),
            "https://10.99.0.1:2379".to_owned(),
            "https://10.99.0.7:2379".to_owned(),
            "https://10.99.0.9:2379".to_owned(),
        ];
        assert_eq!(circle.others(), []);
    }

    #[test]
    fn each_other_member_is_asked_once_at_all_its_addresses() {
        let mut circle = circle();
        circle.members = vec![
            known(2, "cp-1", &[], &["https://10.99.0.2:2380"]),
            known(0, "cp-1", &[], &["https://10.99.0.2:2380"]),
            known(0, "cp-2", &[], &["https://10.99.0.3:2380"]),
            known(4, "", &[], &[]),
        ];
        circle.current = Some(vec![known(
            2,
            "cp-1",
            &["https://127.0.0.1:2379", "https://10.99.0.2:2379"],
            &["https://10.99.0.2:2380"],
        )]);
        let others = circle.others();
        let labels: Vec<String> = others.iter().map(Known::label).collect();
        assert_eq!(labels, ["cp-1", "cp-2", "member 4"]);
        assert_eq!(others[0].client_urls, ["https://10.99.0.2:2379"]);
        assert!(!circle.was_removed(&others[0]) && circle.was_removed(&others[1]));
    }

    #[test]
    fn what_could_not_be_asked_is_not_silence() {
        let why = || "why".to_owned();
        let unknown = Verdict::Unknown(why());
        let silent = Answer::Silent;
        let hangs = || Answer::Unclear(why());
        let untried = || Answer::Untried(why());
        assert_eq!(judge(vec![untried()], false), unknown);
        assert_eq!(judge(vec![untried()], true), Verdict::Away);
        assert_eq!(judge(vec![untried(), silent.clone()], false), Verdict::Away);
        assert_eq!(judge(vec![silent.clone(), hangs()], false), unknown);
        assert_eq!(judge(vec![silent, Answer::Learner], false), Verdict::Away);
        assert!(matches!(judge(Vec::new(), false), Verdict::Unknown(_)));
        let (at, cluster) = (why(), Some(7));
        let lives = Verdict::Lives {
            at: at.clone(),
            cluster,
        };
        let voter = Answer::Voter { at, cluster };
        assert_eq!(judge(vec![hangs(), voter], true), lives);
    }
}
