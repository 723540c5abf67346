//! Stores that let nothing be replaced or removed: S3 Object Lock, Google's retention and Azure's immutability. No
//! server here has them, so a fake stands before a real S3 server or Azurite: it answers every overwrite and every
//! removal with 403, for Azure with 409, as the services' documents say, and names the time as they do.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use testbench::azurite::Azurite;
use testbench::golden;
use testbench::s3::{BUCKET, S3, variables};

use crate::bench::{Bench, origin, text};
use crate::wire::{Act, Request, Wire, s3_error};

type Env = Vec<(&'static str, String)>;

const UNTIL: &str = "2999-12-24T10:00:00Z";

/// A service that retains everything.
struct Retaining {
    server: Server,
    wire: Wire,
    /// What it refused.
    refused: Arc<Mutex<BTreeSet<&'static str>>>,
}

#[derive(Clone, Copy)]
enum Service {
    S3,
    Google,
    Azure,
}

/// What is behind the fake.
enum Server {
    S3(S3),
    Azurite(Azurite),
}

/// What the fake knows of the objects that are there: they are files, or it saw them come.
enum Objects {
    Files(PathBuf),
    Seen(Mutex<BTreeSet<String>>),
}

impl Objects {
    /// Whether an object is there already; one that is put is from then on.
    fn has(&self, path: &str, put: bool) -> bool {
        match self {
            Self::Files(root) => root.join(path.trim_start_matches('/')).is_file(),
            Self::Seen(seen) if put => !seen.lock().expect("the objects").insert(path.to_owned()),
            Self::Seen(seen) => seen.lock().expect("the objects").contains(path),
        }
    }
}

impl Retaining {
    fn start(service: Service) -> Option<Self> {
        let server = match service {
            Service::S3 => Server::S3(S3::start()?),
            Service::Google => Server::S3(S3::anonymous()?),
            Service::Azure => Server::Azurite(Azurite::start()?),
        };
        let refused = Arc::new(Mutex::new(BTreeSet::new()));
        let (objects, address) = match &server {
            Server::S3(server) => (Objects::Files(server.root.clone()), server.address),
            Server::Azurite(server) => (Objects::Seen(Mutex::default()), server.address),
        };
        let log = Arc::clone(&refused);
        let wire = Wire::start(address, move |request| {
            let (act, why) = judge(service, &objects, request);
            if let Some(why) = why {
                log.lock().expect("the log").insert(why);
            }
            act
        });
        Some(Self {
            server,
            wire,
            refused,
        })
    }

    fn env(&self, service: Service) -> Env {
        match service {
            Service::S3 => variables(self.wire.address),
            Service::Azure => Azurite::variables_at(self.wire.address),
            Service::Google => {
                let account = r#"{"private_key":"none","private_key_id":"none","client_email":"none","disable_oauth":true}"#;
                vec![
                    ("GOOGLE_BASE_URL", format!("http://{}", self.wire.address)),
                    ("GOOGLE_SERVICE_ACCOUNT_KEY", account.to_owned()),
                    ("ETCD_DR_STORE_PATIENCE", "2s".to_owned()),
                ]
            }
        }
    }

    fn refused(&self) -> BTreeSet<&'static str> {
        std::mem::take(&mut *self.refused.lock().expect("the log"))
    }
}

