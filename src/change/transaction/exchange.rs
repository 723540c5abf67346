//! Puts one file or directory in place of another. Most steps of a change consist of such
//! exchanges.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::context::StepContext;
use super::info::PodInfo;
use super::moves;
use crate::error::Result;
use crate::node::component::Component;

/// One thing to be put in place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// What comes; `None`: the place stays empty.
    pub incoming: Option<PathBuf>,
    /// Where it goes.
    pub place: PathBuf,
    /// Where what is there goes.
    pub aside: PathBuf,
}

impl Exchange {
    /// Puts it in place.
    pub(crate) fn apply(&self, node: &StepContext) -> Result<()> {
        let incoming = self.incoming.as_ref().map(|path| node.host(path));
        moves::swap(
            incoming.as_deref(),
            &node.host(&self.place),
            &node.host(&self.aside),
        )
    }

    /// Takes it back.
    pub(crate) fn revert(&self, node: &StepContext) -> Result<()> {
        let incoming = self.incoming.as_ref().map(|path| node.host(path));
        moves::swap_back(
            incoming.as_deref(),
            &node.host(&self.place),
            &node.host(&self.aside),
        )
    }

    /// Whether its place is that of a live manifest, by default `etcd-pod.yaml` on OpenShift,
    /// `etcd.yaml` on kubeadm's nodes.
    pub(crate) fn is_manifest_of(&self, pod: &PodInfo) -> bool {
        if let Some(manifest) = &pod.manifest {
            return *manifest == self.place;
        }
        let name = self.place.file_name().unwrap_or_default();
        ["-pod.yaml", ".yaml"]
            .iter()
            .any(|end| name.to_str() == Some(format!("{}{end}", pod.component).as_str()))
    }
}

/// Whether etcd's manifest is among those that these move.
pub(crate) fn moves_etcd(node: &StepContext, moves: &[Exchange]) -> bool {
    let mut pods = node.facts.pods.iter();
    pods.any(|pod| {
        pod.component == Component::Etcd.name()
            && moves.iter().any(|exchange| exchange.is_manifest_of(pod))
    })
}
