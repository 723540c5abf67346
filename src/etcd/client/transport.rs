//! The connection below HTTP/2: dialling with a bound on each phase, and a stream that counts
//! what it receives and notes why it broke, which the layers above no longer know.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, Sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::cause::{Cause, Phase};
use super::endpoint::{Address, Endpoint};

/// How much is read from the socket at once. The TLS library asks for 4 KiB at a time, which
/// without a buffer below it is one system call for each quarter of a record.
const READ_BUFFER: usize = 256 << 10;

/// What is known of a connection beside its bytes.
#[derive(Debug, Default)]
pub(super) struct NotedCause {
    cause: Mutex<Option<Cause>>,
}

impl NotedCause {
    /// Keeps the first cause, unless a later one says more.
    pub(super) fn note(&self, cause: Cause) {
        if let Ok(mut noted) = self.cause.lock()
            && noted
                .as_ref()
                .is_none_or(|old| !old.is_telling() && cause.is_telling())
        {
            *noted = Some(cause);
        }
    }

    /// What was noted since the last dialling.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.cause.lock().ok().and_then(|noted| noted.clone())
    }

    fn forget(&self) {
        if let Ok(mut noted) = self.cause.lock() {
            *noted = None;
        }
    }
}

/// All that dialling needs, kept for a later reconnect.
#[derive(Clone)]
pub(super) struct Dialler {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// What errors say of the client certificate.
    pub(super) identity: Option<String>,
    pub(super) timeout: Duration,
    pub(super) noted: Arc<NotedCause>,
}

/// Anything that bytes flow through.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialler {
    /// Connects, and notes the cause if that fails.
    pub(super) async fn dial(self) -> Result<Watched<Box<dyn Stream>>, Cause> {
        self.noted.forget();
        match self.connect().await {
            Ok(stream) => Ok(Watched {
                stream,
                plain: self.tls.is_none(),
                identity: self.identity,
                noted: self.noted,
                begun: false,
                dying: None,
            }),
            Err(cause) => {
                self.noted.note(cause.clone());
                // A verifier may have noted more than the handshake's error tells.
                Err(self.noted.cause().unwrap_or(cause))
            }
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Cause> {
        let deadline = Instant::now() + self.timeout;
        match self.endpoint.address() {
            Address::Unix(path) => {
                let stream = self
                    .bounded(deadline, Phase::Connect, UnixStream::connect(path))
                    .await?;
                Ok(Box::new(stream))
            }
            Address::Tcp { host, port } => {
                let stream = self.tcp(host, *port, deadline).await?;
                let stream = BufReader::with_capacity(READ_BUFFER, stream);
                let Some((config, name)) = &self.tls else {
                    return Ok(Box::new(stream));
                };
                let handshake = TlsConnector::from(config.clone()).connect(name.clone(), stream);
                let stream = self
                    .bounded(deadline, Phase::Tls, handshake)
                    .await
                    .map_err(|cause| match cause {
                        Cause::Closed | Cause::Broken(_) => Cause::ClosedInHandshake,
                        other => other,
                    })?;
                // Without HTTP/2 the answer would come in HTTP/1.1, and read as a broken frame.
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(Cause::NoHttp2);
                }
                Ok(Box::new(stream))
            }
        }
    }

    /// Tries each address of the name in turn, within one bound.
    async fn tcp(&self, host: &str, port: u16, deadline: Instant) -> Result<TcpStream, Cause> {
        let resolved = timeout_at(deadline, lookup_host((host, port))).await;
        let resolved = resolved.map_err(|_| self.late(Phase::Resolve))?;
        let addresses = resolved.map_err(|error| Cause::Resolve {
            host: host.to_owned(),
            detail: error.to_string(),
        })?;
        let mut last = Cause::Resolve {
            host: host.to_owned(),
            detail: "it has no address".to_owned(),
        };
        for address in addresses {
            match self
                .bounded(deadline, Phase::Connect, TcpStream::connect(address))
                .await
            {
                Ok(stream) => {
                    stream
                        .set_nodelay(true)
                        .map_err(|error| Cause::of_io(&error, None))?;
                    return Ok(stream);
                }
                Err(cause) => last = cause,
            }
        }
        Err(last)
    }

    async fn bounded<T>(
        &self,
        deadline: Instant,
        phase: Phase,
        future: impl Future<Output = io::Result<T>>,
    ) -> Result<T, Cause> {
        match timeout_at(deadline, future).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Cause::of_io(&error, self.identity.as_deref())),
            Err(_) => Err(self.late(phase)),
        }
    }

    fn late(&self, phase: Phase) -> Cause {
        Cause::Timeout {
            phase,
            after: self.timeout,
        }
    }
}

