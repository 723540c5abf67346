//! A connection to exactly one etcd member, and the calls that a backup makes over it.
//!
//! Every call has a bound of its own. A failure tells the endpoint, what was asked and the true
//! cause (refused, timed out, whose certificate was not accepted and why), never just that the
//! transport failed.
//!
//! The calls are those of the `etcd_client` crate, run over a channel of ours, which does the
//! dialling and TLS, carries the log-in's token and keeps the causes of errors. A call that does
//! not go through it says why.

mod cause;
mod change;
mod connection;
mod endpoint;
mod grpc;
mod inspect;
mod messages;
mod options;
mod probe;
mod proof;
mod refusal;
mod tls;
mod transport;
mod types;
mod watch;
mod write;

pub use self::change::{AddedMember, NewMember};
pub use self::connection::Connection;
pub use self::endpoint::Endpoint;
pub use self::inspect::{
    Knock, Metrics, PeerSays, knock, metrics, peer_members, presented_certificates,
};
pub use self::options::{ConnectOptions, Credentials};
pub use self::probe::probe_members;
pub use self::refusal::{NotChanged, Refusal};
pub use self::tls::{Pem, TlsConfig};
pub use self::types::{
    Alarm, AlarmKind, AuthStatus, Consistency, HashKv, HashKvAnswer, Header, KeyValue, MemberList,
    Probe, Range, Status,
};

pub use self::watch::{Event, Watch, Watched};

pub use crate::etcd::ids::MemberId as Id;
pub use crate::etcd::membership::Member;

pub(crate) use self::cause::seconds;
pub(crate) use self::connection::SnapshotReply;
pub(crate) use self::grpc::PREFIX;
