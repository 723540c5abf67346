//! Which node is meant, and what flags, environment and configuration say of its etcd.

use std::path::PathBuf;

use super::args::ProfileArg;
use super::environment;
use super::session::Session;
use crate::cluster::connect::Target;
use crate::error::Result;
use crate::node::layout::NodeLayout;
use crate::node::member::machine_addresses;
use crate::node::overrides::{AccessOverrides, Sourced};
use crate::node::profile::Profile;

/// The node that is meant.
pub(super) fn target(session: &Session) -> Result<Target> {
    Ok(Target {
        layout: NodeLayout::new(&session.root),
        profile: profile(session),
        overrides: overrides(session)?,
    })
}

fn profile(session: &Session) -> Option<Profile> {
    match session.global.profile.or(session.config.profile)? {
        ProfileArg::Auto => None,
        ProfileArg::Openshift => Some(Profile::Openshift),
        ProfileArg::Kubeadm => Some(Profile::Kubeadm),
        ProfileArg::Bare => Some(Profile::Bare),
    }
}

/// What flags, environment and configuration say of etcd, in this order; where the value came
/// from goes with it.
fn overrides(session: &Session) -> Result<AccessOverrides> {
    let (global, config) = (&session.global, &session.config);
    let path = |flag: &Option<PathBuf>, name: &str, variable: &str, key: &Option<PathBuf>| {
        let option = flag
            .clone()
            .map(|path| Sourced::new(path, format!("--{name}")));
        let environment = || {
            Some(Sourced::new(
                PathBuf::from(environment::variable(variable)?),
                variable,
            ))
        };
        let file = || {
            key.clone()
                .map(|path| Sourced::new(path, format!("{name} in the configuration")))
        };
        option.or_else(environment).or_else(file)
    };
    let endpoints = if global.endpoints.is_empty() {
        match std::env::var("ETCDCTL_ENDPOINTS") {
            Ok(list) if !list.is_empty() => Some(Sourced::new(
                list.split(',').map(|url| url.trim().to_owned()).collect(),
                "ETCDCTL_ENDPOINTS",
            )),
            _ if !config.endpoints.is_empty() => Some(Sourced::new(
                config.endpoints.clone(),
                "endpoints in the configuration",
            )),
            _ => None,
        }
    } else {
        Some(Sourced::new(global.endpoints.clone(), "--endpoints"))
    };
    let node = match (&global.node_name, &config.node_name) {
        (Some(name), _) => Some(Sourced::new(name.clone(), "--node-name")),
        (None, Some(name)) => Some(Sourced::new(name.clone(), "node-name in the configuration")),
        (None, None) => None,
    };
    Ok(AccessOverrides {
        endpoints,
        ca: path(&global.cacert, "cacert", "ETCDCTL_CACERT", &config.cacert),
        cert: path(&global.cert, "cert", "ETCDCTL_CERT", &config.cert),
        key: path(&global.key, "key", "ETCDCTL_KEY", &config.key),
        node,
        data_dir: None,
        local_addresses: machine_addresses()?,
    })
}
