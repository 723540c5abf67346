//! The connection to one member, and the calls that ask.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, GetResponse};
use hyper_util::rt::TokioIo;
use prost::Message;
use tonic::Code;
use tonic::codegen::http::{HeaderValue, Uri};
use tonic::transport::Endpoint as Target;
use tower::util::BoxCloneSyncService;

use super::cause::{Cause, Phase};
use super::endpoint::Endpoint;
use super::grpc::{Caller, Reply};
use super::messages;
use super::options::{ConnectOptions, Credentials};
use super::tls::TlsConfig;
use super::transport::{self, Dialler, NotedCause};
use super::types::{
    Alarm, AuthStatus, Consistency, HashKvAnswer, KeyValue, MemberList, Range, Status,
};
use crate::error::{Fact, Failure, Kind, Result};

/// The largest reply to a call that is not a stream.
const REPLY_LIMIT: usize = 16 << 20;

/// A connection to one member. Clones share it; it reconnects by itself before a call, should it
/// have broken since the last one.
#[derive(Clone)]
pub struct Connection {
    endpoint: Endpoint,
    caller: Caller,
    /// Over the same channel as `caller`.
    pub(super) client: etcd_client::Client,
    call_timeout: Duration,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, and logs in where credentials are given.
    ///
    /// A server that wants a client certificate may say so only at the first call
    /// (TLS 1.3).
    ///
    /// # Errors
    /// [`Kind::Usage`] for an `https` endpoint without [`ConnectOptions::tls`], and
    /// [`Kind::Unreachable`] for everything on the way.
    pub async fn open(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Self> {
        let doing = format!("connecting to etcd at {endpoint}");
        let opened = Self::connect(endpoint, options).await;
        let mut connection = opened.map_err(|failure| failure.doing(doing))?;
        if let Some(credentials) = &options.credentials {
            connection.log_in(credentials).await?;
        }
        Ok(connection)
    }

    async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Self> {
        let noted = Arc::new(NotedCause::default());
        let identity = options
            .tls
            .as_ref()
            .and_then(TlsConfig::described_identity)
            .map(str::to_owned);
        let dialler = Dialler {
            endpoint: endpoint.clone(),
            tls: dial_tls(endpoint, options, &noted)?,
            identity: identity.clone(),
            timeout: options.connect_timeout,
            noted: noted.clone(),
        };
        let unreachable = |cause: Cause| failure(endpoint, cause);
        let target = target(endpoint, options)
            .map_err(|error| unreachable(Cause::Protocol(error.to_string())))?;
        let connector = Connector(dialler);
        let channel = target
            .connect_with_connector(connector)
            .await
            .map_err(|error| {
                unreachable(
                    noted
                        .cause()
                        .unwrap_or_else(|| Cause::of_chain(&error, identity.as_deref())),
                )
            })?;
        let caller = Caller {
            channel,
            noted,
            identity,
            token: None,
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            client: client(&caller).await.map_err(unreachable)?,
            caller,
            call_timeout: options.call_timeout,
        })
    }

    /// Asks for a token, and sends it with every call from then on. The crate would do both by
    /// itself, but keeps its token from the calls that do not go through it.
    async fn log_in(&mut self, credentials: &Credentials) -> Result<()> {
        let Credentials { name, password } = credentials.clone();
        let doing = format!("to log in as {name:?}");
        let mut auth = self.client.auth_client();
        let reply = self.ask(&doing, auth.authenticate(name, password)).await?;
        let mut token = HeaderValue::from_str(reply.token()).map_err(|_| {
            let cause = Cause::Protocol("the token is not printable".to_owned());
            self.failed(cause, &doing)
        })?;
        // HTTP/2 keeps it out of its table of headers, and debug output hides it.
        token.set_sensitive(true);
        self.caller.token = Some(token);
        self.client = client(&self.caller)
            .await
            .map_err(|cause| self.failed(cause, &doing))?;
        Ok(())
    }

    /// The same connection with another bound on each call, for one that takes long.
    #[must_use]
    pub fn with_call_timeout(&self, call_timeout: Duration) -> Self {
        Self {
            call_timeout,
            ..self.clone()
        }
    }

    /// What calls by their path go through.
    pub(super) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The member's own view of itself.
    ///
    /// # Errors
    /// [`Kind::Unreachable`], as of every call here.
    pub async fn status(&self) -> Result<Status> {
        let mut maintenance = self.client.maintenance_client();
        let reply = self.ask("for its status", maintenance.status()).await?;
        Ok(reply.into())
    }

