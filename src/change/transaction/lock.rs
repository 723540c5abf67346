//! The locks of everything that changes a node.

use crate::context::Context;
use crate::error::Result;
use crate::node::component::Component;
use crate::node::detection;
use crate::node::layout::NodeLayout;
use crate::node::profile::Profile;
use crate::sys::fs;
use crate::sys::lock::Lock;

/// Holds the node's locks: no other run and no OpenShift installer changes the node meanwhile.
#[derive(Debug)]
pub struct Locked {
    _own: Lock,
    _installers: Vec<Lock>,
}

impl Locked {
    /// Takes all locks; `doing` tells other processes what the holder does.
    ///
    /// # Errors
    /// [`crate::error::Kind::Busy`] if another process holds one.
    pub fn take(context: &Context, layout: &NodeLayout, doing: &str) -> Result<Self> {
        let path = layout.lock();
        fs::mkdir_all(fs::parent(&path))?;
        let own = Lock::acquire(&path, doing)?;
        Ok(Self {
            _own: own,
            _installers: lock_installers(context, layout)?,
        })
    }
}

/// OpenShift's installer pods hold one lock per component while they write; other nodes have no
/// such locks.
fn lock_installers(context: &Context, layout: &NodeLayout) -> Result<Vec<Lock>> {
    let mut held = Vec::new();
    // During an unfinished restore the manifests may be missing; the revisions are still there.
    let has_revisions =
        std::fs::read_dir(layout.resources()).is_ok_and(|mut all| all.next().is_some());
    if !has_revisions && detection::look(layout, None)?.profile != Profile::Openshift {
        return Ok(held);
    }
    for component in Component::ALL {
        let path = layout.installer_lock(component);
        if !fs::parent(&path).is_dir() {
            continue;
        }
        match Lock::hold(&path)? {
            Some(lock) => held.push(lock),
            None => context.warn(
                "foreign-lock",
                format!(
                    "{} is a link or another user's file, so it is not an installer's lock: it is ignored",
                    path.display()
                ),
            ),
        }
    }
    Ok(held)
}
