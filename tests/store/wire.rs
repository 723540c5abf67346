//! What stands between an HTTP client and a real server and sees whole requests: it counts them,
//! and a rule alters them, answers in the server's stead, or cuts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// Takes a header away; returns its value.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.headers.iter().position(|(other, _)| other == name)?;
        Some(self.headers.remove(at).1)
    }

    /// What it is for, in a word or two: how S3's operations are told apart.
    pub fn kind(&self) -> &'static str {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let has = |word: &str| query.split('&').any(|part| part.starts_with(word));
        let name = path.rsplit('/').next().unwrap_or_default();
        match self.method.as_str() {
            "GET" if has("list-type") => "list",
            "GET" => "get",
            "HEAD" => "head",
            "DELETE" if has("uploadId") => "abort",
            "DELETE" => "delete",
            "POST" if has("uploads") => "begin",
            "POST" if has("delete") || has("comp=batch") => "delete",
            "POST" => "complete",
            "PUT" if has("partNumber") => "part",
            "PUT" if name.starts_with("claim-") => "claim",
            "PUT" if name == "backup.json" => "manifest",
            "PUT" if name == "remote.json" => "index",
            "PUT" if name.ends_with(".done") => "record",
            "PUT" => "put",
            _ => "other",
        }
    }
}

/// What is done with a request.
pub enum Act {
    /// It is passed to the server.
    Pass(Request),
    /// It is answered with a status and a body, and the server never sees it.
    Answer(u16, String),
    /// The same with a content type; the suite `trust` needs it.
    #[allow(dead_code)]
    Typed(u16, &'static str, String),
    /// It is sent elsewhere, with 307, and the server never sees it.
    Redirect(String),
    /// It is passed to the server, and the answer loses a header of this name.
    Without(Request, &'static str),
    /// It is passed to the server, and the answer gets another header; the suite `trust` needs it.
    #[allow(dead_code)]
    With(Request, String),
    /// It is passed to the server, and the answer is lost with the connection.
    Deaf(Request),
    /// The connection ends.
    Cut,
}

/// The error that S3 answers with, as its API reference has it.
pub fn s3_error(status: u16, code: &str) -> Act {
    Act::Answer(
        status,
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        ),
    )
}

/// A listener before a server.
pub struct Wire {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<&'static str>>>,
}

type Rule = Arc<dyn Fn(Request) -> Act + Send + Sync>;

impl Wire {
    /// Stands before a server with a rule.
    pub fn start(
        server: SocketAddr,
        rule: impl Fn(Request) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (rule, all): (Rule, _) = (Arc::new(rule), Arc::clone(&seen));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (rule, seen) = (Arc::clone(&rule), Arc::clone(&all));
                // Either end may go at any time.
                std::thread::spawn(move || drop(serve(client, server, &rule, &seen)));
            }
        });
        Self { address, seen }
    }

    /// The kinds of the requests that came since this was asked last.
    pub fn seen(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(
    client: TcpStream,
    server: SocketAddr,
    rule: &Rule,
    seen: &Mutex<Vec<&'static str>>,
) -> std::io::Result<()> {
    let mut answer = client.try_clone()?;
    let mut client = BufReader::new(client);
    while let Some(request) = read(&mut client)? {
        let method = request.method.clone();
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request.kind());
        match rule(request) {
            Act::Pass(request) => answer.write_all(&forward(server, request, &method, "")?)?,
            Act::Without(request, header) => {
                answer.write_all(&forward(server, request, &method, header)?)?;
            }
            Act::With(request, header) => {
                let whole = forward(server, request, &method, "")?;
                let end = whole.windows(2).position(|two| two == b"\r\n").unwrap_or(0) + 2;
                let (status, rest) = whole.split_at(end);
                let header = format!("{header}\r\n");
                answer.write_all(&[status, header.as_bytes(), rest].concat())?;
            }
            Act::Answer(status, body) => answer.write_all(
                format!(
                    "HTTP/1.1 {status} Told\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            )?,
            Act::Typed(status, kind, body) => answer.write_all(
                format!(
                    "HTTP/1.1 {status} Told\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            )?,
            Act::Redirect(to) => answer.write_all(
                format!("HTTP/1.1 307 Told\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
                    .as_bytes(),
            )?,
            Act::Deaf(request) => {
                forward(server, request, &method, "")?;
                return Ok(());
            }
            Act::Cut => return Ok(()),
        }
    }
    Ok(())
}

fn read(client: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if client.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        client.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let header = (name.to_ascii_lowercase(), value.trim().to_owned());
        request.headers.push(header);
    }
    let length = request
        .headers
        .iter()
        .find(|(name, _)| name == "content-length");
    let length = length
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    request.body = vec![0; length];
    client.read_exact(&mut request.body)?;
    Ok(Some(request))
}

/// The chunks of a body as one (RFC 9112, section 7.1).
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|window| window == b"\r\n") {
        let size = String::from_utf8_lossy(&chunks[..end]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        if size == 0 {
            break;
        }
        body.extend_from_slice(&chunks[end + 2..end + 2 + size]);
        chunks = &chunks[end + 4 + size..];
    }
    body
}

/// Asks as an HTTP/1.0 client, whose answer ends with its connection, and gives the answer a length.
fn forward(
    server: SocketAddr,
    request: Request,
    method: &str,
    without: &str,
) -> std::io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(server)?;
    let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    upstream.write_all(format!("{head}\r\n").as_bytes())?;
    upstream.write_all(&request.body)?;
    let mut whole = Vec::new();
    upstream.read_to_end(&mut whole)?;
    let end = whole.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| std::io::Error::other("no answer"))?;
    let head = String::from_utf8_lossy(&whole[..end]).into_owned();
    let mut body = whole[end + 4..].to_vec();
    // Not every server minds that this client is too old for it.
    if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        body = joined(&body);
    }
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .unwrap_or_default()
        .replacen("HTTP/1.0", "HTTP/1.1", 1);
    let mut answer = format!("{status}\r\n");
    for line in lines {
        let name = line
            .split(':')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let framing = ["connection", "transfer-encoding"].contains(&name.as_str())
            || name == without
            || (name == "content-length" && method != "HEAD");
        if !framing {
            answer.push_str(&format!("{line}\r\n"));
        }
    }
    if method != "HEAD" {
        answer.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    let mut answer = format!("{answer}\r\n").into_bytes();
    answer.extend_from_slice(&body);
    Ok(answer)
}
