//! The staged snapshot as the download writes it: to the disk past the page cache, read back behind the
//! writer, and decoded on the way.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::context::Cancel;
use crate::etcd::download::{SnapshotSink, write_behind};
use crate::etcd::snapshot::{Options, Room, StreamCheck};
use crate::keep::{database, encryption};
use crate::sys::fs::OutFile;
use crate::sys::read_back::ReadBack;
use crate::sys::space;
use crate::sys::stream_out::StreamOut;

/// The part of the database's size that the check may put into a file meanwhile. What is more than
/// that is read again at the end.
const SCRATCH: u64 = 16;

/// The file of a snapshot that is being received.
pub(super) struct Sink {
    out: StreamOut,
    /// For advice to the kernel.
    file: File,
    look: Arc<Mutex<StreamCheck>>,
    cancel: Cancel,
    dir: PathBuf,
    beside_etcd: bool,
}

/// A snapshot that was received: written, but not yet durable.
pub(super) struct Received {
    pub(super) file: OutFile,
    pub(super) back: ReadBack,
    pub(super) look: StreamCheck,
}

impl Sink {
    /// Writes into `file`, which is in `dir`; `db_size` is about what will come.
    pub(super) fn new(
        file: OutFile,
        cancel: Cancel,
        dir: PathBuf,
        beside_etcd: bool,
        db_size: u64,
    ) -> io::Result<Self> {
        let options = Options {
            wanted: encryption::wanted(database::cluster_keys()),
            ..Options::default()
        };
        let check = StreamCheck::new(options, Room::scratch(scratch(&dir), db_size / SCRATCH));
        let look = Arc::new(Mutex::new(check));
        let shown = Arc::clone(&look);
        let copy = file.file().try_clone()?;
        let show = move |piece: &[u8]| {
            let mut check = shown.lock().unwrap_or_else(PoisonError::into_inner);
            check.take(piece);
        };
        let out = StreamOut::proven(file, Some(Box::new(show)))?;
        Ok(Self {
            out,
            file: copy,
            look,
            cancel,
            dir,
            beside_etcd,
        })
    }

    /// Writes what is left.
    pub(super) fn finish(self) -> io::Result<Received> {
        let (file, back) = self.out.finish_proven()?;
        let look = Arc::try_unwrap(self.look)
            .map_err(|_| io::Error::other("the snapshot is still being looked at"))?;
        Ok(Received {
            file,
            back,
            look: look.into_inner().unwrap_or_else(PoisonError::into_inner),
        })
    }

    fn going_on(&self) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            Err(io::Error::other("interrupted"))
        } else {
            Ok(())
        }
    }
}

/// A file without a name, for the check alone: it is gone with this process, whatever ends it. Where
/// there can be none, the check reads more of the snapshot again.
fn scratch(dir: &Path) -> Option<File> {
    tempfile::tempfile_in(dir).ok()
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.going_on()?;
        self.out.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl SnapshotSink for Sink {
    fn settle(&mut self, from: u64, to: u64) -> io::Result<()> {
        // Others write too, and etcd stops where its disk is full.
        if let Ok(space) = space::space(&self.dir) {
            let reserve = space.reserve(self.beside_etcd);
            if space.available < reserve {
                let what = format!(
                    "the file system at {} has {} bytes free, and {reserve} must stay free",
                    space.mount.display(),
                    space.available
                );
                return Err(io::Error::new(io::ErrorKind::StorageFull, what));
            }
        }
        // Of no effect where the file is written past the page cache.
        write_behind(&self.file, from, to)
    }
}