/// How long to wait for the server's last words after a failed write.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A stream that tells its [`NotedCause`] what happens to it.
pub(super) struct Watched<S> {
    stream: S,
    plain: bool,
    identity: Option<String>,
    noted: Arc<NotedCause>,
    begun: bool,
    dying: Option<Dying>,
}

/// After a write has failed.
struct Dying {
    error: io::Error,
    until: Pin<Box<Sleep>>,
}

impl<S> Watched<S> {
    /// Notices a TLS server behind a connection without TLS.
    fn look_at_first(&mut self, read: &[u8]) {
        // Content type "alert" or "handshake", and TLS's major version (RFC 8446, 5.1).
        if self.plain && !self.begun && matches!(read, [0x15 | 0x16, 3, ..]) {
            self.noted.note(Cause::SpeaksTls);
        }
        self.begun = self.begun || !read.is_empty();
    }

    fn note(&self, error: &io::Error) {
        self.note_end(Cause::of_io(error, self.identity.as_deref()));
    }

    fn note_end(&self, cause: Cause) {
        let gone = matches!(cause, Cause::Closed | Cause::Broken(_));
        // Every HTTP/2 server begins with its settings (RFC 9113, 3.4).
        self.noted.note(if gone && self.plain && !self.begun {
            Cause::ClosedUnanswered
        } else {
            cause
        });
    }
}

impl<S: Stream> Watched<S> {
    /// Holds a failed write's error back until what the server sent before it closed has been
    /// read, for that is the reason: a TLS 1.3 server rejects a client's certificate when the
    /// client already writes its first request.
    fn finish<T>(&mut self, cx: &mut Context<'_>, result: io::Result<T>) -> Poll<io::Result<T>> {
        let error = match result {
            Ok(value) => return Poll::Ready(Ok(value)),
            Err(error) => error,
        };
        self.dying = Some(Dying {
            error,
            until: Box::pin(tokio::time::sleep(LAST_WORDS)),
        });
        self.die(cx).map(Err)
    }

    /// Reads until the server has closed, or until [`LAST_WORDS`] is over.
    ///
    /// Who wakes this up: `poll_read` has registered `cx` with the socket, and the sleep has
    /// registered it with the timer, so that whichever comes first polls the write again. The write
    /// itself is not tried again: `poll_write` and `poll_flush` come straight back here while
    /// `dying` is set.
    fn die(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let mut scratch = [0; 1024];
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    // More may be there already, and nobody is woken for what was not asked for:
                    // read on until the socket is empty.
                    self.look_at_first(buffer.filled());
                    continue;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.note(&error),
                Poll::Pending => {
                    if let Some(dying) = &mut self.dying {
                        ready!(dying.until.as_mut().poll(cx));
                    }
                }
            }
            // It is set whenever this runs; the fallback only spares a panic.
            let dying = self.dying.take();
            return Poll::Ready(
                dying.map_or_else(|| io::ErrorKind::BrokenPipe.into(), |dying| dying.error),
            );
        }
    }
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        if let Err(error) = &result {
            this.note(error);
            return Poll::Ready(result);
        }
        let read = buffer.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            this.note_end(Cause::Closed);
        }
        this.look_at_first(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.dying.is_some() {
            return this.die(cx).map(Err);
        }
        let result = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        this.finish(cx, result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.dying.is_some() {
            return this.die(cx).map(Err);
        }
        let result = ready!(Pin::new(&mut this.stream).poll_flush(cx));
        this.finish(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
