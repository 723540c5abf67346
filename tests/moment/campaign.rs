//! Random mishaps of a recorder: its etcd cannot be reached, it is killed, its disk is full, etcd compacts
//! meanwhile. Afterwards what is listed as reachable is restored to just what etcd had, and what is not is
//! a gap with a cause.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::bench::{Random, cluster, kvs, requests, serve, text};
use crate::record::compact;
use crate::shelf::{LIMIT, Recorder, Shelf};
use testbench::bins::require_turn;
use testbench::campaign;
use testbench::cluster::Cluster;
use testbench::golden;
use testbench::loopback::Loopback;
use testbench::process::wait_for;

/// What stands between a recorder and its etcd.
struct Wire {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    open: Vec<TcpStream>,
}

impl Wire {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(&server) else {
                    continue;
                };
                let mut state = shared.lock().unwrap();
                if state.cut {
                    continue;
                }
                for (from, to) in [(&client, &upstream), (&upstream, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    state.open.push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // Either end may go at any time; that is the point.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { port, state }
    }

    /// Ends every connection, and allows no other until it is mended.
    fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.state.lock().unwrap().cut = false;
    }
}

/// A recorder, and what befalls it.
struct Play {
    cluster: Cluster,
    /// The store as it is asked for etcd itself.
    shelf: Shelf,
    wire: Wire,
    random: Random,
    recorder: Option<Recorder>,
    /// What etcd had at revisions.
    past: Vec<(i64, Value)>,
}

impl Play {
    fn write(&mut self) {
        let count = 3 + self.random.below(6);
        requests(&self.cluster, &mut self.random, count);
        let revision = self.cluster.revision(0);
        self.past.push((revision, kvs(&self.cluster, None)));
    }

    fn record(&mut self, seam: Option<&str>) {
        let url = format!("http://127.0.0.1:{}", self.wire.port);
        self.recorder = Some(self.shelf.record_at(&url, seam));
    }

    /// One mishap, and writes before, during and after it.
    fn mishap(&mut self, kind: u64) {
        self.write();
        match kind {
            0 => {
                self.wire.cut();
                self.write();
                self.wire.mend();
            }
            1 => {
                self.recorder.take().unwrap().kill();
                self.write();
                self.record(None);
            }
            2 => {
                self.recorder.take().unwrap().kill();
                let call = 1 + self.random.below(8);
                self.record(Some(&format!("full:{call}")));
                self.write();
                self.recorder.take().unwrap().kill();
                self.record(None);
            }
            // What is recorded before the compaction is known, and whether anything is missed is not.
            _ => {
                self.wire.cut();
                self.write();
                compact(&self.cluster);
                self.wire.mend();
            }
        }
        self.write();
    }

    /// The recorder has what was written by now: it has recovered. Behind a compaction it begins with what
    /// is written next.
    fn recovered(&mut self) {
        let target = self.cluster.revision(0);
        let (cluster, shelf, random) = (&self.cluster, &self.shelf, &mut self.random);
        let sealed = || {
            requests(cluster, random, 1);
            match shelf.last() {
                last if last >= target => Ok(()),
                last => Err(format!("{last} is sealed, {target} was written")),
            }
        };
        wait_for("the recorder to go on", LIMIT, sealed).unwrap();
    }

    fn restored(&self, bins: &testbench::bins::EtcdBins, revision: i64, then: &Value) {
        let network = Loopback::reserve();
        let url = format!("http://{}:2380", network.ip(0));
        let data_dir = self.shelf.dir.path().join(format!("d{revision}"));
        let (to, initial) = (revision.to_string(), format!("default={url}"));
        let mut args = vec!["--to-revision", &to, "--bump-revision", "0"];
        args.extend([
            "--initial-cluster",
            &initial,
            "--initial-advertise-peer-urls",
            &url,
        ]);
        self.shelf.restore("latest", &data_dir, &args).expect(0);
        let restored = serve(bins, network, &[("default".to_owned(), data_dir)]);
        assert_eq!(restored.revision(0), revision);
        assert_eq!(kvs(&restored, None), *then, "revision {revision}");
    }
}

#[test]
fn what_is_listed_as_reachable_is_what_etcd_had() {
    let plays: Vec<u64> = campaign::shared((0..12).collect(), 1);
    for (seed, bins) in plays
        .iter()
        .flat_map(|seed| require_turn().iter().map(move |bins| (*seed, bins)))
    {
        let cluster = cluster(bins, 1);
        let shelf = Shelf::new(&cluster);
        shelf.backup();
        let server = cluster
            .client_url(0)
            .trim_start_matches("http://")
            .to_owned();
        let mut play = Play {
            wire: Wire::to(server),
            random: Random(1000 + seed),
            recorder: None,
            past: Vec::new(),
            cluster,
            shelf,
        };
        play.record(None);
        // Each kind, in an order of its own, and one of them again. etcd compacts once: what is recorded
        // between two gaps follows no backup.
        let first = play.random.below(4);
        for kind in (0..4).map(|step| (first + step) % 4).chain([first % 3]) {
            play.mishap(kind);
            play.recovered();
        }
        play.recorder.take().unwrap().kill();
        play.shelf.check();
        play.shelf.backup();
        judge(&play, bins);
    }
}

/// Holds the listed ranges against what etcd had.
fn judge(play: &Play, bins: &testbench::bins::EtcdBins) {
    let store = text(&play.shelf.store());
    let listed = golden::run(&["list", &store, "--ranges", "-o", "json"], &[]);
    let listed = listed.expect(0).json();
    let verified = golden::run(&["verify", "--ranges", &store, "-o", "json"], &[]);
    assert_eq!(verified.expect(0).json()["good"], true);
    let reachable = &listed["clusters"][0];
    let number = |value: &Value| value.as_i64().unwrap();
    let list = |name: &str| reachable[name].as_array().unwrap().clone();
    let within = |revision: i64| {
        let ranges = list("ranges");
        let mut ranges = ranges.iter();
        ranges.any(|range| (number(&range["from"])..=number(&range["to"])).contains(&revision))
    };
    let (mut reached, mut missed) = (Vec::new(), Vec::new());
    for (revision, then) in &play.past {
        if within(*revision) {
            reached.push((*revision, then));
        } else {
            missed.push(*revision);
        }
    }
    for revision in &missed {
        let gaps = list("gaps");
        let gap = gaps
            .iter()
            .find(|gap| number(&gap["after"]) < *revision && *revision < number(&gap["until"]));
        let cause =
            gap.unwrap_or_else(|| panic!("{revision} is in no gap: {listed}"))["cause"].as_str();
        assert_eq!(cause, Some("compacted"), "{listed}");
        let to = play.shelf.dir.path().join("no");
        let refused = play
            .shelf
            .restore("latest", &to, &["--to-revision", &revision.to_string()]);
        assert_eq!(
            refused.expect(5).json()["error"]["refusal"],
            "unreachable-target"
        );
    }
    assert!(
        reached.len() > play.past.len() / 2,
        "{reached:?} of {listed}"
    );
    // Some of them, which always are the first and the last.
    let some = campaign::shared(reached.iter().collect(), 2);
    for (revision, then) in some.into_iter().chain(reached.last()) {
        if !play.shelf.dir.path().join(format!("d{revision}")).exists() {
            play.restored(bins, *revision, then);
        }
    }
}
