//! Every member asked for its status at the same time.

use super::cause::{Cause, Phase};
use super::connection::{Connection, failure};
use super::endpoint::Endpoint;
use super::options::ConnectOptions;
use super::types::Probe;
use crate::error::{Failure, Kind};
use crate::etcd::membership::Member;

/// Asks every member for its status at the same time, each over its own connection, trying its
/// client URLs in turn within one bound (the connection's and the call's together).
pub async fn probe_members(members: Vec<Member>, options: &ConnectOptions) -> Vec<Probe> {
    let mut running = Vec::with_capacity(members.len());
    for member in members {
        let options = options.clone();
        running.push(tokio::spawn(probe(member, options)));
    }
    let mut probes = Vec::with_capacity(running.len());
    for task in running {
        // A task neither panics nor is cancelled but with the whole runtime.
        if let Ok(probe) = task.await {
            probes.push(probe);
        }
    }
    probes
}

async fn probe(member: Member, options: ConnectOptions) -> Probe {
    let mut probe = Probe {
        endpoint: None,
        other: None,
        status: Err(Failure::new(
            Kind::Unreachable,
            format!(
                "asking member {}: it has no client URL because it never started",
                member.label()
            ),
        )),
        member,
    };
    let bound = options.connect_timeout.saturating_add(options.call_timeout);
    let deadline = tokio::time::Instant::now() + bound;
    for url in &probe.member.client_urls {
        let endpoint = match Endpoint::parse(url, options.tls.is_some()) {
            Ok(endpoint) => endpoint,
            Err(failure) => {
                probe.status = Err(failure.as_kind(Kind::Unreachable));
                continue;
            }
        };
        let asked = tokio::time::timeout_at(deadline, async {
            Connection::open(&endpoint, &options).await?.status().await
        })
        .await;
        let late = || {
            let cause = Cause::Timeout {
                phase: Phase::Call,
                after: bound,
            };
            Err(failure(&endpoint, cause).doing(format!("asking etcd at {endpoint}")))
        };
        probe.status = asked.unwrap_or_else(|_| late());
        probe.endpoint = Some(endpoint);
        if probe.status.is_ok() {
            break;
        }
    }
    if let Ok(status) = &probe.status
        // As behind a load balancer, or at an address that another member has by now.
        && status.header.member_id != probe.member.id
    {
        let failure = Failure::new(
            Kind::Unreachable,
            format!(
                "asking member {}: another member answers at its client URL, {}",
                probe.member.label(),
                status.header.member_id
            ),
        );
        probe.other = std::mem::replace(&mut probe.status, Err(failure)).ok();
    }
    probe
}
