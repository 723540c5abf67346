//! Certificates as people make them with openssl: what etcd accepts is accepted, and what cannot be used
//! is told in a sentence.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_dr::error::{Failure, Kind};
use etcd_dr::etcd::client::{ConnectOptions, Connection, Endpoint, Pem, TlsConfig};

use testbench::bins::{require, skip};
use testbench::loopback::free_port;
use testbench::process::{bound_command, expect_success, spawn_bound, wait_for};

/// Extensions of a server's certificate.
const SERVER: &str = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";

/// A folder of certificates, made with openssl.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            skip("no openssl here");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        Some(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl")
            .args(args.split_whitespace())
            .current_dir(self.dir.path())
            .output();
        expect_success(args, &output.expect("running openssl"));
    }

    fn key(&self, name: &str, kind: &str) {
        let (kind, option) = kind.split_once(' ').expect("a kind");
        self.openssl(&format!(
            "genpkey -algorithm {kind} -pkeyopt {option} -out {name}.key"
        ));
    }

    /// A certificate that signs itself, with more options of `openssl req`.
    fn own(&self, name: &str, kind: &str, more: &str) {
        self.key(name, kind);
        self.openssl(&format!(
            "req -x509 -new -key {name}.key -subj /CN={name} -days 3650 -out {name}.crt {more}"
        ));
    }

    /// A certificate that a CA signs; without extensions it is X.509 version 1.
    fn signed(&self, name: &str, kind: &str, ca: &str, extensions: &str, more: &str) {
        self.key(name, kind);
        self.openssl(&format!(
            "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
        ));
        let mut args = format!(
            "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -days 3650 -out {name}.crt"
        );
        if !extensions.is_empty() {
            std::fs::write(self.path(&format!("{name}.ext")), extensions).expect("a file");
            args = format!("{args} -extfile {name}.ext");
        }
        if !more.is_empty() {
            args = format!("{args} {more}");
        }
        self.openssl(&args);
    }

    fn config(&self, ca: &str, client: &str) -> Result<TlsConfig, Failure> {
        let pem = |name: String| Pem::read(self.path(&name));
        let (cert, key) = (pem(format!("{client}.crt"))?, pem(format!("{client}.key"))?);
        TlsConfig::new(&[pem(format!("{ca}.crt"))?], Some((&cert, &key)))
    }
}

/// An etcd with a server's certificate, which asks for a client's.
struct Server {
    child: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Server {
    fn start(made: &Made, etcd: &Path, server: &str, client_ca: &str) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let (client, peer) = (free_port(), free_port());
        let url = format!("https://{client}");
        let mut command = bound_command(etcd);
        let file = |name: String| made.path(&name).display().to_string();
        let peer = format!("http://{peer}");
        for (flag, value) in [
            ("data-dir", data.path().display().to_string()),
            ("name", "m".to_owned()),
            ("listen-client-urls", url.clone()),
            ("advertise-client-urls", url.clone()),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("m={peer}")),
            ("cert-file", file(format!("{server}.crt"))),
            ("key-file", file(format!("{server}.key"))),
            ("trusted-ca-file", file(format!("{client_ca}.crt"))),
            ("client-cert-auth", "true".to_owned()),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawn_bound(command).expect("starting etcd");
        wait_for("etcd", Duration::from_secs(60), || {
            std::net::TcpStream::connect(client).map(drop)
        })
        .expect("it listens");
        Self {
            child,
            url,
            _data: data,
        }
    }

    async fn ask(&self, tls: TlsConfig) -> Result<(), Failure> {
        let mut options = ConnectOptions::default();
        options.tls = Some(tls);
        let endpoint = Endpoint::parse(&self.url, true)?;
        let connection = Connection::open(&endpoint, &options).await?;
        connection.status().await.map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const P256: &str = "EC ec_paramgen_curve:P-256";
const P521: &str = "EC ec_paramgen_curve:P-521";

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_etcd_accepts_are_accepted() {
    let (Some(bins), Some(made)) = (require("3.5"), Made::new()) else {
        return;
    };
    let etcd = bins.etcd.as_path();
    made.own("ca", P256, "-sha512");
    made.signed("server", P256, "ca", SERVER, "-sha512");
    made.signed("v1", P256, "ca", "", "");
    made.signed("client521", P521, "ca", SERVER, "");
    made.openssl("x509 -in ca.crt -trustout -addtrust serverAuth -out trusted.crt");
    let server = Server::start(&made, etcd, "server", "ca");
    for (ca, client) in [("ca", "v1"), ("ca", "client521"), ("trusted", "v1")] {
        let tls = made.config(ca, client).expect(client);
        server
            .ask(tls)
            .await
            .unwrap_or_else(|failure| panic!("{ca} {client}: {failure}"));
    }

    for (ca, digest) in [("ca521", "-sha256"), ("ca521-512", "-sha512")] {
        made.own(ca, P521, digest);
        let (server, client) = (format!("{ca}-server"), format!("{ca}-client"));
        made.signed(&server, P521, ca, SERVER, digest);
        made.signed(&client, P521, ca, SERVER, digest);
        let etcd = Server::start(&made, etcd, &server, ca);
        etcd.ask(made.config(ca, &client).expect(ca))
            .await
            .expect(ca);
        // Another one of the same name has not signed it.
        made.own("other", P521, digest);
        let other = made.config("other", &client).expect("a configuration");
        let refused = etcd.ask(other).await.expect_err("a stranger");
        assert!(
            refused
                .to_string()
                .contains("not signed by a trusted certificate"),
            "{refused}"
        );
    }

    made.own("self", P256, "-addext subjectAltName=IP:127.0.0.1");
    let server = Server::start(&made, etcd, "self", "self");
    server
        .ask(made.config("self", "self").expect("it is read"))
        .await
        .expect("its own CA");
    // It is the only one that is trusted for itself.
    let refused = server
        .ask(made.config("ca", "self").expect("it is read"))
        .await;
    let refused = refused.expect_err("a stranger").to_string();
    assert!(
        refused.contains("it is a CA certificate (CA:TRUE)"),
        "{refused}"
    );
    let named = made.config("self", "self").expect("it is read");
    let named = named.with_server_name("another.example").expect("a name");
    let refused = server
        .ask(named)
        .await
        .expect_err("another name")
        .to_string();
    assert!(
        refused.contains("it is not for another.example"),
        "{refused}"
    );
}

#[test]
fn an_unusable_key_is_explained() {
    let Some(made) = Made::new() else { return };
    made.own("ca", P256, "");
    for (name, kind, word) in [
        ("short", "RSA rsa_keygen_bits:1024", "RSA of 1024 bits"),
        (
            "curve",
            "EC ec_paramgen_curve:secp256k1",
            "curve 1.3.132.0.10",
        ),
    ] {
        made.signed(name, kind, "ca", SERVER, "");
        let refused = made.config("ca", name).expect_err(name);
        assert_eq!(refused.kind(), Kind::Usage);
        let said = refused.to_string();
        for word in [word, "P-521", &format!("{name}.key")] {
            assert!(said.contains(word), "{said}");
        }
    }
    made.signed("one", P521, "ca", SERVER, "");
    std::fs::copy(made.path("ca.key"), made.path("one.key")).expect("a copy");
    let refused = made
        .config("ca", "one")
        .expect_err("another's key")
        .to_string();
    assert!(
        refused.contains("does not match the certificate"),
        "{refused}"
    );
}
