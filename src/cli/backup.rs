//! `backup`: arguments, configuration and environment to a request, its result to text and JSON.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::args::{BackupArgs, ProfileArg, parse_duration, parse_size};
use super::run::{Session, Shown};
use super::{config, human, machine};
use crate::error::{Failure, Kind, Result};
use crate::node::access::{Sourced, Told};
use crate::node::layout::NodeLayout;
use crate::node::member::machine_addresses;
use crate::node::profile::Profile;
use crate::ops::backup::{self, BackupRequest, Destination, Outcome, Taken};
use crate::ops::quality::{Allowed, CHECKS};

/// How long nothing may come of a snapshot, unless told.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes a backup.
pub(super) fn run(session: &Session, args: &BackupArgs) -> Result<Shown> {
    let request = request(session, args)?;
    let outcome = session.block_on(backup::run(&session.context, &request))?;
    Ok(match outcome {
        Outcome::YoungEnough { name, age } => {
            let age = age.as_secs().unsigned_abs();
            Shown::done(
                format!("nothing to do: {name} is {} old\n", human::span(age)),
                machine::document(
                    "backup",
                    &json!({"result": "young-enough", "set": name, "ageSeconds": age}),
                ),
            )
        }
        Outcome::Taken(taken) => {
            Shown::done(text(&taken), machine::document("backup", &document(&taken)))
        }
    })
}

fn request(session: &Session, args: &BackupArgs) -> Result<BackupRequest> {
    let configured = &session.config.backup;
    let mut allow = args.allow.clone();
    allow.extend(configured.allow.iter().cloned());
    for name in &allow {
        if !CHECKS.contains(&name.as_str()) {
            let nearest =
                config::nearest(name, &CHECKS).map(|near| format!("; did you mean {near:?}?"));
            let known =
                nearest.unwrap_or_else(|| format!("; the checks are {}", CHECKS.join(", ")));
            return Err(Failure::new(
                Kind::Usage,
                format!("there is no check {name:?}{known}"),
            ));
        }
    }
    let usage = |what: String| Failure::new(Kind::Usage, what);
    let max_rate = match (args.max_rate, &configured.max_rate) {
        (Some(rate), _) => Some(rate),
        (None, Some(text)) => Some(parse_size(text).map_err(usage)?),
        (None, None) => None,
    };
    let stall_timeout = match (args.stall_timeout, &configured.stall_timeout) {
        (Some(time), _) => time,
        (None, Some(text)) => parse_duration(text).map_err(usage)?,
        (None, None) => STALL_TIMEOUT,
    };
    Ok(BackupRequest {
        layout: NodeLayout::new(&session.root),
        profile: profile(session),
        told: told(session)?,
        host: host_name(),
        destination: destination(session, args)?,
        if_older_than: args.if_older_than,
        allowed: Allowed {
            names: allow,
            all: args.force,
        },
        check_members: args.check_members || configured.check_members,
        max_rate: max_rate.and_then(NonZeroU64::new),
        stall_timeout,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
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

fn destination(session: &Session, args: &BackupArgs) -> Result<Destination> {
    if let Some(dir) = &args.flat {
        return Ok(Destination::Flat(dir.clone()));
    }
    if args.store.is_none() && session.config.store.is_none() {
        return Ok(Destination::DefaultStore);
    }
    Ok(Destination::Store(
        session.store(args.store.as_deref())?.dir().to_owned(),
    ))
}

/// What flags, environment and configuration say of etcd, in this order; where the value came
/// from goes with it.
fn told(session: &Session) -> Result<Told> {
    let (global, config) = (&session.global, &session.config);
    let path = |flag: &Option<PathBuf>, name: &str, variable: &str, key: &Option<PathBuf>| {
        let option = flag
            .clone()
            .map(|path| Sourced::new(path, format!("--{name}")));
        let environment = || {
            Some(Sourced::new(
                PathBuf::from(std::env::var_os(variable)?),
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
    Ok(Told {
        endpoints,
        ca: path(&global.cacert, "cacert", "ETCDCTL_CACERT", &config.cacert),
        cert: path(&global.cert, "cert", "ETCDCTL_CERT", &config.cert),
        key: path(&global.key, "key", "ETCDCTL_KEY", &config.key),
        node,
        data_dir: None,
        local_addresses: machine_addresses()?,
    })
}

/// The kernel's name for this host; it goes into the Manifest only.
fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn text(taken: &Taken) -> String {
    let manifest = &taken.manifest;
    let mut text = String::new();
    let state = if manifest.quality.reasons.is_empty() {
        "good"
    } else {
        "dirty"
    };
    let what = if taken.is_set {
        format!("{} ({state})", manifest.id)
    } else {
        format!("a {state} backup")
    };
    text.push_str(&format!("{what} in {}\n", taken.dir.display()));
    for file in &manifest.files {
        text.push_str(&format!("  {}  {}\n", file.name, HumanBytes(file.size)));
    }
    text.push_str(&human::reasons(manifest));
    text
}

fn document(taken: &Taken) -> Value {
    json!({"result": "taken", "directory": taken.dir, "isSet": taken.is_set, "manifest": taken.manifest})
}
