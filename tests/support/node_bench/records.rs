//! What the stand-in kubelet did, as the stand-in runtime lists it.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

/// A pod that was ever started.
#[derive(Debug, Clone)]
pub struct SandboxRecord {
    pub id: String,
    /// The manifest's name, without the node's.
    pub manifest_name: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
    pub ready: bool,
    /// Whether the runtime was told to forget it.
    pub removed: bool,
    pub created: i64,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// A container that was ever started.
#[derive(Debug, Clone)]
pub struct ContainerRecord {
    pub id: String,
    pub sandbox_id: String,
    pub manifest_name: String,
    pub name: String,
    pub attempt: u32,
    pub image: String,
    pub running: bool,
    /// The process that it is true of, as long as it lives.
    pub pid: Option<u32>,
    pub created: i64,
    /// When its process was gone.
    pub ended: Option<Instant>,
    /// Whether the runtime was told to forget it.
    pub removed: bool,
    pub labels: BTreeMap<String, String>,
}

/// Everything that was ever started, oldest first.
#[derive(Debug, Default)]
pub struct Records {
    pub sandboxes: Vec<SandboxRecord>,
    pub containers: Vec<ContainerRecord>,
    made: u64,
}

impl Records {
    /// An id as runtimes make them: 64 hexadecimal digits.
    pub fn new_id(&mut self) -> String {
        self.made += 1;
        let seed = format!("{} {} {}", std::process::id(), self.made, now());
        hex::encode(Sha256::digest(seed))
    }

    /// How many containers of this name the pod had before.
    pub fn attempts(&self, uid: &str, name: &str) -> u32 {
        let label = |c: &ContainerRecord| c.labels.get("io.kubernetes.pod.uid").cloned();
        let before = self
            .containers
            .iter()
            .filter(|c| c.name == name && label(c).as_deref() == Some(uid));
        u32::try_from(before.count()).expect("few attempts")
    }

    /// When the last container ended that the runtime still lists of this pod.
    pub fn last_end(&self, uid: &str) -> Option<Instant> {
        let of_pod = |c: &&ContainerRecord| {
            let label = c.labels.get("io.kubernetes.pod.uid");
            !c.removed && label.is_some_and(|label| label == uid)
        };
        let ends = self.containers.iter().filter(of_pod);
        ends.filter_map(|container| container.ended).max()
    }

    /// How many sandboxes the pod had before.
    pub fn sandbox_attempts(&self, uid: &str) -> u32 {
        let before = self.sandboxes.iter().filter(|s| s.uid == uid);
        u32::try_from(before.count()).expect("few attempts")
    }

    /// Notes that these containers' process is gone.
    pub fn ended(&mut self, ids: &[String]) {
        for container in &mut self.containers {
            if ids.contains(&container.id) {
                container.running = false;
                container.pid = None;
                container.ended = Some(Instant::now());
            }
        }
    }
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    i64::try_from(since.as_nanos()).expect("a clock before 2262")
}
