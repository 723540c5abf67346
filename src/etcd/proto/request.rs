//! What an entry of the log asks the server to do: `InternalRaftRequest` of `raft_internal.proto`,
//! or the v2 `Request` of `etcdserver.proto`, by which releases up to 3.5 still publish a member's
//! attributes and the cluster's version.

use super::{Fault, Field, Fields, WireError};

/// A request of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// An entry without data, as a new leader proposes it.
    Empty,
    /// A request of the v3 API.
    V3(RaftRequest<'a>),
    /// A request of the v2 store.
    V2(V2Request<'a>),
}

impl<'a> Request<'a> {
    /// Reads the data of a normal entry, as etcd does: what is not an `InternalRaftRequest` is a v2
    /// request.
    pub fn decode(data: &'a [u8]) -> Result<Self, WireError> {
        if data.is_empty() {
            return Ok(Self::Empty);
        }
        match RaftRequest::decode(data) {
            Ok(request) => Ok(match request.kind {
                RequestKind::V2 => Self::V2(V2Request::decode(Fields::new(request.body))?),
                _ => Self::V3(request),
            }),
            Err(fault) => V2Request::decode(Fields::new(data))
                .map(Self::V2)
                .map_err(|_| fault),
        }
    }

    /// What the request is, in a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::V3(request) => request.kind.name(),
            Self::V2(_) => RequestKind::V2.name(),
        }
    }
}

/// Which request an [`RaftRequest`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// A request of the v2 store, wrapped.
    V2,
    /// A range.
    Range,
    /// A put.
    Put,
    /// A deletion of a range.
    DeleteRange,
    /// A transaction.
    Txn,
    /// A compaction.
    Compaction,
    /// The grant of a lease.
    LeaseGrant,
    /// The revocation of a lease.
    LeaseRevoke,
    /// An alarm raised, cleared or listed.
    Alarm,
    /// Remaining times of leases.
    LeaseCheckpoint,
    /// Anything about users, roles and permissions (fields 1000 to 1299).
    Auth(u32),
    /// The cluster's version.
    ClusterVersionSet,
    /// A member's name and client URLs.
    MemberAttributesSet,
    /// The state of a downgrade.
    DowngradeSet,
    /// No request field at all.
    None,
    /// A request that this release does not know.
    Other(u32),
}

impl RequestKind {
    fn of_field(field: u32) -> Self {
        match field {
            2 => Self::V2,
            3 => Self::Range,
            4 => Self::Put,
            5 => Self::DeleteRange,
            6 => Self::Txn,
            7 => Self::Compaction,
            8 => Self::LeaseGrant,
            9 => Self::LeaseRevoke,
            10 => Self::Alarm,
            11 => Self::LeaseCheckpoint,
            1000..=1299 => Self::Auth(field),
            1300 => Self::ClusterVersionSet,
            1301 => Self::MemberAttributesSet,
            1302 => Self::DowngradeSet,
            other => Self::Other(other),
        }
    }

    /// The kind in a word or two.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Range => "range",
            Self::Put => "put",
            Self::DeleteRange => "delete range",
            Self::Txn => "txn",
            Self::Compaction => "compaction",
            Self::LeaseGrant => "lease grant",
            Self::LeaseRevoke => "lease revoke",
            Self::Alarm => "alarm",
            Self::LeaseCheckpoint => "lease checkpoint",
            Self::Auth(_) => "auth",
            Self::ClusterVersionSet => "cluster version",
            Self::MemberAttributesSet => "member attributes",
            Self::DowngradeSet => "downgrade",
            Self::None => "none",
            Self::Other(_) => "unknown",
        }
    }

    /// Whether applying it can make a new key-value revision.
    pub const fn writes_keys(self) -> bool {
        matches!(
            self,
            Self::Put | Self::DeleteRange | Self::Txn | Self::LeaseRevoke
        )
    }
}

/// An `InternalRaftRequest`: id=1, header=100 {id=1, username=2, auth_revision=3}, and one of the
/// requests, whose bytes are left as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftRequest<'a> {
    /// The request's id; in the header since 3.1.
    pub id: u64,
    /// The user on whose behalf it runs; empty without authentication.
    pub username: &'a str,
    /// The revision of the auth store it was checked at.
    pub auth_revision: u64,
    /// Which request it is.
    pub kind: RequestKind,
    /// The request's own message.
    pub body: &'a [u8],
}

