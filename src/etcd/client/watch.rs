//! A watch of the whole key space, and the leases that go with it.
//!
//! Not through `etcd_client`, which hides whether a response is the fragment of one, and cannot ask over
//! a channel of ours for `hasleader`: without that a member that has lost its leader is silent for ever.

use bytes::Bytes;
use futures_util::stream;
use prost::Message;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::cause::Cause;
use super::connection::{Connection, failure};
use super::endpoint::Endpoint;
use super::messages;
use super::types::Header;
use crate::error::{Result, cut};

/// The longest response that is decoded: a fragment has about 2 MiB, or one event more.
const RESPONSE_LIMIT: usize = 64 << 20;
/// The most bytes that fragments of one response are joined to.
const JOINED_LIMIT: usize = 256 << 20;
/// Every key is above this one, which as the end of a range means all.
const ALL: &[u8] = b"\0";

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether the key was deleted: then only it and the revision say anything.
    pub deleted: bool,
    /// The key.
    pub key: Bytes,
    /// The value that was put.
    pub value: Bytes,
    /// Revision at which this life of the key began.
    pub create_revision: i64,
    /// Revision of this change.
    pub mod_revision: i64,
    /// Puts since the key was created, this one included.
    pub version: i64,
    /// The lease it is attached to; 0 for none.
    pub lease: i64,
}

/// One response of a watch, joined of its fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// Changes; each revision among them is whole.
    Events {
        /// Where the server stood.
        header: Header,
        /// The changes, ascending.
        events: Vec<Event>,
    },
    /// Nothing new: the watch has seen everything up to the header's revision.
    Progress(Header),
    /// The watch cannot begin: the revisions up to this one are compacted.
    Compacted(i64),
    /// The server has ended it, and why.
    Cancelled(String),
}

/// A watch of all keys.
#[derive(Debug)]
pub struct Watch {
    endpoint: Endpoint,
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    joined: Vec<Event>,
    bytes: usize,
}

impl Connection {
    /// Watches every key from a revision on.
    ///
    /// # Errors
    /// [`Kind::Unreachable`](crate::error::Kind::Unreachable), also if the member has no leader.
    pub async fn watch(&self, start_revision: i64) -> Result<Watch> {
        let (requests, mut queue) = mpsc::channel(4);
        let create = WatchCreateRequest {
            key: ALL.to_vec(),
            range_end: ALL.to_vec(),
            start_revision,
            progress_notify: true,
            // What was written at once can be larger than one gRPC message.
            fragment: true,
        };
        let first = WatchRequest {
            union: Some(Union::Create(create)),
        };
        // The queue is empty and has room.
        let _ = requests.try_send(first);
        let outgoing = stream::poll_fn(move |context| queue.poll_recv(context));
        let mut request = Request::new(outgoing);
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        let call = async {
            let caller = self.caller();
            let mut grpc = Grpc::new(caller).max_decoding_message_size(RESPONSE_LIMIT);
            let ready = grpc.ready().await;
            ready.map_err(|error| Cause::Protocol(error.to_string()))?;
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            let codec: ProstCodec<WatchRequest, WatchResponse> = ProstCodec::default();
            let reply = grpc.streaming(request, path, codec).await;
            reply.map_err(|status| Cause::of_status(&status))
        };
        let responses = self.bounded(call).await;
        let responses = responses.map_err(|cause| self.failed(cause, "to watch its keys"))?;
        Ok(Watch {
            endpoint: self.endpoint().clone(),
            requests,
            responses: responses.into_inner(),
            joined: Vec::new(),
            bytes: 0,
        })
    }

    /// The ids of all leases.
    ///
    /// # Errors
    /// [`Kind::Unreachable`](crate::error::Kind::Unreachable).
    pub async fn leases(&self) -> Result<Vec<i64>> {
        let mut leases = self.client.lease_client();
        let reply = self.ask("for its leases", leases.leases()).await?;
        Ok(reply
            .leases()
            .iter()
            .map(etcd_client::LeaseStatus::id)
            .collect())
    }

