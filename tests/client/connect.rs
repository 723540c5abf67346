//! What cannot be connected to, and whether the reason given is the true one. The servers are
//! bare sockets that go no further than the handshake.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_dr::error::{Fact, Failure, Kind};
use etcd_dr::etcd::client::{ConnectOptions, Connection, Endpoint, Pem, TlsConfig};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use testbench::certs::{Ca, Pair, Validity};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn quick(tls: Option<TlsConfig>) -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.tls = tls;
    options.connect_timeout = Duration::from_secs(2);
    options.call_timeout = Duration::from_secs(2);
    options
}

fn trusting(ca: &Ca) -> TlsConfig {
    TlsConfig::new(&[Pem::new("ca.crt", ca.cert.as_str())], None).unwrap()
}

/// Connects and asks for a status; one of both must fail.
async fn fails(endpoint: &str, tls: Option<TlsConfig>) -> Failure {
    let options = quick(tls);
    let endpoint = Endpoint::parse(endpoint, options.tls.is_some()).unwrap();
    let asked = async { Connection::open(&endpoint, &options).await?.status().await };
    let failure = asked.await.unwrap_err();
    let text = failure.to_string();
    assert!(text.contains(endpoint.as_str()), "{text}");
    assert!(!text.contains("transport error"), "{text}");
    let fact = Fact::Endpoint(endpoint.to_string());
    assert!(failure.facts().contains(&fact), "{failure:?}");
    failure
}

async fn unreachable(endpoint: &str, tls: Option<TlsConfig>, words: &[&str]) {
    let failure = fails(endpoint, tls).await;
    assert_eq!(failure.kind(), Kind::Unreachable, "{failure}");
    for word in words {
        assert!(failure.to_string().contains(word), "{word:?} in {failure}");
    }
}

