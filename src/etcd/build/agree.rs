//! Reads the new directory as etcd will, before it is renamed into place.

use std::path::Path;

use crate::error::{Failure, Kind, Result};
use crate::etcd::datadir::{self, DbFacts, Layout, Report};
use crate::finding::Severity;

/// Requires that database, WAL and `.snap` files agree; returns what they hold.
pub(in crate::etcd) fn agree(layout: &Layout, facts: &DbFacts, data_dir: &Path) -> Result<Report> {
    let report = datadir::check(layout, Some(facts))?;
    let error = |severity| severity == Severity::Error;
    match report.findings.iter().find(|found| error(found.severity)) {
        Some(found) => Err(disagreement(data_dir, found.to_string())),
        None => Ok(report),
    }
}

/// The failure for a directory that is not what it should be.
pub(in crate::etcd) fn disagreement(data_dir: &Path, what: String) -> Failure {
    let doing = format!("checking what {} is to be", data_dir.display());
    Failure::new(Kind::Unexpected, what).doing(doing)
}
