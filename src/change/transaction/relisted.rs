//! When the kubelet knows of what was removed from the container runtime.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

/// How long the kubelet takes to know what was removed from the runtime: it lists the runtime's
/// containers once a second (kubernetes, `pkg/kubelet/kubelet.go`, `plegRelistPeriod`).
const RELIST: Duration = Duration::from_millis(1300);

/// The moment at which the kubelet knows of everything that was removed from the runtime so far.
///
/// A manifest must not come back earlier: the kubelet would take what is removed for there, and
/// wait as after a crash or, up to 1.21, fail on the pod that is gone and try again after ten
/// seconds.
#[derive(Clone, Default)]
pub(crate) struct Relisted(Arc<Mutex<Option<Instant>>>);

impl Relisted {
    /// Something was removed just now.
    pub(crate) fn removed(&self) {
        if let Ok(mut at) = self.0.lock() {
            *at = Some(Instant::now() + RELIST);
        }
    }

    /// That moment, if anything was removed.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.0.lock().ok().and_then(|at| *at)
    }
}
