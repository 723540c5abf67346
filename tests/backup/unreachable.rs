//! etcd cannot be reached, or does not trust us, or we do not trust it: status 4, a message that says
//! which, and nothing left behind.

use std::path::{Path, PathBuf};

use crate::bench::{assert_only_good, text};
use testbench::bins;
use testbench::certs::{self, Ca, PairFiles};
use testbench::cluster::{Cluster, ClusterSpec};
use testbench::golden::{self, Run};
use testbench::process::write_private;

/// All settings that a bare etcd needs.
struct Told {
    endpoint: String,
    ca: PathBuf,
    client: Option<PairFiles>,
}

impl Told {
    fn run(&self, root: &Path, store: &Path) -> Run {
        let mut args = vec!["--root", text(root), "--profile", "bare"];
        args.extend(["--endpoints", &self.endpoint, "--cacert", text(&self.ca)]);
        if let Some(files) = &self.client {
            args.extend(["--cert", text(&files.cert), "--key", text(&files.key)]);
        }
        args.extend(["--progress", "never", "backup", text(store)]);
        golden::run(&args, &[])
    }
}

#[test]
fn each_reason_for_an_unreachable_etcd_has_its_message() {
    for bins in bins::require_all() {
        eprintln!("with etcd {}", bins.version);
        let mut cluster = Cluster::start(ClusterSpec::new(bins, 1).fast());
        let own = cluster.certs().expect("TLS is on");
        let scratch = cluster.scratch();
        let root = scratch.join("root");
        std::fs::create_dir(&root).expect("a root");
        let store = scratch.join("store");
        let good = || Told {
            endpoint: cluster.client_url(0),
            ca: own.ca_file(),
            client: Some(own.peer("master-0")),
        };
        let run = good().run(&root, &store).expect(0);
        assert_only_good(&store, &["backup-1"], &run);

        let wrong_ca = scratch.join("wrong-ca.crt");
        write_private(&wrong_ca, Ca::new("another-signer").cert.as_bytes());
        let stranger = certs::strangers_client().write(&scratch, "stranger");
        let expired = own.ca().expired_client().write(&scratch, "expired");
        let closed = format!("https://{}:2399", cluster.ip(0));
        let plain = format!("http://{}:2379", cluster.ip(0));
        let cases: [(&str, Told, &[&str]); 6] = [
            (
                "wrong CA",
                Told {
                    ca: wrong_ca.clone(),
                    ..good()
                },
                &["certificate", text(&wrong_ca)],
            ),
            (
                "stranger's certificate",
                Told {
                    client: Some(stranger.clone()),
                    ..good()
                },
                &["client certificate", text(&stranger.cert)],
            ),
            (
                "expired certificate",
                Told {
                    client: Some(expired.clone()),
                    ..good()
                },
                &["expired", text(&expired.cert)],
            ),
            (
                "no certificate",
                Told {
                    client: None,
                    ..good()
                },
                &["client certificate"],
            ),
            (
                "nobody listens",
                Told {
                    endpoint: closed.clone(),
                    ..good()
                },
                &["refused", &closed],
            ),
            (
                "no TLS where TLS is",
                Told {
                    endpoint: plain.clone(),
                    ..good()
                },
                &["TLS", &plain],
            ),
        ];
        for (what, told, words) in cases {
            let run = told.run(&root, &store).expect(4);
            for word in words {
                assert!(run.stderr.contains(word), "{what}: no {word:?} in {run}");
            }
            // One line for what happened, perhaps one for what to do.
            assert!(run.stderr.lines().count() <= 3, "{what}: {run}");
            assert_eq!(run.stdout, "", "{what}: {run}");
            assert_only_good(&store, &["backup-1"], &run);
        }
        let told = good();
        cluster.kill(0);
        let run = told.run(&root, &store).expect(4);
        assert!(run.stderr.contains("refused"), "{run}");
        assert_only_good(&store, &["backup-1"], &run);
    }
}

#[test]
fn wrong_endpoints_and_certificates_are_usage_errors() {
    let Some(bins) = bins::require("3.5") else {
        return;
    };
    let cluster = Cluster::start(ClusterSpec::new(&bins, 1).fast());
    let own = cluster.certs().expect("TLS is on");
    let scratch = cluster.scratch();
    let (root, store) = (scratch.join("root"), scratch.join("store"));
    std::fs::create_dir(&root).expect("a root");
    let (peer, serving) = (own.peer("master-0"), own.serving("master-0"));
    let told = |cert: &Path, key: &Path| {
        let client = PairFiles {
            cert: cert.into(),
            key: key.into(),
        };
        let endpoint = cluster.client_url(0);
        Told {
            endpoint,
            ca: own.ca_file(),
            client: Some(client),
        }
        .run(&root, &store)
    };
    let absent = scratch.join("absent.crt");
    let garbage = scratch.join("garbage.crt");
    write_private(&garbage, b"no PEM at all\n");
    for (cert, key, culprit) in [
        (absent.as_path(), peer.key.as_path(), absent.as_path()),
        (&garbage, &peer.key, &garbage),
        (&peer.cert, &garbage, &garbage),
        (&peer.cert, &serving.key, &serving.key),
    ] {
        let run = told(cert, key).expect(2);
        assert!(
            run.stderr.contains(text(culprit)),
            "no {} in {run}",
            culprit.display()
        );
        assert!(!run.stderr.contains("PRIVATE KEY"), "{run}");
    }
    assert!(!store.exists() || std::fs::read_dir(&store).expect("the store").count() <= 1);
}
