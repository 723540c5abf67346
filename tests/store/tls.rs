//! A store behind a certificate of a private CA, and behind a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::bench::{Bench, listed};
use crate::wire::{Act, Wire, s3_error};
use testbench::loopback::free_port;
use testbench::s3::{ACCESS_KEY, BUCKET, S3, SECRET_KEY, variables};

/// Speaks TLS before a server that does not; returns where, and its CA's certificate.
async fn tls_before(server: SocketAddr) -> (SocketAddr, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("a CA").pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client without a trusted CA disconnects here.
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                let mut upstream = TcpStream::connect(server).await.expect("the server");
                let _ = copy_bidirectional(&mut client, &mut upstream).await;
            });
        }
    });
    (address, ca)
}

/// A proxy that knows CONNECT (RFC 9110) and counts.
async fn proxy(connected: Arc<AtomicU32>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let connected = Arc::clone(&connected);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match client.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8(head).expect("text");
                let target = head
                    .strip_prefix("CONNECT ")
                    .and_then(|rest| rest.split(' ').next());
                let Some(target) = target else { return };
                let mut upstream = TcpStream::connect(target).await.expect("the target");
                connected.fetch_add(1, Ordering::SeqCst);
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let _ = copy_bidirectional(&mut client, &mut upstream).await;
            });
        }
    });
    address
}

/// A fake: what answers as AWS's token service does (API reference, AssumeRoleWithWebIdentity).
fn token_service(token: &'static str, session: &'static str) -> Wire {
    Wire::start(free_port(), move |request| {
        let asked = format!(
            "{} {}",
            request.target,
            String::from_utf8_lossy(&request.body)
        );
        if !asked.contains("AssumeRoleWithWebIdentity") || !asked.contains(token) {
            return s3_error(403, "InvalidIdentityToken");
        }
        Act::Answer(
            200,
            format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                 <AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
                 <SessionToken>{session}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
                 </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            ),
        )
    })
}

#[test]
fn a_web_identity_is_exchanged_for_keys() {
    let Some(server) = S3::start() else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (token, session) = ("tokentokentokentoken", "sessionsessionsession");
    let service = token_service(token, session);
    let (tls, ca) = runtime.block_on(tls_before(service.address));
    let bench = Bench::new();
    bench.set(1);
    let file = |name: &str, content: &str| {
        let path = bench.dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let mut env = variables(server.address);
    env.retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
    env.push(("HOME", bench.dir.path().display().to_string()));
    env.push(("ETCD_DR_STORE_CA", file("ca.pem", &ca)));
    env.push(("AWS_ENDPOINT_URL_STS", format!("https://{tls}")));
    env.push(("AWS_ROLE_ARN", "arn:aws:iam::1:role/backup".to_owned()));
    let identity = "AWS_WEB_IDENTITY_TOKEN_FILE";
    env.push((identity, file("token", token)));
    let url = format!("s3://{BUCKET}/identity");
    let copied = bench.copy("backup-1", &url, &["-v"], &env).expect(0);
    assert_eq!(listed(&url, &env).len(), 1);
    assert!(
        !service.seen().is_empty(),
        "the token service was not asked"
    );

    let wrong = "anotheronealtogether";
    env.retain(|(name, _)| *name != identity);
    env.push((identity, file("wrong", wrong)));
    let refused = bench.copy("backup-1", &url, &["-v"], &env).expect(6);
    for secret in [token, session, wrong, SECRET_KEY] {
        for run in [&copied, &refused] {
            assert!(
                !format!("{}{}", run.stdout, run.stderr).contains(secret),
                "{run}"
            );
        }
    }
}

#[test]
fn a_private_ca_is_trusted_where_it_is_given_and_proxies_are_used() {
    let Some(server) = S3::start() else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let connected = Arc::new(AtomicU32::new(0));
    let (tls, ca) = runtime.block_on(tls_before(server.address));
    let proxy = runtime.block_on(proxy(Arc::clone(&connected)));
    let bench = Bench::new();
    bench.set(1);
    let ca_file = bench.dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca).expect("a file");
    let url = format!("s3://{BUCKET}/tls");
    let mut env = variables(tls);
    env.retain(|(name, _)| *name != "AWS_ENDPOINT_URL");
    env.push(("AWS_ENDPOINT_URL", format!("https://{tls}")));

    let refused = bench.copy("backup-1", &url, &[], &env).expect(6);
    assert!(
        refused.stderr.to_lowercase().contains("certificate"),
        "{refused}"
    );
    let trusted = ["--store-ca", ca_file.to_str().expect("UTF-8")];
    bench.copy("backup-1", &url, &trusted, &env).expect(0);
    env.push(("ETCD_DR_STORE_CA", ca_file.display().to_string()));
    assert_eq!(listed(&url, &env).len(), 1);
    assert_eq!(connected.load(Ordering::SeqCst), 0);

    env.push(("HTTPS_PROXY", format!("http://{proxy}")));
    assert_eq!(listed(&url, &env).len(), 1);
    assert!(
        connected.load(Ordering::SeqCst) > 0,
        "the proxy was not used"
    );
    env.push(("NO_PROXY", "127.0.0.1".to_owned()));
    let before = connected.load(Ordering::SeqCst);
    assert_eq!(listed(&url, &env).len(), 1);
    assert_eq!(
        connected.load(Ordering::SeqCst),
        before,
        "NO_PROXY was not heeded"
    );

    let nothing = bench.dir.path().join("nothing.pem");
    std::fs::write(&nothing, "no certificate\n").expect("a file");
    let useless = ["--store-ca", nothing.to_str().expect("UTF-8")];
    bench.copy("backup-1", &url, &useless, &env).expect(2);
}
