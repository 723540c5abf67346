//! Rehearsals beside the schedule: how they are made, and what is said of them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::args::ScheduleArgs;
use super::output::error;
use super::session::{Session, scratch};
use super::verify::rehearse::programs;
use crate::change::rehearse;
use crate::error::{Kind, Result};
use crate::keep::metrics::Metrics;
use crate::keep::schedule::{Rehearsals, Rehearse};

/// How backups are rehearsed, if they are. What killed rehearsals have left is removed.
pub(super) fn of(session: &Session, args: &ScheduleArgs, metrics: &Metrics) -> Option<Rehearsals> {
    let configured = &session.config.schedule;
    let every = args.rehearse.or(configured.rehearse)?;
    let given = args.scratch.as_deref().or(configured.scratch.as_deref());
    let scratch = scratch(given);
    let given = args.etcd.clone().or_else(|| configured.etcd.clone());
    let programs = programs(session, given);
    let limit = args.rehearse_timeout;
    metrics.rehearses(every);
    rehearse::sweep(&scratch);
    let rehearse: Rehearse = Arc::new(move |context, set| {
        let (programs, scratch) = (programs.clone(), scratch.clone());
        Box::pin(async move { rehearse::scheduled(&context, set, programs, scratch, limit).await })
    });
    Some(Rehearsals::new(every, rehearse))
}

/// A rehearsal for programs, and what it found for people.
pub(super) fn told((name, came): (String, Result<bool>), remarks: &mut Vec<String>) -> Value {
    match came {
        Ok(good) => {
            if !good {
                remarks.push(format!(
                    "error: etcd does not serve {name}\n  hint: to see why: etcd-dr verify {name} --rehearse"
                ));
            }
            json!({"set": name, "good": good})
        }
        Err(failure) => {
            if failure.kind() != Kind::Interrupted {
                remarks.push(error::render("schedule", &failure));
            }
            json!({"set": name, "error": failure.to_string()})
        }
    }
}
