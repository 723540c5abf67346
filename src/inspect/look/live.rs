//! The data of the running cluster, as one more database to look into.

use std::path::Path;
use std::sync::Arc;

use super::source::Source;
use crate::cluster::connect::{self, Target};
use crate::context::Context;
use crate::error::{Doing, Kind, Result};
use crate::etcd::download::{DownloadOptions, download};
use crate::event::Event;
use crate::sys::fs::OutFile;
use crate::sys::space;

const PHASE: &str = "snapshot";

/// Takes a snapshot of the local member into a folder, only to look at it.
///
/// # Errors
/// [`Kind::Unreachable`] if etcd does not serve, [`Kind::Store`] if there is no room.
pub async fn snapshot(context: &Context, target: &Target, into: &Path) -> Result<Source> {
    let access = target.access(context, &target.detect(context)?)?;
    let path = into.join("live.db");
    let work = async {
        let connection = connect::connect(&access, &connect::options(&access)?).await?;
        let status = connection.status().await?;
        space::space(into)?.check(status.db_size, "the snapshot")?;
        context.tell(Event::PhaseStarted {
            phase: PHASE,
            about: format!("taking a snapshot from {}", access.endpoint.value),
            total: Some(status.db_size),
        });
        let doing = || format!("creating {}", path.display());
        let file = OutFile::create(&path).doing(Kind::Store, doing)?;
        let sink = file.file().try_clone().doing(Kind::Store, doing)?;
        let observer = Arc::clone(&context.observer);
        let options = DownloadOptions {
            on_progress: Some(Arc::new(move |progress| {
                observer.event(Event::PhaseProgress {
                    phase: PHASE,
                    done: progress.received,
                });
            })),
            ..DownloadOptions::default()
        };
        let (_, downloaded) = download(&connection, sink, &options).await?;
        context.tell(Event::PhaseDone {
            phase: PHASE,
            done: downloaded.size,
        });
        Ok(())
    };
    context.cancel.guard(work).await?;
    Ok(Source {
        name: "live".to_owned(),
        database: path,
        archives: Vec::new(),
        created: Some(context.now),
        of_member: false,
    })
}
