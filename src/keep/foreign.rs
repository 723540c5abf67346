//! Snapshots of other programs: unpacked to be read, fetched from stores away from the node.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use futures_util::StreamExt;
use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};
use weezl::decode::Decoder;
use weezl::{BitOrder, LzwStatus};

use super::catalog::{BackupSet, SetState};
use crate::backup::foreign::{self, Packing};
use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result};
use crate::store::objects::Store;
use crate::sys::fs::OutFile;
use crate::sys::scratch::Scratch;
use crate::sys::space;

/// Bytes that are unpacked between two looks at the free space.
const STEP: u64 = 64 << 20;
/// The file that a snapshot is unpacked to.
const UNPACKED: &str = "snapshot.db";
/// The most bytes of a snapshot that is fetched: etcd's own limit is far below.
const MAX_BYTES: u64 = 1 << 40;

/// A set whose snapshot can be read, and the folder that it was unpacked to if it is packed; the folder goes
/// when it is dropped.
///
/// # Errors
/// [`Kind::BadBackup`] if it cannot be unpacked, [`Kind::Store`] if there is no room for it.
pub fn unpacked(
    context: &Context,
    set: BackupSet,
    scratch: &Path,
) -> Result<(BackupSet, Option<Scratch>)> {
    let packed = set
        .files
        .snapshot
        .clone()
        .filter(|_| set.state == SetState::Foreign);
    let Some(path) = packed else {
        return Ok((set, None));
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let packing = foreign::packing(&name);
    if packing == Packing::Plain {
        return Ok((set, None));
    }
    let file =
        File::open(&path).doing(Kind::NotChecked, || format!("opening {}", path.display()))?;
    let here = Scratch::make(scratch, "unpack")?;
    let to = here.path().join(UNPACKED);
    let poured = match packing {
        Packing::Gzip => pour(context, &mut MultiGzDecoder::new(BufReader::new(file)), &to),
        Packing::Zlib => pour(context, &mut ZlibDecoder::new(BufReader::new(file)), &to),
        Packing::Lzw => pour(context, &mut Lzw::new(BufReader::new(file)), &to),
        _ => unzip(context, file, &to),
    };
    poured.map_err(|failure| failure.doing(format!("unpacking {}", path.display())))?;
    let mut set = set;
    set.files.snapshot = Some(to);
    Ok((set, Some(here)))
}

/// Unpacks the only file of a zip archive, as k3s and RKE2 make it. Its name in there means nothing.
fn unzip(context: &Context, file: File, to: &Path) -> Result<()> {
    let doing = || "reading the zip archive";
    let bad = |what: &str| Failure::new(Kind::BadBackup, what.to_owned());
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer).doing(Kind::BadBackup, doing)?;
    let mut entries = archive.entries(&mut buffer);
    let only = entries.next_entry().doing(Kind::BadBackup, doing)?;
    let only = only.ok_or_else(|| bad("expected one file in the archive, found none"))?;
    let (flags, method, place) = (only.flags(), only.compression_method(), only.wayfinder());
    // Of a list of files without an end no more is read.
    if entries
        .next_entry()
        .doing(Kind::BadBackup, doing)?
        .is_some()
    {
        return Err(bad("expected one file in the archive, found more"));
    }
    if flags.is_encrypted() {
        return Err(bad("the file in the archive is encrypted"));
    }
    let entry = archive.get_entry(place).doing(Kind::BadBackup, doing)?;
    match method {
        CompressionMethod::STORE => pour(context, &mut entry.verifying_reader(entry.reader()), to),
        CompressionMethod::DEFLATE => {
            let unpacked = DeflateDecoder::new(entry.reader());
            pour(context, &mut entry.verifying_reader(unpacked), to)
        }
        _ => Err(bad(
            "the file in the archive is neither stored nor deflated",
        )),
    }
}

/// Reads what Go's `compress/lzw` wrote; what follows its end code is not looked at, as Go does not.
struct Lzw<R> {
    from: R,
    decoder: Decoder,
    ended: bool,
}

