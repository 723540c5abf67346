//! gRPC over HTTP/2 (gRPC's `doc/PROTOCOL-HTTP2.md`), below the library that knows etcd's calls:
//! each request with the log-in's token, each refusal with its true cause. A server's status is
//! read without trusting it.
//!
//! [`Caller::call`] serves the few calls that do not go through that library. The reply is handed
//! on as the pieces that HTTP/2 delivers, neither copied nor decoded, so that the snapshot's stream
//! costs no more than it must.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use prost::Message;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tonic::codegen::tokio_stream::StreamExt;
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::transport::Channel;

use super::cause::Cause;
use super::transport::NotedCause;

/// Before each message: whether it is compressed (1 byte), its length (u32, big-endian).
pub(crate) const PREFIX: usize = 5;

/// What a call needs beside its message. As a service it sends any request, and every error it
/// gives, also in the midst of a reply, is a [`Cause`].
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) channel: Channel,
    pub(super) noted: Arc<NotedCause>,
    /// What errors say of the client certificate.
    pub(super) identity: Option<String>,
    /// etcd's token after a log-in.
    pub(super) token: Option<HeaderValue>,
}

impl Caller {
    /// Sends one message, and waits for the reply to begin.
    pub(super) async fn call(&self, path: &str, message: &impl Message) -> Result<Reply, Cause> {
        let mut framed = BytesMut::with_capacity(PREFIX + message.encoded_len());
        framed.put_u8(0);
        let length = u32::try_from(message.encoded_len())
            .map_err(|_| Cause::Protocol("the request is too long".to_owned()))?;
        framed.put_u32(length);
        framed.extend_from_slice(&message.encode_to_vec());

        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Body::new(Full::new(framed.freeze())))
            .map_err(|error| Cause::Protocol(error.to_string()))?;
        let response = self.send(request).await?;
        // A reply without a body has its status among the headers.
        let ended = response.headers().contains_key(STATUS);
        Ok(Reply {
            caller: self.clone(),
            body: response.into_body(),
            ended,
        })
    }

    /// Sends a request, and waits for a reply that is not a refusal to begin.
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Cause> {
        if let Some(token) = &self.token {
            request.headers_mut().insert("token", token.clone());
        }
        let mut channel = self.channel.clone();
        std::future::poll_fn(|cx| channel.poll_ready(cx))
            .await
            .map_err(|error| self.explain(&error))?;
        let response = channel
            .call(request)
            .await
            .map_err(|error| self.explain(&error))?;
        if let Some(refusal) = refusal(response.headers())? {
            return Err(refusal);
        }
        if response.status() != StatusCode::OK {
            return Err(Cause::Protocol(format!("HTTP {}", response.status())));
        }
        Ok(response)
    }

    /// The body with causes as its errors, a refusal at its end among them.
    fn watched(self, body: Body) -> Body {
        let frames = BodyStream::new(body).map(move |frame| {
            let frame = frame.map_err(|status| self.explain(&status))?;
            match frame.trailers_ref().map(refusal).transpose()?.flatten() {
                Some(refusal) => Err(refusal),
                None => Ok(frame),
            }
        });
        Body::new(StreamBody::new(frames))
    }

    /// Sends one message, and reads the one that is the reply, of at most `limit` bytes.
    pub(super) async fn unary<M: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        limit: usize,
    ) -> Result<M, Cause> {
        let mut reply = self.call(path, message).await?;
        let mut whole = BytesMut::new();
        while let Some(piece) = reply.next().await? {
            if whole.len().saturating_add(piece.len()) > limit.saturating_add(PREFIX) {
                return Err(Cause::Protocol(format!("it is longer than {limit} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        let whole = whole.freeze();
        let Some((&[compressed, a, b, c, d], message)) = whole.split_first_chunk::<PREFIX>() else {
            return Err(Cause::Protocol("it contains no message".to_owned()));
        };
        if compressed != 0 {
            return Err(Cause::Protocol("it is compressed".to_owned()));
        }
        if usize::try_from(u32::from_be_bytes([a, b, c, d])) != Ok(message.len()) {
            return Err(Cause::Protocol("it is not exactly one message".to_owned()));
        }
        M::decode(message).map_err(|error| Cause::Protocol(error.to_string()))
    }

    /// What stands behind an error that is not an answer of the server's.
    fn explain(&self, error: &(dyn Error + 'static)) -> Cause {
        let found = Cause::of_chain(error, self.identity.as_deref());
        match self.noted.cause() {
            Some(noted) if noted.is_telling() || !found.is_telling() => noted,
            _ => found,
        }
    }
}

impl Service<Request<Body>> for Caller {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    /// Always ready: an error returned here would lose its cause above.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = self.clone();
        Box::pin(async move {
            let response = caller.send(request).await?;
            Ok(response.map(|body| caller.watched(body)))
        })
    }
}

/// A reply as it arrives.
pub(super) struct Reply {
    caller: Caller,
    body: Body,
    ended: bool,
}

impl Reply {
    /// The next piece of the reply's messages, which knows nothing of their bounds; none at the
    /// end that the server has declared to be good.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Cause> {
        loop {
            let Some(frame) = self.body.frame().await else {
                // Without a status it was cut, even between two messages.
                return if self.ended {
                    Ok(None)
                } else {
                    Err(self.caller.noted.cause().unwrap_or(Cause::Closed))
                };
            };
            let frame = frame.map_err(|status| self.caller.explain(&status))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        if let Some(refusal) = refusal(&trailers)? {
                            return Err(refusal);
                        }
                        self.ended = self.ended || trailers.contains_key(STATUS);
                    }
                }
            }
        }
    }
}

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// The error that a status among headers or trailers stands for; none if there is no status, or
/// the good one.
fn refusal(headers: &HeaderMap) -> Result<Option<Cause>, Cause> {
    let Some(status) = headers.get(STATUS) else {
        return Ok(None);
    };
    let code = status
        .to_str()
        .ok()
        .and_then(|text| text.parse::<i32>().ok())
        .ok_or_else(|| Cause::Protocol("its status is not a number".to_owned()))?;
    if code == 0 {
        return Ok(None);
    }
    let message = headers
        .get(MESSAGE)
        .map(|value| crate::error::cut(percent_decoded(value.as_bytes())))
        .unwrap_or_default();
    Ok(Some(Cause::Answer {
        code: Code::from_i32(code),
        message,
    }))
}

/// Decodes gRPC's percent encoding; what is not encoded correctly stays as it is.
fn percent_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%'
            && let Some((digits, beyond)) = after.split_first_chunk::<2>()
            && let Some(byte) = hex_byte(*digits)
        {
            decoded.push(byte);
            rest = beyond;
        } else {
            decoded.push(first);
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_status_is_read_without_trusting_it() {
        assert_eq!(refusal(&headers(&[])), Ok(None));
        assert_eq!(refusal(&headers(&[("grpc-status", "0")])), Ok(None));
        assert!(refusal(&headers(&[("grpc-status", "x")])).is_err());
        let bad_details = headers(&[
            ("grpc-status", "7"),
            ("grpc-message", "no%20entry%zz%4"),
            ("grpc-status-details-bin", "!!!"),
        ]);
        assert_eq!(
            refusal(&bad_details),
            Ok(Some(Cause::Answer {
                code: Code::PermissionDenied,
                message: "no entry%zz%4".to_owned(),
            }))
        );
    }
}
