//! Whether a new data directory has room.

use std::path::Path;

use crate::error::Result;
use crate::sys::space::space;

/// Room beyond the database and the WAL: pages added, the `.snap` file, the directories.
const SPARE: u64 = 4 << 20;

/// Requires room for a database and a WAL of these sizes, each on its own file system if the WAL
/// has a separate one.
pub(in crate::etcd) fn check_room(
    data_dir: &Path,
    wal_dir: Option<&Path>,
    database: u64,
    log: u64,
) -> Result<()> {
    let here = space(data_dir)?;
    let apart = wal_dir.map(space).transpose()?;
    let apart = apart.filter(|wal| wal.device != here.device);
    let beside = if apart.is_some() { 0 } else { log };
    let needed = [
        Some((here, database.saturating_add(beside))),
        apart.map(|wal| (wal, log)),
    ];
    for (place, bytes) in needed.into_iter().flatten() {
        place.check(bytes.saturating_add(SPARE), "the data directory")?;
    }
    Ok(())
}
