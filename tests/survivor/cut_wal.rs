//! The log cut at every record's end and within records: the result is right, or it is refused.

use std::path::{Path, PathBuf};

use etcd_dr::etcd::wal::Wal;

use crate::bench::{client, copy, heads, make, request, runtime, serve};
use crate::load_and_kill::killed;
use testbench::bins::require_turn;

/// How many of the last records are cut at.
const RECORDS: usize = 60;

fn newest_segment(dir: &Path) -> PathBuf {
    let wal = dir.join("member/wal");
    let listed = Wal::list(&wal).unwrap();
    wal.join(listed.segments().last().unwrap().name.to_string())
}

/// Offsets in the newest segment at which its records end.
fn ends(dir: &Path) -> Vec<u64> {
    let bytes = std::fs::read(newest_segment(dir)).unwrap();
    let mut at = 0;
    let mut ends = Vec::new();
    while let Some(head) = bytes.get(at..at + 8) {
        let field = u64::from_le_bytes(head.try_into().unwrap());
        if field == 0 {
            break;
        }
        let size = field & ((1 << 56) - 1);
        let pad = if field >> 63 == 1 { field >> 56 & 7 } else { 0 };
        at += 8 + (size + pad) as usize;
        ends.push(at as u64);
    }
    ends
}

#[test]
fn a_wal_cut_anywhere_is_used_or_refused() {
    for bins in require_turn() {
        let what = &bins.version;
        let (cluster, known) = killed(bins, 0xfeed_5678_9abc);
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("source");
        copy(cluster.data_dir(0), &source);
        let segment = newest_segment(&source);
        let whole = std::fs::read(&segment).unwrap();
        let ends = ends(&source);
        let last: Vec<u64> = ends.iter().rev().take(RECORDS).copied().collect();
        let mut cuts = Vec::new();
        for pair in last.windows(2) {
            let (end, before) = (pair[0], pair[1]);
            cuts.extend([
                end,
                before + 1,
                before + 8,
                before + (end - before) / 2,
                end - 1,
            ]);
        }
        let (mut right, mut refused) = (0, 0);
        for (number, cut) in cuts.iter().enumerate() {
            // As a crash leaves it, at the end of the file, and within preallocated zeros.
            let mut bytes = whole[..*cut as usize].to_vec();
            if number % 2 == 1 && ends.contains(cut) {
                bytes.resize(whole.len().min(*cut as usize + 4096), 0);
            }
            std::fs::write(&segment, bytes).unwrap();
            let made = scratch.path().join("made");
            let mut wanted = request(&source, &made);
            // Every other one has its tail applied here, which reads all of the result.
            if number % 2 == 0 {
                wanted.options.bump = None;
            }
            match make(&wanted) {
                Ok(outcome) => {
                    right += 1;
                    // Real servers on a few of them; each takes seconds.
                    if right % 60 == 1 {
                        let server = serve(bins, &outcome.member.name, &made, &[]);
                        let heads = runtime()
                            .block_on(async { heads(&mut client(&server, 0).await).await });
                        for (name, head) in heads {
                            assert!(
                                head <= known[&name].attempted,
                                "{what}: {name} cut at {cut}"
                            );
                        }
                        drop(server);
                    }
                    std::fs::remove_dir_all(&made).unwrap();
                }
                Err(failure) => {
                    refused += 1;
                    assert_eq!(
                        failure.refusal(),
                        Some("damaged-survivor"),
                        "{what}: {failure}"
                    );
                    assert!(
                        failure.to_string().contains("another member's disk"),
                        "{failure}"
                    );
                    assert!(!made.exists(), "{what}: cut at {cut}");
                }
            }
        }
        println!("{what}: {right} used, {refused} refused");
        assert!(right > 0, "{what}");

        // A flipped byte in the middle.
        let mut bytes = whole.clone();
        let middle = (ends[ends.len() / 2] + 20) as usize;
        bytes[middle] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let failure = make(&request(&source, &scratch.path().join("made"))).unwrap_err();
        assert_eq!(
            failure.refusal(),
            Some("damaged-survivor"),
            "{what}: {failure}"
        );
    }
}
