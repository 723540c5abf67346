//! What the kernel lets this process do.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use crate::error::{Failure, Kind, Result};

/// File descriptors that a run may need at once: tokio's own, connections to every member and to a
/// store, the files of a set, the levels of a tree that is removed.
const DESCRIPTORS: u64 = 1024;
/// With fewer than these no runtime starts, and causes of failures are misleading.
const FEWEST: u64 = 64;

/// Forbids core dumps: memory holds keys and what is in etcd. The size limit stops core files;
/// core_pattern(5) programs ignore it, so that the process is not dumpable either. For another user
/// than root that would also close its own `/proc/self/fd` (proc(5)), so there the limit has to do.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    if rustix::process::geteuid().is_root() {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

/// Raises the soft limit of open files as far as a run needs it.
///
/// # Errors
/// [`Kind::Usage`] if the hard limit is below what any run needs.
pub fn raise_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    let wanted = DESCRIPTORS.min(maximum);
    let mut now = current;
    if current < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            now = wanted;
        }
    }
    if now < FEWEST {
        return Err(Failure::new(
            Kind::Usage,
            format!(
                "this process may open {now} files, and needs at least {FEWEST}: raise the limit (ulimit -n, or \
                 LimitNOFILE= of the unit)"
            ),
        ));
    }
    Ok(())
}
