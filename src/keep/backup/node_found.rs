//! What a backup finds out about its node before it writes anything.

use super::request::BackupRequest;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::etcd::known::{Effect, Known};
use crate::keep::{advice, quality};
use crate::node::access::EtcdAccess;
use crate::node::apiserver::ApiServer;
use crate::node::collect::{Fingerprint, ResourcePlan, resource_plan, rollout_fingerprint};
use crate::node::component::Component;
use crate::node::detection::Detection;
use crate::node::layout::NodeLayout;
use crate::node::manifests::{MANIFEST_COPY, describe_rivals};
use crate::node::profile::Profile;

/// What was found out about the node.
pub(super) struct NodeFound {
    pub(super) detection: Detection,
    pub(super) access: EtcdAccess,
    pub(super) plan: ResourcePlan,
    pub(super) before: Fingerprint,
    pub(super) api: ApiServer,
}

impl NodeFound {
    pub(super) fn find(context: &Context, request: &BackupRequest) -> Result<Self> {
        let detection = request.target.detect(context)?;
        refuse_unprivileged(request, detection.profile)?;
        if !detection.two_node_fencing.is_empty() {
            context.warn(
                "two-node-fencing",
                format!(
                    "Pacemaker owns etcd on this node ({}): backups work as on any node, but a restore must go through Pacemaker",
                    detection.two_node_fencing.join("; ")
                ),
            );
        }
        let access = request.target.access(context, &detection)?;
        let layout = &request.target.layout;
        warn_of_copies(context, layout, detection.profile, &access)?;
        let plan = resource_plan(layout, detection.profile)?;
        let before = rollout_fingerprint(layout, detection.profile)?;
        let api = ApiServer::look(layout, detection.profile);
        Ok(Self {
            api,
            detection,
            access,
            plan,
            before,
        })
    }

    pub(super) fn profile(&self) -> Profile {
        self.detection.profile
    }

    /// What this backup alone does not bring back.
    pub(super) fn warn(&self, context: &Context, version: &str) {
        if let Some(what) = advice::partial_cluster(&advice::others_of(&self.api)) {
            context.warn(advice::PARTIAL_CLUSTER, what);
        }
        if let Some(what) = advice::kms(&self.api.kms) {
            context.warn(advice::KMS_ENCRYPTION, what);
        }
        if let Some(known) = Known::of(version, Effect::Data) {
            context.warn(advice::KNOWN_BAD_VERSION, known.sentence());
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.access
            .member_name
            .as_ref()
            .map(|name| name.value.as_str())
    }
}

/// Warns of copies of manifests: a restore is refused as long as they are there.
fn warn_of_copies(
    context: &Context,
    layout: &NodeLayout,
    profile: Profile,
    access: &EtcdAccess,
) -> Result<()> {
    let pods: Vec<_> = Component::ALL
        .into_iter()
        .filter_map(|component| {
            let current = layout.current_manifest(component, profile)?;
            Some((component, layout.read_pod(&current.path).ok()?))
        })
        .collect();
    let keys: Vec<_> = pods
        .iter()
        .map(|(component, pod)| (*component, pod.key()))
        .collect();
    let rivals = layout.rivals(profile, &keys, &access.data_dir_in(layout))?;
    if !rivals.is_empty() {
        context.warn(MANIFEST_COPY, describe_rivals(layout, &rivals));
    }
    Ok(())
}

/// The node's keys and its static pods' resources are root's alone.
fn refuse_unprivileged(request: &BackupRequest, profile: Profile) -> Result<()> {
    if profile == Profile::Bare
        || request.privileged
        || request.allowed.allows(quality::ROOT_REQUIRED)
    {
        return Ok(());
    }
    let what =
        format!("a backup of a node of profile {profile} reads files that only root may read");
    Err(Failure::refused(quality::ROOT_REQUIRED, what))
}
