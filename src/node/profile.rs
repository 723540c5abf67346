//! The kinds of nodes.

use std::fmt;

/// Where manifests, certificates and data are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// OpenShift: revisioned static pods and `etcd.env`.
    Openshift,
    /// kubeadm: plain manifests and `/etc/kubernetes/pki`.
    Kubeadm,
    /// An etcd without static pods; the caller configures everything.
    Bare,
}

impl Profile {
    /// The stable word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Openshift => "openshift",
            Self::Kubeadm => "kubeadm",
            Self::Bare => "bare",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
