//! The data directory as an operation finds it: which entries are etcd's, and who owns them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::context::StepContext;
use super::folders::HIDDEN;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::datadir::Layout;
use crate::etcd::restore::{HIDDEN as UNFINISHED, LOST_AND_FOUND};
use crate::node::layout::NodeLayout;
use crate::node::pod::PodManifest;
use crate::sys::owner::{self, Owner};

/// All that etcd itself keeps in its data directory.
pub(crate) const MEMBER: &str = "member";
/// How many names are listed.
const MAX_NAMES: usize = 10;

/// What of a data directory moves: nothing but etcd's own.
pub(crate) fn etcds() -> Vec<String> {
    vec![MEMBER.to_owned()]
}

/// How the step that sets the old data aside is described.
pub(crate) fn describe_aside(data_dir: &Path, aside: &Path, only: &[String]) -> String {
    let (from, to) = (data_dir.display(), aside.display());
    match only {
        [one] => format!("move {} to {to}", data_dir.join(one).display()),
        _ => format!("move the contents of {from} to {to}"),
    }
}

/// A note on entries in the data directory that are not etcd's, if there are any.
pub(crate) fn strangers(layout: &NodeLayout, data_dir: &Path) -> Result<Option<String>> {
    let doing = || format!("listing {}", data_dir.display());
    let entries = match std::fs::read_dir(data_dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(Kind::Store, doing)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.doing(Kind::Store, doing)?.file_name();
        let name = name.to_string_lossy();
        let known = [MEMBER, HIDDEN, LOST_AND_FOUND].contains(&name.as_ref());
        if !known && !name.starts_with(UNFINISHED) {
            names.push(name.into_owned());
        }
    }
    if names.is_empty() {
        return Ok(None);
    }
    names.sort();
    let more = names.len().saturating_sub(MAX_NAMES);
    names.truncate(MAX_NAMES);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Ok(Some(format!(
        "stays in {}, because it does not belong to etcd: {}{more}",
        layout.node_path(data_dir).display(),
        names.join(", ")
    )))
}

/// Refuses a source inside the data directory: the operation would move it away, and `--commit`
/// would delete it.
pub(crate) fn refuse_inside(data_dir: &Path, source: &Path) -> Result<()> {
    let member = data_dir.join(MEMBER);
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if !real(source).starts_with(real(&member)) {
        return Ok(());
    }
    Err(Failure::refused_for_good(
        "source-in-member",
        format!(
            "{} is in {}, which a restore moves away and --commit deletes: copy it elsewhere first, then restore the copy",
            source.display(),
            member.display()
        ),
    ))
}

/// The data directory's new owner, if the pod could not write to it otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owning {
    /// The data directory.
    data_dir: PathBuf,
    /// The user's id.
    uid: u32,
    /// The group's id.
    gid: u32,
    /// Whose it was; `None`: the operation makes it.
    before: Option<(u32, u32)>,
}

impl Owning {
    pub(crate) fn describe(&self) -> String {
        let (dir, uid, gid) = (self.data_dir.display(), self.uid, self.gid);
        format!("give {dir} to user {uid}, group {gid}, which etcd's pod runs as")
    }

    pub(crate) fn apply(&self, node: &StepContext) -> Result<()> {
        owner::chown(&node.host(&self.data_dir), self.uid, self.gid)
    }

    pub(crate) fn undo(&self, node: &StepContext) -> Result<()> {
        match self.before {
            Some((uid, gid)) => owner::chown(&node.host(&self.data_dir), uid, gid),
            None => Ok(()),
        }
    }
}

/// Whose new data is to be.
pub(crate) struct Whose {
    /// The owner and the modes of the new data; `None` keeps those of this process.
    pub(crate) data: Option<Owner>,
    /// What happens to the data directory itself.
    pub(crate) dir: Option<Owning>,
}