/// What the service does with a request, and the name of what it refuses.
fn judge(service: Service, objects: &Objects, mut request: Request) -> (Act, Option<&'static str>) {
    if matches!(service, Service::Google) {
        request.take("authorization");
        if request.take("x-goog-if-generation-match").is_some() {
            request
                .headers
                .push(("if-none-match".to_owned(), "*".to_owned()));
        }
    }
    // Google's names come with their slashes encoded.
    let decoded = percent_encoding::percent_decode_str(&request.target);
    let decoded = decoded.decode_utf8_lossy().into_owned();
    let path = decoded.split('?').next().unwrap_or_default();
    // A block is no object before the list of blocks is.
    let put = request.method == "PUT" && !decoded.contains("comp=block&");
    let there = objects.has(path, put);
    let conditional = request
        .headers
        .iter()
        .any(|(name, _)| name == "if-none-match");
    let named = Request {
        target: decoded.clone(),
        ..request.clone()
    };
    let kind = named.kind();
    if matches!(service, Service::Azure) && decoded.contains("comp=batch") {
        return (refused_batch(&request), Some("delete"));
    }
    let refuse = |what: &'static str| (refusal(service, path), Some(what));
    match kind {
        "delete" => refuse("delete"),
        // A condition that does not hold is told before the lock is.
        "put" | "claim" | "manifest" | "index" | "record" if there && !conditional => {
            refuse("overwrite")
        }
        "head" if there && matches!(service, Service::S3) => {
            let header = format!("x-amz-object-lock-retain-until-date: {UNTIL}");
            (Act::With(request, header), None)
        }
        "head" if there && matches!(service, Service::Azure) => {
            let header = "x-ms-immutability-policy-until-date: Tue, 24 Dec 2999 10:00:00 GMT";
            (Act::With(request, header.to_owned()), None)
        }
        _ => (Act::Pass(request), None),
    }
}

/// How a service refuses to replace or remove what is at a path.
fn refusal(service: Service, path: &str) -> Act {
    let error = |code: &str, told: &str| {
        format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>{told}</Message></Error>")
    };
    match service {
        Service::S3 => s3_error(403, "AccessDenied"),
        Service::Google => {
            let told = format!(
                "Object '{path}' is subject to bucket's retention policy or object retention and cannot be deleted or overwritten until {UNTIL}"
            );
            Act::Answer(403, error("RetentionPolicyNotMet", &told))
        }
        Service::Azure => {
            let told = "This operation is not permitted as the blob is immutable due to a policy.";
            Act::Answer(409, error("BlobImmutableDueToPolicy", told))
        }
    }
}