impl<'a> RaftRequest<'a> {
    /// Reads a request.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut request = RaftRequest {
            id: 0,
            username: "",
            auth_revision: 0,
            kind: RequestKind::None,
            body: &[],
        };
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 if request.id == 0 => request.id = field.u64()?,
                1 => {}
                100 => request.header(&field)?,
                number => {
                    let kind = RequestKind::of_field(number);
                    if matches!(kind, RequestKind::Other(_)) && field.bytes().is_err() {
                        continue;
                    }
                    let body = field.bytes()?;
                    if kind == RequestKind::V2 {
                        // A bare v2 request has its method here; only a whole message is a
                        // wrapped one.
                        V2Request::decode(field.message()?)?;
                    }
                    (request.kind, request.body) = (kind, body);
                }
            }
        }
        Ok(request)
    }

    fn header(&mut self, field: &Field<'a>) -> Result<(), WireError> {
        for inner in field.message()? {
            let inner = inner?;
            match inner.number {
                1 => self.id = inner.u64()?,
                2 => self.username = inner.text()?,
                3 => self.auth_revision = inner.u64()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The key of a put, or the first key of a deletion or a range.
    pub fn key(&self) -> Option<&'a [u8]> {
        match self.kind {
            RequestKind::Put | RequestKind::DeleteRange | RequestKind::Range => {
                Fields::new(self.body)
                    .filter_map(Result::ok)
                    .find(|field| field.number == 1)
                    .and_then(|field| field.bytes().ok())
            }
            _ => None,
        }
    }

    /// The revision that a compaction compacts at.
    pub fn compacts_at(&self) -> Option<i64> {
        if self.kind != RequestKind::Compaction {
            return None;
        }
        Fields::new(self.body)
            .filter_map(Result::ok)
            .filter(|field| field.number == 1)
            .find_map(|field| field.i64().ok())
    }
}

/// A v2 request: id=1, method=2, path=3, value=4, prev_value=6, prev_index=7, prev_exist=8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V2Request<'a> {
    /// The request's id.
    pub id: u64,
    /// `PUT`, `DELETE`, `SYNC`…
    pub method: &'a str,
    /// The path in the v2 store.
    pub path: &'a str,
    /// The value to be stored.
    pub value: &'a str,
    /// Whether it depends on what is there.
    pub conditional: bool,
}

impl<'a> V2Request<'a> {
    /// Reads the fields of a request; one without a method is not a request.
    pub fn decode(fields: Fields<'a>) -> Result<Self, WireError> {
        let mut request = V2Request {
            id: 0,
            method: "",
            path: "",
            value: "",
            conditional: false,
        };
        let mut end = 0;
        for field in fields {
            let field = field?;
            end = field.offset;
            match field.number {
                1 => request.id = field.u64()?,
                2 => request.method = field.text()?,
                3 => request.path = field.text()?,
                4 => request.value = field.text()?,
                6 => request.conditional |= !field.bytes()?.is_empty(),
                7 => request.conditional |= field.u64()? > 0,
                8 => request.conditional = true,
                _ => {}
            }
        }
        if request.method.is_empty() {
            return Err(WireError {
                offset: end,
                fault: Fault::Truncated,
            });
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{put_bytes, put_u64};
    use super::*;

    #[test]
    fn a_put_is_named_and_its_key_read() {
        let mut put = Vec::new();
        put_bytes(&mut put, 1, b"foo");
        put_bytes(&mut put, 2, b"bar");
        let mut header = Vec::new();
        put_u64(&mut header, 1, 77);
        put_bytes(&mut header, 2, b"root");
        let mut data = Vec::new();
        put_bytes(&mut data, 4, &put);
        put_bytes(&mut data, 100, &header);
        let Ok(Request::V3(request)) = Request::decode(&data) else {
            panic!("not a v3 request");
        };
        assert_eq!(request.kind, RequestKind::Put);
        assert_eq!((request.id, request.username), (77, "root"));
        assert_eq!(request.key(), Some(&b"foo"[..]));
        assert!(request.kind.writes_keys());
    }

    #[test]
    fn a_bare_v2_request_is_told_from_a_wrapped_one() {
        let mut bare = Vec::new();
        put_u64(&mut bare, 1, 9);
        put_bytes(&mut bare, 2, b"PUT");
        put_bytes(&mut bare, 3, b"/0/members/1/attributes");
        put_bytes(&mut bare, 4, b"{}");
        let Ok(Request::V2(request)) = Request::decode(&bare) else {
            panic!("not a v2 request");
        };
        assert_eq!(request.path, "/0/members/1/attributes");

        let mut wrapped = Vec::new();
        put_bytes(&mut wrapped, 2, &bare);
        let Ok(Request::V2(inner)) = Request::decode(&wrapped) else {
            panic!("not a v2 request");
        };
        assert_eq!(inner, request);
        assert_eq!(Request::decode(&[]), Ok(Request::Empty));
    }
}
