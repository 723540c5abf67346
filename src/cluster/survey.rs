//! The members as they are now: the cluster's list, and each member's own answer.

use std::time::Duration;

use serde::Serialize;

use super::quorum::{Standing, Tally};
use crate::cluster::connect;
use crate::cluster::connect::Target;
use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::client::{
    Alarm, ConnectOptions, Connection, Consistency, Endpoint, Probe, Status, probe_members,
};
use crate::etcd::ids::{ClusterId, MemberId};
use crate::etcd::membership::Member;
use crate::node::access::EtcdAccess;
use crate::node::detection::Detection;
use crate::node::overrides::Sourced;

/// A failure that came sooner than this did not wait for a majority: the call is repeated.
const RETRY_WITHIN: Duration = Duration::from_secs(3);
/// How long before that.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How to reach the cluster: any member that answers serves.
#[derive(Debug, Clone)]
pub struct ClusterClient {
    options: ConnectOptions,
    /// Where members may answer, the likeliest first.
    endpoints: Vec<Endpoint>,
}

/// One member: what the list says, and what it says itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberState {
    /// As the list has it.
    #[serde(flatten)]
    pub member: Member,
    /// Where it answered, or was asked last.
    pub endpoint: Option<String>,
    /// Its own account.
    pub status: Option<Status>,
    /// Why it does not count as healthy; none if it does.
    pub trouble: Option<String>,
    /// The member that answers in its place, if another does.
    #[serde(skip)]
    pub other: Option<Status>,
}

impl MemberState {
    /// Whether it answers and sees a leader.
    pub fn is_healthy(&self) -> bool {
        self.trouble.is_none()
    }

    /// Whether it has ever started.
    pub fn has_started(&self) -> bool {
        !self.member.name.is_empty()
    }

    /// What it finds wrong with itself, alarms aside.
    fn complaints(&self) -> impl Iterator<Item = &str> {
        let errors = self.status.iter().flat_map(|status| &status.errors);
        errors
            .map(String::as_str)
            .filter(|error| !error.contains("alarm:"))
    }
}

/// What was seen of a cluster.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The cluster's id.
    pub cluster_id: ClusterId,
    /// Every member.
    pub members: Vec<MemberState>,
    /// The alarms raised.
    pub alarms: Vec<Alarm>,
    /// The leader, as the member asked sees it.
    pub leader: Option<MemberId>,
    /// Why nothing is committed although there is a leader. Then the alarms are those in the
    /// member's own status.
    pub stuck: Option<String>,
    /// Connections between members that are down, if they were checked: "a to b".
    pub apart: Vec<String>,
    /// A connection to a voting member that answers.
    pub connection: Connection,
    /// How to reach the members again.
    pub client: ClusterClient,
}

impl ClusterClient {
    /// Finds out how to reach the cluster of a node, and returns what the node says about its
    /// member.
    ///
    /// # Errors
    /// As of [`Target::access`]. Of several configured endpoints, none needs to be local.
    pub fn of(
        context: &Context,
        target: &Target,
        detection: &Detection,
    ) -> Result<(Self, EtcdAccess)> {
        let (access, urls) = access(context, target, detection)?;
        let options = connect::options(&access)?;
        let endpoints = urls
            .iter()
            .map(|url| Endpoint::parse(url, access.tls.is_some()))
            .collect::<Result<Vec<_>>>()?;
        Ok((Self { options, endpoints }, access))
    }

    /// The cluster at these endpoints.
    pub(crate) fn at(endpoints: Vec<Endpoint>, options: ConnectOptions) -> Self {
        Self { options, endpoints }
    }

    /// The same with little patience, for what is only shown.
    pub fn hasty(mut self) -> Self {
        self.options.connect_timeout = Duration::from_secs(2);
        self.options.call_timeout = Duration::from_secs(3);
        self
    }

    /// How to connect.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Connects to a voting member, one that sees a leader if there is one. Asks all at once, so a
    /// dead one costs no time while another answers.
    ///
    /// # Errors
    /// The failure of the likeliest endpoint, if none answers.
    async fn connect(&self) -> Result<(Connection, Status)> {
        let mut asking = tokio::task::JoinSet::new();
        for (order, endpoint) in self.endpoints.iter().cloned().enumerate() {
            let options = self.options.clone();
            asking.spawn(async move { (order, ask(&endpoint, &options).await) });
        }
        let mut failures = Vec::new();
        let mut leaderless = None;
        // Dropping the set cancels the other requests.
        while let Some(asked) = asking.join_next().await {
            match asked.doing(Kind::Unexpected, || "asking the members")? {
                (_, Ok((connection, status))) if status.leader.is_some() => {
                    return Ok((connection, status));
                }
                (_, Ok(found)) => {
                    leaderless.get_or_insert(found);
                }
                (order, Err(failure)) => failures.push((order, failure)),
            }
        }
        let likeliest = failures.into_iter().min_by_key(|(order, _)| *order);
        match (leaderless, likeliest) {
            (Some(found), _) => Ok(found),
            (None, Some((_, failure))) => Err(failure),
            (None, None) => Err(Failure::new(
                Kind::Usage,
                "finding etcd's endpoint: none is configured",
            )
            .with(Fact::Missing("endpoint"))),
        }
    }

