//! A file system that keeps no modes: a real exFAT, mounted by FUSE, for few kernels have FAT built in.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bins::skip;
use crate::process::expect_success;
use crate::s3::cache;

/// A mounted image; unmounted when dropped.
pub struct Exfat {
    at: PathBuf,
    device: String,
}

impl Exfat {
    /// Makes an image beside the mount point and mounts it. None where that cannot be, which is
    /// announced.
    pub fn mount(at: &Path) -> Option<Self> {
        let tools = cache().join("exfat");
        let mkfs = tools.join("usr/sbin/mkfs.exfat");
        if !mkfs.is_file() {
            skip("no exFAT here: run scripts/fetch-servers.sh");
            return None;
        }
        std::fs::create_dir_all(at).expect("a mount point");
        let image = at.with_extension("image");
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(64 << 20).expect("its size");
        let made = Command::new(mkfs).arg(&image).output();
        expect_success("mkfs.exfat", &made.expect("running mkfs.exfat"));
        let looped = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&image)
            .output()
            .expect("running losetup");
        if !looped.status.success() {
            let why = String::from_utf8_lossy(&looped.stderr).trim().to_owned();
            skip(&format!("no loop device can be made: {why}"));
            return None;
        }
        let device = String::from_utf8_lossy(&looped.stdout).trim().to_owned();
        let mount = Self {
            at: at.to_owned(),
            device,
        };
        let mounted = Command::new(tools.join("sbin/mount.exfat-fuse"))
            .arg(&mount.device)
            .arg(at)
            .env("LD_LIBRARY_PATH", tools.join("lib"))
            .output()
            .expect("running mount.exfat-fuse");
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
            skip(&format!("no exFAT can be mounted: {why}"));
            return None;
        }
        Some(mount)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Exfat {
    fn drop(&mut self) {
        // One that was not mounted has nothing to unmount; the device goes once nothing uses it.
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .output();
    }
}