impl<R: BufRead> Lzw<R> {
    fn new(from: R) -> Self {
        Self {
            from,
            decoder: Decoder::new(BitOrder::Lsb, 8),
            ended: false,
        }
    }
}

impl<R: BufRead> Read for Lzw<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !into.is_empty() {
            let step = self.decoder.decode_bytes(self.from.fill_buf()?, into);
            self.from.consume(step.consumed_in);
            let status = step.status.map_err(io::Error::other)?;
            self.ended = matches!(status, LzwStatus::Done);
            if step.consumed_out > 0 {
                return Ok(step.consumed_out);
            }
            if step.consumed_in == 0 && !self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

/// Writes what is unpacked, as long as there is room: nobody else decides how much that is.
fn pour(context: &Context, from: &mut dyn Read, to: &Path) -> Result<()> {
    let mut out =
        OutFile::create(to).doing(Kind::Store, || format!("creating {}", to.display()))?;
    let doing = || format!("writing {}", to.display());
    loop {
        context.cancel.check()?;
        space::space(to)?.check(STEP, "the unpacked snapshot")?;
        let mut piece = Vec::new();
        (&mut *from)
            .take(STEP / 16)
            .read_to_end(&mut piece)
            .doing(Kind::BadBackup, || "reading what is packed")?;
        if piece.is_empty() {
            break;
        }
        out.write_all(&piece).doing(Kind::Store, doing)?;
    }
    out.sync().doing(Kind::Store, doing)
}

/// Fetches a snapshot of another program from a store into a directory, under its own name.
///
/// # Errors
/// [`Kind::Store`] if the store or the disk fails, [`Kind::Usage`] if there is no such object.
pub async fn fetch(context: &Context, store: &dyn Store, name: &str, into: &Path) -> Result<()> {
    let work = async {
        let Some(mut body) = store.read(name, MAX_BYTES).await? else {
            return Err(Failure::new(Kind::Usage, format!("there is no {name}")));
        };
        let path = into.join(name.rsplit('/').next().unwrap_or(name));
        let doing = || format!("writing {}", path.display());
        let mut out = OutFile::create(&path).doing(Kind::Store, doing)?;
        while let Some(piece) = body.next().await {
            let piece = piece?;
            space::space(into)?.check(piece.len() as u64, "the snapshot")?;
            out.write_all(&piece).doing(Kind::Store, doing)?;
        }
        out.sync().doing(Kind::Store, doing)
    };
    let done = context.cancel.guard(work).await;
    done.map_err(|failure: Failure| failure.doing(format!("fetching {}/{name}", store.url())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Go's `compress/lzw` (1.19): its table fills twice.
    const NUMBERS: &[u8] = include_bytes!("../../fixtures/foreign/numbers.Z");

    fn unpack(packed: &[u8], buffer: usize) -> io::Result<Vec<u8>> {
        let mut unpacked = Vec::new();
        Lzw::new(BufReader::with_capacity(buffer, packed)).read_to_end(&mut unpacked)?;
        Ok(unpacked)
    }

    #[test]
    fn what_go_packed_is_read_in_pieces_of_any_size_and_not_without_its_end() {
        let line = |number: u32| format!("{number}\n");
        let numbers: String = (0..10_000).map(line).collect();
        for buffer in [1, 7, 8192] {
            assert_eq!(unpack(NUMBERS, buffer).unwrap(), numbers.as_bytes());
        }
        // What follows is not the snapshot's.
        assert_eq!(
            unpack(&[NUMBERS, b"more"].concat(), 8192).unwrap(),
            numbers.as_bytes()
        );
        for length in [0, 1, 5000, NUMBERS.len() - 1] {
            let cut = unpack(&NUMBERS[..length], 8192).unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
        // A code that the table does not have yet.
        assert!(unpack(&[0, 1, 0xff, 0xff], 8192).is_err());
    }
}