    /// Asks the cluster for its members, and every member for its status.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if no voting member answers.
    pub async fn survey(&self) -> Result<Survey> {
        let (connection, status) = self.connect().await?;
        let list = listed(&connection, &status).await?;
        connect::refuse_proxy(connection.endpoint(), &list)?;
        let (alarms, stuck) = match status.leader {
            Some(_) => match agreed(&connection).await {
                Ok(alarms) => (alarms, None),
                Err(failure) => (status.alarms_among_errors(), Some(failure.to_string())),
            },
            // Raft answers nobody without a leader.
            None => (status.alarms_among_errors(), None),
        };
        let cluster_id = status.header.cluster_id;
        let probes = probe_members(list, &self.options).await;
        let members: Vec<MemberState> = probes
            .into_iter()
            .map(|probe| state(probe, cluster_id))
            .collect();
        // The next survey may reach the cluster by any of them.
        let mut client = self.clone();
        for member in members.iter().filter(|member| member.is_healthy()) {
            let known = member.endpoint.as_deref().unwrap_or_default();
            if let Ok(endpoint) = Endpoint::parse(known, self.options.tls.is_some())
                && !client.endpoints.contains(&endpoint)
            {
                client.endpoints.push(endpoint);
            }
        }
        Ok(Survey {
            cluster_id,
            members,
            alarms,
            leader: status.leader,
            stuck,
            apart: Vec::new(),
            connection,
            client,
        })
    }
}

/// Connects to a member, and asks for its status; a learner does not count, since it answers little
/// else.
async fn ask(endpoint: &Endpoint, options: &ConnectOptions) -> Result<(Connection, Status)> {
    let connection = Connection::open(endpoint, options).await?;
    let status = connection.status().await?;
    if status.is_learner {
        let what = format!("the member at {endpoint} is a learner, and no other member answers");
        let fact = Fact::Endpoint(endpoint.to_string());
        return Err(Failure::new(Kind::Unreachable, what).with(fact));
    }
    Ok((connection, status))
}

/// The list that a majority agrees on or, without a majority, the member's own.
async fn listed(connection: &Connection, status: &Status) -> Result<Vec<Member>> {
    if status.leader.is_some()
        && let Ok(list) = connection.member_list(Consistency::Linearizable).await
    {
        return Ok(list.members);
    }
    Ok(connection.member_list(Consistency::Local).await?.members)
}

/// The alarms. This is the only request that changes nothing and still goes through raft: a member
/// that answers it has committed and applied an entry. Asked twice, since the leader may just have
/// changed.
async fn agreed(connection: &Connection) -> Result<Vec<Alarm>> {
    let asked = tokio::time::Instant::now();
    match connection.alarms().await {
        Err(_) if asked.elapsed() < RETRY_WITHIN => {
            tokio::time::sleep(RETRY_PAUSE).await;
            connection.alarms().await
        }
        answer => answer,
    }
}

fn state(probe: Probe, cluster_id: ClusterId) -> MemberState {
    let (status, trouble) = match probe.status {
        Ok(status) if status.header.cluster_id != cluster_id => {
            let foreign = format!("it belongs to cluster {}", status.header.cluster_id);
            (Some(status), Some(foreign))
        }
        Ok(status) if status.leader.is_none() => (Some(status), Some("it has no leader".into())),
        Ok(status) => (Some(status), None),
        Err(failure) => (None, Some(failure.to_string())),
    };
    MemberState {
        endpoint: probe.endpoint.map(|endpoint| endpoint.to_string()),
        member: probe.member,
        status,
        trouble,
        other: probe.other,
    }
}

impl Survey {
    /// Looks at the cluster of a node.
    ///
    /// # Errors
    /// As of [`ClusterClient::of`] and [`ClusterClient::survey`]; ends on a request to stop.
    pub async fn take(context: &Context, target: &Target, detection: &Detection) -> Result<Self> {
        let (client, _) = ClusterClient::of(context, target, detection)?;
        context.cancel.guard(client.survey()).await
    }