    /// The cluster's members.
    ///
    /// The linearizable list does not go through `etcd_client`, for that leaves the request's
    /// `linearizable` false and offers no way to set it.
    ///
    /// # Errors
    /// [`Kind::Unreachable`]; a linearizable list needs a quorum.
    pub async fn member_list(&self, consistency: Consistency) -> Result<MemberList> {
        const WHAT: &str = "for the cluster's members";
        let list: MemberList = match consistency {
            Consistency::Local => {
                let mut cluster = self.client.cluster_client();
                self.ask(WHAT, cluster.member_list()).await?.into()
            }
            Consistency::Linearizable => {
                let request = messages::MemberListRequest { linearizable: true };
                let path = "/etcdserverpb.Cluster/MemberList";
                let list: messages::MemberListResponse =
                    self.ask_by_path(WHAT, path, &request).await?;
                list.into()
            }
        };
        // Every member is asked and named: a list without bounds would never end.
        match list.check() {
            Ok(()) => Ok(list),
            Err(what) => Err(self.failed(Cause::Protocol(what), WHAT)),
        }
    }

    /// The alarms raised in the cluster.
    ///
    /// Not through `etcd_client`: it takes the number that stands for an alarm's kind as its own
    /// enum without a look, which for a kind of a newer server is undefined behaviour.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub async fn alarms(&self) -> Result<Vec<Alarm>> {
        let path = "/etcdserverpb.Maintenance/Alarm";
        let reply: messages::AlarmResponse = self
            .ask_by_path("for the alarms raised", path, &messages::AlarmRequest {})
            .await?;
        Ok(reply.alarms.into_iter().map(Alarm::from).collect())
    }

    /// The state of authentication. etcd 3.5 and newer answer, after a round of raft.
    ///
    /// # Errors
    /// [`Kind::Unreachable`]
    pub async fn auth_status(&self) -> Result<AuthStatus> {
        let path = "/etcdserverpb.Auth/AuthStatus";
        let reply: messages::AuthStatusResponse = self
            .ask_by_path("for the state of authentication", path, &messages::Empty {})
            .await?;
        Ok(AuthStatus {
            enabled: reply.enabled,
            revision: reply.auth_revision,
        })
    }

    /// The member's hash over its key-value store up to a revision (0: its newest). The member
    /// reads its whole store for that; the bound on the call should be of that order.
    ///
    /// # Errors
    /// [`Kind::Unreachable`]. That the member no longer or not yet has the revision is an answer.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvAnswer> {
        let mut maintenance = self.client.maintenance_client();
        match self
            .bounded(of_library(maintenance.hash_kv(revision)))
            .await
        {
            Ok(reply) => Ok(HashKvAnswer::Hash(reply.into())),
            Err(Cause::Answer {
                code: Code::OutOfRange,
                message,
            }) if message.contains("compacted") => Ok(HashKvAnswer::Compacted),
            Err(Cause::Answer {
                code: Code::OutOfRange,
                message,
            }) if message.contains("future") => Ok(HashKvAnswer::Future),
            Err(cause) => Err(self.failed(cause, &format!("for the hash at revision {revision}"))),
        }
    }

    /// One key.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub async fn get(&self, key: &[u8], consistency: Consistency) -> Result<Option<KeyValue>> {
        let mut range = self.range(key, GetOptions::new(), consistency).await?;
        Ok(range.take_kvs().into_iter().next().map(KeyValue::from))
    }

    /// The keys that begin with a prefix, ascending, at most `limit` of them (0: all). The reply
    /// must not be longer than 16 MiB.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub async fn get_prefix(
        &self,
        prefix: &[u8],
        limit: u32,
        consistency: Consistency,
    ) -> Result<Range> {
        let options = GetOptions::new().with_prefix().with_limit(limit.into());
        Ok(self.range(prefix, options, consistency).await?.into())
    }

    async fn range(
        &self,
        key: &[u8],
        options: GetOptions,
        consistency: Consistency,
    ) -> Result<GetResponse> {
        let options = match consistency {
            Consistency::Linearizable => options,
            Consistency::Local => options.with_serializable(),
        };
        let doing = format!("for the key {:?}", String::from_utf8_lossy(key));
        let mut kv = self
            .client
            .kv_client()
            .max_decoding_message_size(REPLY_LIMIT);
        self.ask(&doing, kv.get(key, Some(options))).await
    }

    /// Begins a snapshot's stream.
    ///
    /// Not through `etcd_client`, whose generated decoder gathers each message whole and copies it
    /// twice: this is the one call where speed counts (docs/performance.md).
    pub(crate) async fn snapshot(&self) -> Result<SnapshotReply> {
        let call = self
            .caller
            .call("/etcdserverpb.Maintenance/Snapshot", &messages::Empty {});
        match self.bounded(call).await {
            Ok(reply) => Ok(SnapshotReply {
                endpoint: self.endpoint.clone(),
                reply,
            }),
            Err(cause) => Err(self.failed(cause, "for a snapshot")),
        }
    }

    /// Awaits a call of the crate's.
    pub(super) async fn ask<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T> {
        self.bounded(of_library(call))
            .await
            .map_err(|cause| self.failed(cause, what))
    }

    /// Makes a call that the crate cannot make.
    async fn ask_by_path<M: Message + Default>(
        &self,
        what: &str,
        path: &str,
        request: &impl Message,
    ) -> Result<M> {
        self.bounded(self.caller.unary(path, request, REPLY_LIMIT))
            .await
            .map_err(|cause| self.failed(cause, what))
    }

    pub(super) async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, Cause> {
        match tokio::time::timeout(self.call_timeout, call).await {
            Ok(reply) => reply,
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> Cause {
        Cause::Timeout {
            phase: Phase::Call,
            after: self.call_timeout,
        }
    }

    pub(super) fn failed(&self, cause: Cause, what: &str) -> Failure {
        failure(&self.endpoint, cause).doing(format!("asking etcd at {} {what}", self.endpoint))
    }
}

/// A snapshot's stream, as HTTP/2 delivers it.
pub(crate) struct SnapshotReply {
    endpoint: Endpoint,
    reply: Reply,
}

impl SnapshotReply {
    /// The next piece; none at the end that the server has declared to be good.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        self.reply
            .next()
            .await
            .map_err(|cause| failure(&self.endpoint, cause))
    }

    /// Where it comes from.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// What TLS needs to dial an endpoint; none for plain HTTP.
type DialTls = Option<(
    Arc<tokio_rustls::rustls::ClientConfig>,
    tokio_rustls::rustls::pki_types::ServerName<'static>,
)>;

fn dial_tls(
    endpoint: &Endpoint,
    options: &ConnectOptions,
    noted: &Arc<NotedCause>,
) -> Result<DialTls> {
    if !endpoint.is_tls() {
        return Ok(None);
    }
    let Some(tls) = &options.tls else {
        return Err(Failure::new(
            Kind::Usage,
            "it speaks TLS, and no trusted CA is configured",
        )
        .with(Fact::Missing("ca"))
        .with(endpoint.fact()));
    };
    let name = tls.name_for(endpoint.host().unwrap_or_default())?;
    let config = tls
        .client_config(noted.clone())
        .map_err(|error| Failure::wrap(Kind::Usage, error, "setting up TLS"))?;
    Ok(Some((Arc::new(config), name)))
}

/// HTTP/2's settings for an endpoint. TLS is ours, so the library gets no settings for it; what it sends
/// as scheme and authority is still the true one.
fn target(
    endpoint: &Endpoint,
    options: &ConnectOptions,
) -> std::result::Result<Target, Box<dyn std::error::Error + Send + Sync>> {
    let origin: Uri = match endpoint.host() {
        Some(_) => endpoint.as_str().parse()?,
        None => Uri::from_static("http://localhost"),
    };
    let authority = origin.authority().map_or("localhost", |a| a.as_str());
    Ok(Target::from_shared(format!("http://{authority}"))?
        .origin(origin)
        .user_agent(concat!("etcd-dr/", env!("CARGO_PKG_VERSION")))?
        .initial_stream_window_size(options.window)
        .initial_connection_window_size(options.window))
}

/// The service that the HTTP/2 library calls to be connected.
struct Connector(Dialler);

impl tonic::codegen::Service<Uri> for Connector {
    type Response = TokioIo<transport::Watched<Box<dyn transport::Stream>>>;
    type Error = Cause;
    type Future = tonic::codegen::BoxFuture<Self::Response, Cause>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::result::Result<(), Cause>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialler = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(dialler.dial().await?)) })
    }
}

/// The crate's client over our channel.
async fn client(caller: &Caller) -> Result<etcd_client::Client, Cause> {
    let channel = etcd_client::Channel::Custom(BoxCloneSyncService::new(caller.clone()));
    of_library(etcd_client::Client::from_channel(channel, None)).await
}

pub(super) async fn of_library<T>(
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Cause> {
    call.await.map_err(|error| Cause::of_library(&error))
}

pub(super) fn failure(endpoint: &Endpoint, cause: Cause) -> Failure {
    let file = match &cause {
        Cause::ServerCertificate(certificate) => certificate.ca.first().cloned(),
        _ => None,
    };
    let user = cause.is_about_the_user();
    let mut failure = Failure::new(Kind::Unreachable, cause).with(endpoint.fact());
    if user {
        failure = failure.with(Fact::Missing("etcd-user"));
    }
    match file {
        Some(path) => failure.with(Fact::Path(path)),
        None => failure,
    }
}
