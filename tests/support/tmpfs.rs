//! Small file systems: full ones, read-only ones, their own mounts.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bins;
use crate::process::expect_success;

/// A tmpfs; unmounted when dropped.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of a size as mount(8) reads it, on a directory that is made where it is absent.
    /// None where this may not mount, which is announced.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a mount point");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700")])
            .arg("tmpfs")
            .arg(at)
            .output()
            .expect("running mount");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bins::skip(&format!("no small file system can be mounted: {why}"));
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Changes its options: `ro`, `size=512m`.
    pub fn remount(&self, options: &str) {
        let output = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .output();
        expect_success("mount -o remount", &output.expect("running mount"));
    }

    /// Fills it to the last byte with a file of this name, which is returned.
    pub fn fill(&self, name: &str) -> PathBuf {
        let ballast = self.0.join(name);
        let mut file = std::fs::File::create(&ballast).expect("a file");
        let full = std::io::copy(&mut std::io::repeat(1), &mut file);
        let full = full.expect_err("the file system is full");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        ballast
    }

    /// The bytes that are free.
    pub fn free(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.0).expect("its space");
        space.f_bavail * space.f_frsize
    }

    /// Takes all but so many bytes with a file of this name.
    pub fn leave_free(&self, name: &str, left: u64) {
        let file = std::fs::File::create(self.0.join(name)).expect("a file");
        let taken = self.free().checked_sub(left).expect("so many are free");
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, flags, 0, taken).expect("taking the room");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A failing test may still have it in use; lazily it goes when that ends.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
