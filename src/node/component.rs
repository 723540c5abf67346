//! The four control-plane components and every name they go by.

use std::fmt;

use super::profile::Profile;

/// A control-plane component that runs as a static pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// `kube-apiserver`.
    KubeApiserver,
    /// `kube-controller-manager`.
    KubeControllerManager,
    /// `kube-scheduler`.
    KubeScheduler,
    /// `etcd`.
    Etcd,
}

impl Component {
    /// All four, in the order OpenShift's backup script archives them.
    pub const ALL: [Self; 4] = [
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Etcd,
    ];

    /// The name that directories and manifest files start with, and the name of OpenShift's
    /// ClusterOperator for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Etcd => "etcd",
        }
    }

    /// The component with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// The name of OpenShift's ClusterOperator that rolls this component out.
    pub const fn cluster_operator(self) -> &'static str {
        self.name()
    }

    /// The manifest's file name, or nothing if the profile has no static pods.
    pub fn manifest_file(self, profile: Profile) -> Option<String> {
        match profile {
            Profile::Openshift => Some(format!("{}-pod.yaml", self.name())),
            Profile::Kubeadm => Some(format!("{}.yaml", self.name())),
            Profile::Bare => None,
        }
    }

    /// `metadata.name` of OpenShift's static pod.
    pub const fn pod_name(self) -> &'static str {
        match self {
            Self::KubeScheduler => "openshift-kube-scheduler",
            other => other.name(),
        }
    }

    /// `metadata.namespace` of OpenShift's static pod.
    pub const fn namespace(self) -> &'static str {
        match self {
            Self::KubeApiserver => "openshift-kube-apiserver",
            Self::KubeControllerManager => "openshift-kube-controller-manager",
            Self::KubeScheduler => "openshift-kube-scheduler",
            Self::Etcd => "openshift-etcd",
        }
    }

    /// What a revisioned directory's name starts with, before its number: `etcd-pod-`.
    pub fn revision_prefix(self) -> String {
        format!("{}-pod-", self.name())
    }

    /// The name of the directory with unrevisioned certificates: `etcd-certs`.
    pub fn certs_dir(self) -> String {
        format!("{}-certs", self.name())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One rolled-out revision of a component's static pod; displays as its directory, `etcd-pod-7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRevision {
    /// Whose revision it is.
    pub component: Component,
    /// The operator's count.
    pub number: u32,
}

impl PodRevision {
    /// Reads a directory name such as `etcd-pod-7`; nothing else passes, not even a leading zero.
    pub fn from_dir_name(name: &str) -> Option<Self> {
        Component::ALL.into_iter().find_map(|component| {
            let digits = name.strip_prefix(component.revision_prefix().as_str())?;
            let canonical = digits == "0" || !digits.starts_with('0');
            if !canonical || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            Some(Self {
                component,
                number: digits.parse().ok()?,
            })
        })
    }
}

impl fmt::Display for PodRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.component.revision_prefix(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_directory_reads_back() {
        for component in Component::ALL {
            let revision = PodRevision {
                component,
                number: 12,
            };
            assert_eq!(
                PodRevision::from_dir_name(&revision.to_string()),
                Some(revision)
            );
            assert_eq!(Component::from_name(component.name()), Some(component));
        }
    }

    #[test]
    fn other_directories_are_not_revisions() {
        for name in [
            "etcd-pod-",
            "etcd-pod",
            "etcd-pod-7.bak",
            "etcd-pod-07",
            "etcd-pod-+7",
            "etcd-pod--7",
            "etcd-certs",
            "etcd-pod-99999999999",
            "my-etcd-pod-7",
        ] {
            assert_eq!(PodRevision::from_dir_name(name), None, "{name}");
        }
    }
}
