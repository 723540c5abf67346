//! A disk that lies: it reports a write as done and has changed a bit of it, lost it, or put it
//! elsewhere. The check of a backup decodes what came from etcd, so that only the comparison with
//! the disk stands between such a disk and a backup that is reported as taken.

use std::path::Path;

use testbench::bulk::Bulk;

use super::{Bench, inspect, text};

/// Bytes that are written, and can be lied about, at once.
const PIECE: u64 = 2 << 20;

/// The size of the snapshot in a backup.
fn snapshot_size(backup: &Path) -> u64 {
    let files = std::fs::read_dir(backup).unwrap().flatten();
    let snapshots = files.filter(|file| file.path().extension().is_some_and(|end| end == "db"));
    snapshots.map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn a_disk_that_changes_loses_or_moves_what_was_written_makes_no_backup() {
    let Some(bench) = Bench::start() else { return };
    Bulk::new(9, 1_000_000).write(&bench.cluster);
    let honest = |name: &str, seam: Option<String>| {
        let store = bench.fresh(name);
        let taken = bench.backup(&store, seam);
        assert!(taken.status.success(), "{}", text(&taken.stderr));
        assert_eq!(inspect(&store).unwrap(), ["backup-1", "backup-2"]);
        snapshot_size(&store.join("backup-2"))
    };
    let size = honest("before", None);
    // Several whole pieces, and an end that fills no block.
    let last = size.div_ceil(PIECE);
    assert!(last > 3 && !size.is_multiple_of(512), "{size} bytes");
    let mut lies = vec!["swap:1".to_owned(), "swap:2".to_owned()];
    for at in [1, 2, last] {
        lies.extend([format!("flip:{at}"), format!("drop:{at}")]);
    }
    for lie in lies {
        let store = bench.fresh(&lie.replace(':', "-"));
        let failed = bench.backup(&store, Some(lie.clone()));
        let told = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(6), "{lie}: {told}");
        assert!(
            told.contains("the disk returns other bytes than were written"),
            "{lie}: {told}"
        );
        assert!(told.contains(store.to_str().unwrap()), "no path: {told}");
        assert_eq!(inspect(&store).unwrap(), ["backup-1"], "{lie}");
    }
    // A lie that never comes: so it is the lies that fail, not the seam.
    honest("after", Some(format!("flip:{}", last + 2)));
}
