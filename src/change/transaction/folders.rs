//! The folders of an operation, each on the mount of what it holds: no rename crosses a mount.
//!
//! ```text
//! /etc/kubernetes/.etcd-dr/<id>/        a hidden name, which neither kubelet nor operators read
//!   incoming/        the archives, unpacked
//!   manifests-new/   the manifests that go into place
//!   manifests/       those that were there
//!   aside/           revisions and certificates that were there
//! <state or data directory>/<id>/
//!   data-new/        etcd's new data until it is in place
//!   data/            the old data
//! /var/lib/etcd-dr/<id>/outside/       where that is another mount than /etc/kubernetes:
//!   new/, aside/     files from elsewhere on the node that come, and that were there
//! ```
//!
//! The second is in `/var/lib/etcd-dr` where that is on the data directory's mount, otherwise
//! hidden in the data directory itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::node::layout::NodeLayout;
use crate::node::profile::Profile;
use crate::sys::mount::Mounts;

/// The hidden directory for what must stay on a mount.
pub(crate) const HIDDEN: &str = ".etcd-dr";

/// What a restore takes from and puts below, on any node.
pub(crate) fn places(layout: &NodeLayout) -> [PathBuf; 3] {
    [layout.manifests(), layout.resources(), layout.pki()]
}

/// The folders, as host paths.
pub(crate) struct Folders {
    /// On the mount of `/etc/kubernetes`.
    pub(crate) etc: PathBuf,
    /// On the mount of the data directory.
    pub(crate) data: PathBuf,
    /// What in the data directory is ours and stays.
    pub(crate) keep: Vec<OsString>,
}

impl Folders {
    /// The folders of the operation of this name, which takes files from these host paths or puts
    /// some there.
    pub(crate) fn find(
        layout: &NodeLayout,
        mounts: &Mounts,
        data_dir: &Path,
        id: &str,
        taken: &[PathBuf],
    ) -> Result<Self> {
        let real = |path: &Path| layout.resolve(layout.node_path(path));
        let kubernetes = real(&layout.kubernetes())?;
        let etc = kubernetes.join(HIDDEN).join(id);
        for taken in taken {
            let taken = real(taken)?;
            if taken.exists() && mounts.of(&taken)? != mounts.of_nearest(&etc)? {
                return Err(Failure::refused_for_good(
                    "cross-mount",
                    format!(
                        "{} and {} are on different mounts, so files cannot be renamed between them",
                        taken.display(),
                        kubernetes.display()
                    ),
                ));
            }
        }
        let state = layout.state();
        let together = mounts.of_nearest(&state)? == mounts.of_nearest(data_dir)?;
        let (data, keep) = if together {
            (state.join(id), Vec::new())
        } else {
            (data_dir.join(HIDDEN).join(id), vec![OsString::from(HIDDEN)])
        };
        Ok(Self { etc, data, keep })
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.etc.join("incoming")
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.etc.join("manifests")
    }

    pub(crate) fn manifests_new(&self) -> PathBuf {
        self.etc.join("manifests-new")
    }

    pub(crate) fn old_data(&self) -> PathBuf {
        self.data.join("data")
    }

    pub(crate) fn new_data(&self) -> PathBuf {
        self.data.join("data-new")
    }

    /// For files that go to the state directory's mount, if `/etc/kubernetes` is on another.
    pub(crate) fn outside(&self, layout: &NodeLayout) -> PathBuf {
        let own = self.own(layout).unwrap_or_else(|| layout.state());
        own.join("outside")
    }

    /// Where something of this name is kept in [`Folders::outside`].
    pub(crate) fn outside_aside(&self, layout: &NodeLayout, name: &Path) -> PathBuf {
        self.outside(layout).join("aside").join(flat(name))
    }

    pub(crate) fn aside(&self, name: &Path) -> PathBuf {
        self.etc.join("aside").join(flat(name))
    }

    /// Everything that is kept for the rollback, as node paths.
    pub(crate) fn safety(&self, layout: &NodeLayout) -> Vec<PathBuf> {
        let all = [self.etc.clone(), self.old_data(), self.new_data()];
        all.iter().map(|path| layout.node_path(path)).collect()
    }

    /// The directories to be made, as node paths, parents first. The operation's own folder is made
    /// with its journal.
    pub(crate) fn missing(
        &self,
        layout: &NodeLayout,
        profile: Profile,
        data_dir: &Path,
    ) -> Vec<PathBuf> {
        let mut wanted = vec![
            data_dir.to_owned(),
            // An archive goes into a directory that is there and empty.
            self.incoming().join("resources"),
            self.incoming().join("certificates"),
            self.manifests_new(),
            self.manifests(),
            self.etc.join("aside"),
            layout.manifests(),
            self.old_data(),
        ];
        if profile == Profile::Openshift {
            wanted.push(layout.resources());
        }
        self.missing_of(layout, wanted)
    }

    /// Those that are to be made for these host paths.
    pub(crate) fn missing_of(
        &self,
        layout: &NodeLayout,
        wanted: impl IntoIterator<Item = PathBuf>,
    ) -> Vec<PathBuf> {
        let own = self.own(layout);
        let mut missing: Vec<PathBuf> = Vec::new();
        for path in wanted {
            let mut chain: Vec<&Path> = path
                .ancestors()
                .take_while(|above| !above.exists() && Some(*above) != own.as_deref())
                .collect();
            chain.reverse();
            for above in chain {
                let above = layout.node_path(above);
                if !missing.contains(&above) {
                    missing.push(above);
                }
            }
        }
        missing
    }

    fn own(&self, layout: &NodeLayout) -> Option<PathBuf> {
        Some(layout.state().join(self.etc.file_name()?))
    }
}

/// Flattens a path into one name, so that files from different directories can be in one.
fn flat(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("+")
}
