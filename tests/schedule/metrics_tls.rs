//! The metrics over TLS, requested by Python's OpenSSL.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, LIMIT, path};
use crate::metrics::get;
use testbench::certs::{Ca, PairFiles, strangers_client};
use testbench::loopback::free_port;
use testbench::process::{expect_success, wait_for, write_private};

/// Prints a status and the body's first line, or that the connection failed.
const ASK: &str = r#"
import http.client, ssl, sys
host, port, page, ca, *pair = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if pair:
    context.load_cert_chain(*pair)
connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=context)
try:
    connection.request("GET", page)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode().splitlines()[0])
except (ssl.SSLError, ConnectionError, http.client.HTTPException) as error:
    print("refused", type(error).__name__)
"#;

fn ask(address: SocketAddr, page: &str, ca: &Path, pair: Option<&PairFiles>) -> String {
    let mut command = Command::new("python3");
    command.args([
        "-c",
        ASK,
        &address.ip().to_string(),
        &address.port().to_string(),
        page,
    ]);
    command.arg(ca);
    if let Some(pair) = pair {
        command.args([&pair.cert, &pair.key]);
    }
    expect_success("python3", &command.output().expect("running python3"))
}

#[test]
fn who_reads_is_asked_for_a_certificate_and_rotation_needs_no_restart() {
    let Some(bench) = Bench::new() else { return };
    let dir = bench.cluster.scratch();
    let (servers, readers) = (Ca::new("servers"), Ca::new("readers"));
    let (ca, client_ca) = (dir.join("ca.crt"), dir.join("readers.crt"));
    write_private(&ca, servers.cert.as_bytes());
    write_private(&client_ca, readers.cert.as_bytes());
    let served = servers
        .leaf("etcd-dr", "etcd-dr", &[])
        .write(&dir, "metrics");
    let reader = readers
        .leaf("prometheus", "monitoring", &[])
        .write(&dir, "reader");
    let stranger = strangers_client().write(&dir, "stranger");

    let address = free_port();
    let listen = address.to_string();
    let more = [
        "--metrics-listen",
        &listen,
        "--metrics-cert",
        path(&served.cert),
        "--metrics-key",
        path(&served.key),
        "--metrics-client-ca",
        path(&client_ca),
    ];
    let mut scheduled = bench.schedule("@yearly", &more);
    assert_eq!(scheduled.next()["result"], "taken");
    let page = "/metrics";
    assert!(ask(address, page, &ca, Some(&reader)).starts_with("200 # HELP etcd_"));
    assert!(ask(address, page, &ca, None).starts_with("401 "));
    assert!(ask(address, "/healthz", &ca, None).starts_with("200 ok"));
    assert!(ask(address, "/readyz", &ca, None).starts_with("200 ok"));
    assert!(ask(address, page, &ca, Some(&stranger)).starts_with("refused"));
    assert!(ask(address, "/healthz", &client_ca, None).starts_with("refused"));
    assert!(get(address, page).is_err(), "it answers in the clear");

    // A rotation to another authority, seen half-way: the pair from before is served on.
    let fresh = Ca::new("servers of tomorrow");
    let new_ca = dir.join("new-ca.crt");
    write_private(&new_ca, fresh.cert.as_bytes());
    let pair = fresh.leaf("etcd-dr", "etcd-dr", &[]);
    write_private(&served.cert, pair.cert.as_bytes());
    assert!(ask(address, page, &ca, Some(&reader)).starts_with("200 "));
    write_private(&served.key, pair.key.as_bytes());
    // Two writes within one tick of the file system's clock would look like one.
    wait_for("the new certificate", LIMIT, || {
        let said = ask(address, page, &new_ca, Some(&reader));
        said.starts_with("200 ").then_some(()).ok_or(said)
    })
    .unwrap_or_else(|error| panic!("{error}"));
    assert!(ask(address, page, &ca, Some(&reader)).starts_with("refused"));
    // The readers' authority too.
    write_private(&client_ca, Ca::new("other readers").cert.as_bytes());
    assert!(ask(address, page, &new_ca, Some(&reader)).starts_with("refused"));
    let (status, _, stderr) = scheduled.stop();
    assert_eq!(status, Some(0));
    assert_eq!(stderr.matches("stay in use").count(), 1, "{stderr}");
}

#[test]
fn files_that_do_not_belong_together_are_refused_before_anything() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("servers");
    let one = ca.leaf("one", "x", &[]).write(dir.path(), "one");
    let other = ca.leaf("other", "x", &[]).write(dir.path(), "other");
    let store = path(dir.path());
    let listen = [
        "schedule",
        "@hourly",
        store,
        "--metrics-listen",
        "127.0.0.1:0",
    ];
    let absent = dir.path().join("absent");
    for pair in [
        [path(&one.cert), path(&other.key)],
        [path(&one.key), path(&one.key)],
        [path(&absent), path(&one.key)],
    ] {
        let more = ["--metrics-cert", pair[0], "--metrics-key", pair[1]];
        let run = testbench::golden::run(&[&listen[..], &more].concat(), &[]).expect(2);
        assert_eq!(run.stdout, "", "{run}");
        assert!(!run.stderr.contains("PRIVATE KEY"), "{run}");
    }
}