/// The answer to a batch of removals, none of which is allowed: 202, and 409 for each (Azure's "Blob Batch").
fn refused_batch(request: &Request) -> Act {
    let body = String::from_utf8_lossy(&request.body);
    let parts = body
        .lines()
        .filter(|line| line.starts_with("DELETE "))
        .count();
    let part = |number: usize| {
        format!(
            "--batchresponse\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 409 This operation is not permitted as the blob is immutable due to a policy.\r\nx-ms-error-code: BlobImmutableDueToPolicy\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let parts: String = (0..parts).map(part).collect();
    Act::Typed(
        202,
        "multipart/mixed; boundary=batchresponse",
        format!("{parts}--batchresponse--\r\n"),
    )
}

/// All commands, against a store that only takes what is new.
fn works(service: Service, scheme: &str) {
    let Some(store) = Retaining::start(service) else {
        return;
    };
    let env = store.env(service);
    let url = format!("{scheme}://{BUCKET}/etcd");
    let bench = Bench::new();
    let key = bench.key("key", &["-t", "ed25519"]);
    let signers = bench.signers("signers", &[("*", &key)]);
    let days = [
        "2026-06-01T02:00:00Z",
        "2026-06-02T02:00:00Z",
        "2026-06-03T02:00:00Z",
    ];
    bench.chain(&days, Some(&key));
    let directory = bench.store();
    let run = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--progress", "never"]);
        golden::run(&all, &env)
    };
    let copy = |set: &str| {
        run(&[
            "copy",
            set,
            &url,
            "--store",
            text(&directory),
            "--sign-key",
            text(&key),
        ])
    };
    for set in ["backup-1", "backup-2", "backup-3"] {
        copy(set).expect(0);
        // Again: nothing to do.
        assert!(copy(set).expect(0).stdout.contains("exists already"));
    }
    let (cluster, node) = origin();
    let place = format!("{url}/{cluster}/{node}");
    let trusting = ["--allowed-signers", text(&signers)];
    let verify = |set: &str| run(&[&["verify", &format!("{place}/{set}")][..], &trusting].concat());
    // The second result cannot replace the first one, and counts nevertheless.
    let listed = || {
        run(&[&["list", &url, "-o", "json"][..], &trusting].concat())
            .expect(0)
            .json()
    };
    let verified = || {
        listed()["sets"][1]["verified"]["time"]
            .as_str()
            .expect("a time")
            .to_owned()
    };
    verify("backup-2").expect(0);
    let first = verified();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    verify("backup-2").expect(0);
    assert!(verified() > first, "{first}");
    assert!(store.refused().contains("overwrite"));

    // What no rule keeps is retained, and that is not a failure.
    let prune = ["prune", &url, "--keep-last", "1", "--yes"];
    let done = run(&prune).expect(0);
    for set in ["backup-1", "backup-2"] {
        let told = format!("kept {cluster}/{node}/{set}: retained until {UNTIL}");
        assert_eq!(done.stdout.contains(&told), set == "backup-1", "{done}");
    }
    assert!(done.stdout.contains("0 removed"), "{done}");
    let json = run(&[&prune[..], &["-o", "json"]].concat())
        .expect(0)
        .json();
    assert_eq!(json["retained"][0]["until"], UNTIL, "{json}");
    // One request for each that should go, and no more.
    store.wire.seen();
    run(&prune).expect(0);
    let deletes = store
        .wire
        .seen()
        .into_iter()
        .filter(|kind| *kind == "delete")
        .count();
    assert_eq!(deletes, 1);
    assert_eq!(listed()["sets"].as_array().expect("sets").len(), 3);
    run(&[&["verify", "--chain", &url][..], &trusting].concat()).expect(0);
    let back = bench.path("back");
    run(&[
        &["copy", &format!("{place}/latest"), text(&back)][..],
        &trusting,
    ]
    .concat())
    .expect(0);
}

#[test]
fn a_fake_of_s3_with_object_lock() {
    works(Service::S3, "s3");
}

#[test]
fn a_fake_of_google_with_a_retention_policy() {
    works(Service::Google, "gs");
}

#[test]
fn a_fake_of_azure_with_an_immutability_policy() {
    works(Service::Azure, "az");
}

#[test]
fn an_interrupted_transfer_resumes_where_nothing_can_be_replaced() {
    let Some(store) = Retaining::start(Service::S3) else {
        return;
    };
    let env = store.env(Service::S3);
    let url = format!("s3://{BUCKET}/etcd");
    let bench = Bench::new();
    bench.chain(&["2026-06-01T02:00:00Z"], None);
    let directory = bench.store();
    let copy = || {
        let args = [
            "copy",
            "backup-1",
            &url,
            "--store",
            text(&directory),
            "--progress",
            "never",
        ];
        golden::run(&args, &env)
    };
    copy().expect(0);
    let (cluster, node) = origin();
    let Server::S3(server) = &store.server else {
        panic!("it is a real S3 server");
    };
    let folder = server
        .bucket()
        .join("etcd")
        .join(&cluster)
        .join(&node)
        .join("backup-1");
    // As after a kill before the Manifest, and before an object was recorded as arrived.
    std::fs::remove_file(folder.join("backup.json")).expect("a Manifest");
    let records = || {
        std::fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
    };
    for record in records()
        .filter(|path| text(path).ends_with(".done"))
        .take(1)
    {
        std::fs::remove_file(record).expect("a record");
    }
    std::fs::remove_file(folder.join("remote.json")).expect("an index");
    store.refused();
    copy().expect(0);
    assert!(store.refused().contains("overwrite"));
    let from = format!("{url}/{cluster}/{node}/backup-1");
    golden::run(&["verify", &from, "--progress", "never"], &env).expect(0);
}