    /// Looks again.
    ///
    /// # Errors
    /// As of [`ClusterClient::survey`].
    pub async fn again(&self) -> Result<Self> {
        self.client.survey().await
    }

    /// The members as the list has them.
    pub fn list(&self) -> Vec<Member> {
        let members = self.members.iter();
        members.map(|state| state.member.clone()).collect()
    }

    /// What the arithmetic of votes needs.
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |state: &MemberState| Standing {
            id: state.member.id.0,
            votes: !state.member.is_learner,
            started: state.has_started(),
            healthy: state.is_healthy(),
        };
        self.members.iter().map(standing).collect()
    }

    /// How it stands.
    pub fn tally(&self) -> Tally {
        Tally::of(&self.standings())
    }

    /// The problems, one sentence each: voting members that do not answer or report errors, and
    /// alarms.
    pub fn problems(&self) -> Vec<String> {
        let voters = || self.members.iter().filter(|state| !state.member.is_learner);
        let silent = voters().filter_map(|state| {
            let trouble = state.trouble.as_ref()?;
            Some(format!("member {}: {trouble}", state.member.label()))
        });
        let complaining = voters().flat_map(|state| {
            let label = state.member.label();
            state
                .complaints()
                .filter(|_| state.is_healthy())
                .map(move |error| format!("member {label} reports: {error}"))
                .collect::<Vec<_>>()
        });
        let alarms = self.alarms.iter().map(|alarm| {
            let member = self.find(alarm.member_id);
            let label = member.map_or(alarm.member_id.to_string(), |state| state.member.label());
            format!("member {label} raised {}", alarm.kind)
        });
        let stuck = self.stuck.iter().map(|why| stuck(why));
        let apart = self.apart.iter();
        let apart = apart.map(|which| format!("the connection from {which} is down"));
        silent
            .chain(complaining)
            .chain(alarms)
            .chain(stuck)
            .chain(apart)
            .collect()
    }

    /// A member by its id.
    pub fn find(&self, id: MemberId) -> Option<&MemberState> {
        self.members.iter().find(|state| state.member.id == id)
    }

    /// Connects to a member that answered.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub async fn connect_to(&self, state: &MemberState) -> Result<Connection> {
        let url = state.endpoint.as_deref().unwrap_or_default();
        let endpoint = Endpoint::parse(url, self.client.options.tls.is_some())
            .map_err(|failure| failure.as_kind(Kind::Unreachable))?;
        Connection::open(&endpoint, &self.client.options).await
    }

    /// A connection to a healthy voting member other than this one; otherwise the one that exists.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub async fn connect_to_other_than(&self, id: MemberId) -> Result<Connection> {
        let other = self
            .members
            .iter()
            .find(|state| state.member.id != id && state.is_healthy() && !state.member.is_learner);
        match other {
            Some(state) => self.connect_to(state).await,
            None => Ok(self.connection.clone()),
        }
    }
}

/// What is said of a cluster that commits nothing.
pub fn stuck(why: &str) -> String {
    format!("the cluster commits nothing although it has a leader: {why}")
}

/// The node's access to etcd, and every URL a member may answer at.
fn access(
    context: &Context,
    target: &Target,
    detection: &Detection,
) -> Result<(EtcdAccess, Vec<String>)> {
    let told = target.overrides.endpoints.as_ref();
    if let Some(list) = told.filter(|list| list.value.len() > 1) {
        // Any member serves; the first with TLS, if any, decides which certificates are used.
        let first = list
            .value
            .iter()
            .find(|url| url.starts_with("https://"))
            .or(list.value.first());
        let mut one = target.clone();
        one.overrides.endpoints =
            first.map(|url| Sourced::new(vec![url.clone()], list.source.clone()));
        return Ok((one.access(context, detection)?, list.value.clone()));
    }
    let access = target.access(context, detection)?;
    let mut urls = vec![access.endpoint.value.clone()];
    for url in &access.member_endpoints.value {
        if !urls.contains(url) {
            urls.push(url.clone());
        }
    }
    Ok((access, urls))
}

/// Sleeps unless the request to stop comes first.
///
/// # Errors
/// [`Kind::Interrupted`].
pub(crate) async fn pause(context: &Context, time: Duration) -> Result<()> {
    let sleep = async {
        tokio::time::sleep(time).await;
        Ok(())
    };
    context.cancel.guard(sleep).await
}