/// The owner of etcd's new data: the user that its pod runs as; if the manifest does not say, the
/// owner of the old data, or of the data directory.
///
/// A pod that runs as another user than root cannot use data of a different owner. So the manifest
/// counts more than owners that a restore by another tool may have left.
pub(crate) fn whose(layout: &NodeLayout, data_dir: &Path, pod: &PodManifest) -> Result<Whose> {
    let member = data_dir.join(MEMBER);
    let old = Owner::of(&member, &Layout::new(data_dir, None).db())?;
    let dir = match data_dir.metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        other => {
            let meta = other.doing(Kind::Store, || format!("looking at {}", data_dir.display()))?;
            Some((meta.uid(), meta.gid()))
        }
    };
    // Root can use data of any owner, so that the old owner may stay.
    let runs_as = pod.runs_as("etcd").filter(|(uid, _)| *uid != 0);
    let Some((uid, group)) = runs_as else {
        let data = old.or(dir.map(|(uid, gid)| Owner::private(uid, gid)));
        return Ok(Whose { data, dir: None });
    };
    let modes = old.unwrap_or(Owner::private(uid, 0));
    let gid = group
        .or(old.map(|old| old.gid))
        .or(dir.map(|(_, gid)| gid))
        .unwrap_or(0);
    let owning = Owning {
        data_dir: layout.node_path(data_dir),
        uid,
        gid,
        before: dir,
    };
    Ok(Whose {
        data: Some(Owner { uid, gid, ..modes }),
        dir: dir.is_none_or(|(owner, _)| owner != uid).then_some(owning),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(context: &str) -> PodManifest {
        let text = format!(
            "kind: Pod\nmetadata: {{name: etcd}}\nspec:\n  securityContext: {context}\n  containers:\n  - name: etcd\n"
        );
        PodManifest::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn data_belongs_to_whom_the_pod_runs_as_or_whose_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let layout = NodeLayout::new(dir.path());
        let data = dir.path().join("var/lib/etcd");
        let rootless = pod("{runAsUser: 52034, runAsGroup: 52035}");
        // No data directory yet: it is made for the pod's user.
        let found = whose(&layout, &data, &rootless).unwrap();
        assert_eq!(found.data, Some(Owner::private(52034, 52035)));
        assert_eq!(found.dir.unwrap().before, None);
        let plain = whose(&layout, &data, &pod("{}")).unwrap();
        assert!(plain.data.is_none() && plain.dir.is_none());
        // It exists, and is ours: its owner counts unless the manifest names a user.
        std::fs::create_dir_all(data.join("member/snap")).unwrap();
        let own = data.metadata().unwrap();
        let plain = whose(&layout, &data, &pod("{}")).unwrap();
        let kept = plain.data.unwrap();
        assert_eq!((kept.uid, kept.gid), (own.uid(), own.gid()));
        let found = whose(&layout, &data, &rootless).unwrap();
        assert_eq!(found.data.unwrap().uid, 52034);
        assert_eq!(found.dir.unwrap().before, Some((own.uid(), own.gid())));
    }

    #[test]
    fn what_is_not_etcds_is_named_and_a_source_in_member_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = NodeLayout::new(dir.path());
        let data = dir.path().join("var/lib/etcd");
        std::fs::create_dir_all(data.join("member/snap")).unwrap();
        std::fs::create_dir(data.join("lost+found")).unwrap();
        assert_eq!(strangers(&layout, &data).unwrap(), None);
        for n in 0..12 {
            std::fs::write(data.join(format!("f{n:02}.db")), "").unwrap();
        }
        let told = strangers(&layout, &data).unwrap().unwrap();
        assert!(told.starts_with("stays in /var/lib/etcd,"), "{told}");
        assert!(told.ends_with("f09.db and 2 more"), "{told}");
        refuse_inside(&data, &data.join("f00.db")).unwrap();
        let inside = data.join("member/snap/x.db");
        std::fs::write(&inside, "").unwrap();
        assert!(refuse_inside(&data, &inside).is_err());
    }
}