    /// The time to live that a lease was granted, in seconds; `None` if there is no such lease.
    ///
    /// # Errors
    /// [`Kind::Unreachable`](crate::error::Kind::Unreachable).
    pub async fn granted_ttl(&self, lease: i64) -> Result<Option<i64>> {
        let mut leases = self.client.lease_client();
        let asked = leases.time_to_live(lease, None);
        let reply = self.ask("for a lease's time to live", asked).await?;
        // A lease that is gone has -1.
        Ok((reply.ttl() >= 0 && reply.granted_ttl() > 0).then_some(reply.granted_ttl()))
    }
}

impl Watch {
    /// Asks for a word on where the watch stands, if the last request was sent.
    pub fn ask_for_progress(&self) {
        let request = WatchRequest {
            union: Some(Union::Progress(WatchProgressRequest {})),
        };
        // One that is still in the queue will do.
        let _ = self.requests.try_send(request);
    }

    /// The next response. May be dropped while it waits, and loses nothing.
    ///
    /// # Errors
    /// [`Kind::Unreachable`](crate::error::Kind::Unreachable) once the connection is lost.
    pub async fn next(&mut self) -> Result<Watched> {
        let joined = self.joined().await;
        joined.map_err(|cause| {
            let doing = format!("watching the keys of etcd at {}", self.endpoint);
            failure(&self.endpoint, cause).doing(doing)
        })
    }

    async fn joined(&mut self) -> std::result::Result<Watched, Cause> {
        loop {
            let response = self.responses.message().await;
            let response = response.map_err(|status| Cause::of_status(&status))?;
            let Some(response) = response else {
                return Err(Cause::Closed);
            };
            if response.canceled {
                return Ok(match response.compact_revision {
                    compacted if compacted > 0 => Watched::Compacted(compacted),
                    _ => Watched::Cancelled(cut(response.cancel_reason)),
                });
            }
            for event in response.events {
                let event = Event::try_from(event)?;
                self.bytes += event.key.len() + event.value.len() + size_of::<Event>();
                self.joined.push(event);
            }
            if self.bytes > JOINED_LIMIT {
                let what = format!("one response has more than {JOINED_LIMIT} bytes");
                return Err(Cause::Protocol(what));
            }
            // The first answer only says that the watch exists.
            if response.fragment || response.created && self.joined.is_empty() {
                continue;
            }
            let header = response.header.unwrap_or_default().into();
            self.bytes = 0;
            let events = std::mem::take(&mut self.joined);
            return Ok(match events.is_empty() {
                true => Watched::Progress(header),
                false => Watched::Events { header, events },
            });
        }
    }
}

impl TryFrom<WatchEvent> for Event {
    type Error = Cause;

    fn try_from(event: WatchEvent) -> std::result::Result<Self, Cause> {
        let deleted = match event.kind {
            0 => false,
            1 => true,
            other => return Err(Cause::Protocol(format!("an event of kind {other}"))),
        };
        let kv = event.kv;
        let kv = kv.ok_or_else(|| Cause::Protocol("an event without a key".to_owned()))?;
        Ok(Self {
            deleted,
            key: kv.key,
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
    #[prost(bool, tag = "4")]
    progress_notify: bool,
    #[prost(bool, tag = "8")]
    fragment: bool,
}

#[derive(Clone, PartialEq, Message)]
struct WatchProgressRequest {}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(oneof = "Union", tags = "1, 3")]
    union: Option<Union>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Union {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

#[derive(Clone, PartialEq, Message)]
struct StoredKeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(int64, tag = "2")]
    create_revision: i64,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(int64, tag = "4")]
    version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
    #[prost(int64, tag = "6")]
    lease: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WatchEvent {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    kv: Option<StoredKeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<messages::Header>,
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    canceled: bool,
    #[prost(int64, tag = "5")]
    compact_revision: i64,
    #[prost(string, tag = "6")]
    cancel_reason: String,
    #[prost(bool, tag = "7")]
    fragment: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<WatchEvent>,
}
