//! A log damaged in many ways: our judgement against what real etcd does with it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use etcd_dr::etcd::datadir::{self, Layout, Report};
use etcd_dr::etcd::wal::{EndKind, SegmentName, Step, Wal};
use etcd_dr::finding::Severity;

use crate::etcd::{Release, Server, Start, copy_dir, runtime};

const FIRST: SegmentName = SegmentName {
    sequence: 0,
    index: 0,
};

/// Only the first records of a member's log are left: etcd waits for a leader that never comes.
const NO_MEMBERS: &str = "cut before the first entry";
/// A size that no file has room for.
const GARBAGE: &str = "garbage size after the end";
/// etcd takes what follows for preallocated space.
const HIDDEN: &str = "size of the sixth record lost";

/// What a damaged WAL leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sound,
    Repaired,
    Refused,
}

fn ours(report: &Report) -> Verdict {
    let broken = report
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    match report.wal.scan.end.unwrap().kind {
        EndKind::Corrupt(_) => Verdict::Refused,
        _ if broken => Verdict::Refused,
        EndKind::Torn(_) => Verdict::Repaired,
        EndKind::Clean => Verdict::Sound,
    }
}

fn theirs(release: &Release, data_dir: &Path, address: &str) -> (Verdict, String) {
    let mut server = Server::spawn(release, data_dir, "default", address, &[]);
    let start = server.wait(Duration::from_secs(20));
    let log = server.log();
    server.kill();
    let repaired = fs::read_dir(data_dir.join("member/wal"))
        .unwrap()
        .any(|e| e.unwrap().path().extension().is_some_and(|x| x == "broken"));
    let verdict = match start {
        Start::Serves if repaired => Verdict::Repaired,
        Start::Serves => Verdict::Sound,
        Start::Exits | Start::Hangs => Verdict::Refused,
    };
    (verdict, log)
}

/// A member that wrote a little and stopped; its only segment, cut to the records.
struct Source {
    _dir: tempfile::TempDir,
    data_dir: std::path::PathBuf,
    address: String,
    segment: Vec<u8>,
    /// Where records start, and the end of the last.
    offsets: Vec<usize>,
}

fn source(release: &Release) -> Source {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let server = Server::single(release, &data_dir, &[]);
    runtime().block_on(async {
        let mut client = server.client().await;
        for i in 0..3 {
            client.put("k", vec![b'a' + i; 700], None).await.unwrap();
        }
    });
    let address = server.address.clone();
    server.stop();
    let layout = Layout::new(&data_dir, None);
    let wal = Wal::list(&layout.wal).unwrap();
    let mut offsets = Vec::new();
    let mut records = wal.records(0);
    loop {
        match records.step().unwrap() {
            Step::Record(record) => offsets.push(record.at.offset as usize),
            Step::SegmentEnd { at, .. } => offsets.push(at.offset as usize),
            Step::Broken(broken) => panic!("{broken:?}"),
            Step::End => break,
        }
    }
    let mut segment = fs::read(layout.wal.join(FIRST.to_string())).unwrap();
    segment.truncate(*offsets.last().unwrap());
    for name in wal.others() {
        fs::remove_file(layout.wal.join(name)).unwrap();
    }
    Source {
        _dir: dir,
        data_dir,
        address,
        segment,
        offsets,
    }
}

/// Damages with names. All of them leave the records that the member began with, and most the
/// whole of what the database has applied.
fn damages(source: &Source) -> Vec<(String, Vec<u8>)> {
    let Source {
        segment, offsets, ..
    } = source;
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>| all.push((name, bytes));
    // From the end backwards: the last records, whole and in part.
    let count = offsets.len();
    for i in (count.saturating_sub(5)..count - 1).rev() {
        let (start, end) = (offsets[i], offsets[i + 1]);
        add(format!("cut before record {i}"), segment[..start].to_vec());
        add(
            format!("cut in the size of record {i}"),
            segment[..start + 5].to_vec(),
        );
        add(
            format!("cut after the size of record {i}"),
            segment[..start + 8].to_vec(),
        );
        add(
            format!("cut at the end of record {i}"),
            segment[..end - 8].to_vec(),
        );
    }
    add(
        "cut before the metadata".into(),
        segment[..offsets[1]].to_vec(),
    );
    add(NO_MEMBERS.into(), segment[..offsets[3]].to_vec());
    let mut hidden = segment.clone();
    hidden[offsets[5]..offsets[5] + 8].fill(0);
    add(HIDDEN.into(), hidden);
    let (last, end) = (offsets[count - 2], offsets[count - 1]);
    let mut padded = segment[..last + 8].to_vec();
    padded.resize(end + 4096, 0);
    add("last body lost in preallocated space".into(), padded);
    let mut flipped = segment.clone();
    flipped[last + 12] ^= 1;
    add("flip in the last record".into(), flipped);
    let mut flipped = segment.clone();
    flipped[offsets[2] + 13] ^= 1;
    add("flip in the third record".into(), flipped);
    let mut garbage = segment.clone();
    garbage.extend([0x11; 24]);
    add(GARBAGE.into(), garbage);
    let mut large = offsets.windows(2).filter(|pair| pair[1] - pair[0] > 1030);
    assert_eq!(large.next(), None, "no record spans two whole sectors");
    // The last put's body spans a sector boundary; its part of the later sector is lost.
    let put = offsets
        .windows(2)
        .rfind(|pair| pair[1] - pair[0] > 700)
        .unwrap();
    let sector = (put[0] + 8).div_ceil(512) * 512;
    let mut torn = segment[..put[1]].to_vec();
    torn[sector..put[1].min(sector + 512)].fill(0);
    add("a sector of the last put lost".into(), torn.clone());
    torn[sector] = 1;
    add("but a byte of a sector of the last put lost".into(), torn);
    all
}

#[test]
fn damage_is_judged_as_etcd_judges_it() {
    let releases = Release::all();
    std::thread::scope(|scope| {
        for release in &releases {
            scope.spawn(move || judge(release));
        }
    });
}

fn judge(release: &Release) {
    let source = source(release);
    let mut judged = Vec::new();
    for (i, (name, bytes)) in damages(&source).into_iter().enumerate() {
        let copy = source.data_dir.with_file_name(format!("damaged-{i}"));
        copy_dir(&source.data_dir, &copy);
        let layout = Layout::new(&copy, None);
        fs::write(layout.wal.join(FIRST.to_string()), bytes).unwrap();
        let report = datadir::check(&layout, None).unwrap();
        let ours = ours(&report);
        let (theirs, log) = theirs(release, &copy, &source.address);
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        eprintln!(
            "{} {name}: {ours:?} {theirs:?} {findings:?}",
            release.version
        );
        judged.push((ours, theirs));
        let expected = match name.as_str() {
            // 3.4 takes a size of 10 MiB and more for damage; later releases for a torn write.
            GARBAGE if release.is_3_4() => (Verdict::Repaired, Verdict::Refused),
            HIDDEN => (Verdict::Refused, Verdict::Sound),
            NO_MEMBERS => {
                assert!(findings[0].contains("waits for a leader"), "{findings:?}");
                (Verdict::Sound, Verdict::Refused)
            }
            _ => (ours, ours),
        };
        assert_eq!(
            (ours, theirs),
            expected,
            "{} {name}: {log}",
            release.version
        );
        fs::remove_dir_all(&copy).unwrap();
    }
    for verdict in [Verdict::Sound, Verdict::Repaired, Verdict::Refused] {
        assert!(
            judged.contains(&(verdict, verdict)),
            "no case of {verdict:?}"
        );
    }
}