/// Accepts connections, and does with each what the test wants.
async fn listen<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A TLS server with this certificate, which after the handshake only reads.
async fn listen_tls(pair: &Pair, alpn: &[u8]) -> SocketAddr {
    let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut sunk = Vec::new();
                let _ = stream.read_to_end(&mut sunk).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_connection_is_named() {
    let address = TcpListener::bind((LOCAL, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let ca = Ca::new("ca");
    for scheme in ["http", "https"] {
        let tls = (scheme == "https").then(|| trusting(&ca));
        unreachable(
            &format!("{scheme}://{address}"),
            tls,
            &["connection refused"],
        )
        .await;
    }
}

#[tokio::test]
async fn an_unknown_host_name_is_named() {
    let words = ["no-such-host.invalid", "could not be resolved"];
    unreachable("http://no-such-host.invalid:2379", None, &words).await;
}

#[tokio::test]
async fn a_silent_server_is_named() {
    let silent = listen(|mut stream| async move {
        let mut sunk = Vec::new();
        let _ = stream.read_to_end(&mut sunk).await;
    })
    .await;
    let start = Instant::now();
    let ca = Ca::new("ca");
    unreachable(
        &format!("https://{silent}"),
        Some(trusting(&ca)),
        &["timed out: the TLS handshake did not finish within 2 s"],
    )
    .await;
    let words = ["asking etcd", "for its status", "no answer within 2 s"];
    unreachable(&format!("http://{silent}"), None, &words).await;
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_server_that_closes_is_named() {
    let rude = listen(|stream| async move { drop(stream) }).await;
    let failure = fails(&format!("http://{rude}"), None).await;
    let text = failure.to_string();
    assert!(
        text.contains("closed the connection") || text.contains("connection broke"),
        "{text}"
    );
}

#[tokio::test]
async fn plain_and_tls_servers_are_distinguished() {
    let ca = Ca::new("ca");
    let plain = listen(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let mut sunk = Vec::new();
        let _ = stream.read_to_end(&mut sunk).await;
    })
    .await;
    unreachable(
        &format!("https://{plain}"),
        Some(trusting(&ca)),
        &["does not speak TLS"],
    )
    .await;
    let tls = listen_tls(&ca.leaf("etcd", "etcd", &[]), b"h2").await;
    unreachable(&format!("http://{tls}"), None, &["speaks TLS on this port"]).await;
    let old = listen_tls(&ca.leaf("etcd", "etcd", &[]), b"http/1.1").await;
    unreachable(
        &format!("https://{old}"),
        Some(trusting(&ca)),
        &["does not offer HTTP/2"],
    )
    .await;
}

#[tokio::test]
async fn an_untrusted_server_is_named() {
    let server = listen_tls(&Ca::new("true-signer").leaf("etcd-1", "o", &[]), b"h2").await;
    let words = [
        "it is not signed by a trusted certificate",
        "CN=etcd-1",
        "issued by CN=true-signer",
        "ca.crt",
    ];
    let tls = trusting(&Ca::new("other-signer"));
    unreachable(&format!("https://{server}"), Some(tls), &words).await;
    // Of the same name, but with another key.
    let tls = trusting(&Ca::new("true-signer"));
    let failure = fails(&format!("https://{server}"), Some(tls)).await;
    assert!(
        failure
            .to_string()
            .contains("the server's certificate is not accepted"),
        "{failure}"
    );
    assert!(failure.facts().contains(&Fact::Path("ca.crt".into())));
}

#[tokio::test]
async fn an_expired_server_certificate_is_named() {
    let ca = Ca::new("ca");
    let expired = ca.leaf_valid("etcd-1", "o", &[], Validity::expired());
    let server = listen_tls(&expired, b"h2").await;
    unreachable(
        &format!("https://{server}"),
        Some(trusting(&ca)),
        &["it expired on 20", "CN=etcd-1"],
    )
    .await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_named() {
    let ca = Ca::new("ca");
    let server = listen_tls(&ca.leaf("etcd-1", "o", &[]), b"h2").await;
    let tls = trusting(&ca).with_server_name("other.example").unwrap();
    unreachable(
        &format!("https://{server}"),
        Some(tls),
        &[
            "it is not for other.example, but for",
            "localhost",
            "127.0.0.1",
        ],
    )
    .await;
    let tls = trusting(&ca).with_server_name("10.9.8.7").unwrap();
    unreachable(
        &format!("https://{server}"),
        Some(tls),
        &["not for 10.9.8.7"],
    )
    .await;
}

#[tokio::test]
async fn https_needs_an_authority() {
    let failure = fails("https://127.0.0.1:1", None).await;
    assert_eq!(failure.kind(), Kind::Usage);
    assert!(failure.facts().contains(&Fact::Missing("ca")));
}

fn usage(made: Result<TlsConfig, Failure>, words: &[&str]) {
    let failure = made.unwrap_err();
    assert_eq!(failure.kind(), Kind::Usage, "{failure}");
    for word in words {
        assert!(failure.to_string().contains(word), "{word:?} in {failure}");
    }
}

#[test]
fn bad_pem_is_a_usage_error_that_names_the_file() {
    let ca = Ca::new("ca");
    let client = ca.leaf("client", "o", &[]);
    let good = [Pem::new("/c/ca.crt", ca.cert.as_str())];
    let cert = Pem::new("/c/tls.crt", client.cert.as_str());
    let key = Pem::new("/c/tls.key", client.key.as_str());

    usage(TlsConfig::new(&[], None), &["no CA is configured"]);
    usage(
        TlsConfig::new(&[Pem::new("/c/ca.crt", "rubbish")], None),
        &["/c/ca.crt", "no CERTIFICATE"],
    );
    let cut = ca.cert.replace("-----END CERTIFICATE-----", "");
    usage(
        TlsConfig::new(&[Pem::new("/c/ca.crt", cut)], None),
        &["/c/ca.crt", "PEM"],
    );
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    usage(
        TlsConfig::new(&[Pem::new("/c/ca.crt", nonsense)], None),
        &["/c/ca.crt", "none of its certificates can be read"],
    );
    usage(
        TlsConfig::new(&good, Some((&cert, &cert))),
        &["/c/tls.crt", "no private key"],
    );
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    usage(
        TlsConfig::new(&good, Some((&cert, &Pem::new("/c/tls.key", encrypted)))),
        &["/c/tls.key", "encrypted"],
    );
    let others = ca.leaf("other", "o", &[]);
    usage(
        TlsConfig::new(&good, Some((&cert, &Pem::new("/c/tls.key", others.key)))),
        &["/c/tls.crt", "/c/tls.key", "does not match the certificate"],
    );
    let missing = Pem::read("/no/such/ca.crt").unwrap_err();
    assert_eq!(missing.kind(), Kind::Usage);
    assert!(missing.to_string().contains("reading /no/such/ca.crt"));

    let made = TlsConfig::new(&good, Some((&cert, &key))).unwrap();
    let shown = format!("{made:?} {key:?}");
    assert!(
        !shown.contains("PRIVATE") && !shown.contains("MII"),
        "{shown}"
    );
}

#[test]
fn every_usual_kind_of_key_is_read() {
    let ca = Ca::new("ca");
    let authority = [Pem::new("ca.crt", ca.cert.as_str())];
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let cert = CertificateParams::default().self_signed(&key).unwrap();
        let (cert, key) = (
            Pem::new("tls.crt", cert.pem()),
            Pem::new("tls.key", key.serialize_pem()),
        );
        assert!(
            TlsConfig::new(&authority, Some((&cert, &key)))
                .unwrap()
                .has_identity()
        );
    }
    // PKCS#1 and SEC1, which Kubernetes and OpenSSL write.
    for (key, algorithm) in [("rsa:2048", "rsa"), ("ec", "ec")] {
        let (cert, key) = openssl_pair(key, algorithm);
        let text = String::from_utf8_lossy(&key);
        assert!(
            text.contains("RSA PRIVATE KEY") || text.contains("EC PRIVATE KEY"),
            "{text}"
        );
        let (cert, key) = (Pem::new("tls.crt", cert), Pem::new("tls.key", key));
        TlsConfig::new(&authority, Some((&cert, &key))).unwrap();
    }
}

/// A self-signed certificate and its key in the traditional form, by OpenSSL.
fn openssl_pair(new_key: &str, algorithm: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl")
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .expect("running openssl");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let mut request = vec![
        "req", "-x509", "-newkey", new_key, "-nodes", "-subj", "/CN=a",
    ];
    if algorithm == "ec" {
        request.extend(["-pkeyopt", "ec_paramgen_curve:P-256"]);
    }
    request.extend(["-keyout", "pkcs8.key", "-out", "tls.crt"]);
    openssl(&request);
    let mut convert = vec![algorithm, "-in", "pkcs8.key", "-out", "tls.key"];
    if algorithm == "rsa" {
        convert.push("-traditional");
    }
    openssl(&convert);
    let read = |name| std::fs::read(dir.path().join(name)).unwrap();
    (read("tls.crt"), read("tls.key"))
}
