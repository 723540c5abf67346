//! The layers of one backup, each ok, failed, or not checked and why.

use serde::Serialize;

use crate::etcd::snapshot::LayerState as DatabaseLayer;
use crate::finding::{Finding, Layer, Severity};
use crate::keep::database;

/// The layers of the snapshot.
pub(super) const DATABASE_LAYERS: [Layer; 4] =
    [Layer::Trailer, Layer::Meta, Layer::Pages, Layer::Keys];

/// The state of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    /// Nothing was found.
    Ok,
    /// It is broken.
    Failed,
    /// It was not checked.
    NotChecked,
    /// The snapshot has no trailer: not streamed by a voting member's server, or a copied file.
    Unsealed,
}

impl LayerState {
    /// The word shown for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::NotChecked => "not checked",
            Self::Unsealed => "no hash",
        }
    }
}

/// One layer of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerReport {
    /// Which.
    pub layer: Layer,
    /// Its state.
    pub state: LayerState,
    /// What was seen, or why it was not checked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The layers of one backup, as they are checked.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) reports: Vec<LayerReport>,
    pub(super) findings: Vec<Finding>,
}

impl Layers {
    /// Closes a layer: failed where it has an error among the findings.
    pub(super) fn close(&mut self, layer: Layer, detail: impl Into<String>) {
        let failed = self
            .findings
            .iter()
            .any(|found| found.layer == layer && found.severity == Severity::Error);
        let state = if failed {
            LayerState::Failed
        } else {
            LayerState::Ok
        };
        self.put(layer, state, detail);
    }

    pub(super) fn skip(&mut self, layer: Layer, why: impl Into<String>) {
        self.put(layer, LayerState::NotChecked, why);
    }

    pub(super) fn put(&mut self, layer: Layer, state: LayerState, detail: impl Into<String>) {
        self.reports.push(LayerReport {
            layer,
            state,
            detail: detail.into(),
        });
    }

    /// Takes over the layers of a database.
    pub(super) fn database(&mut self, report: &database::Report, file: &str) {
        let findings = &report.findings;
        self.findings.extend(
            findings
                .listed()
                .iter()
                .cloned()
                .map(|found| found.in_file(file)),
        );
        for layer in DATABASE_LAYERS {
            let of_layer = findings
                .tallies()
                .iter()
                .filter(|tally| tally.layer == layer);
            let unlisted: u64 = of_layer.map(|tally| tally.unlisted).sum();
            let more = if unlisted == 0 {
                String::new()
            } else {
                format!("{unlisted} more findings are not shown")
            };
            match report.layer(layer) {
                Some(DatabaseLayer::Ok) => self.close(layer, detail(layer, report)),
                Some(DatabaseLayer::Failed) => self.put(layer, LayerState::Failed, more),
                Some(DatabaseLayer::Unsealed) => {
                    let why = match report.raw_copy {
                        true => "a copy of a database file has no integrity hash",
                        false => "it does not end with a SHA-256",
                    };
                    self.put(layer, LayerState::Unsealed, why);
                }
                Some(DatabaseLayer::NotChecked(why)) => self.skip(layer, why.clone()),
                None => self.skip(layer, "it was not reached"),
            }
        }
    }

    pub(super) fn good(&self) -> bool {
        self.reports
            .iter()
            .all(|report| report.state != LayerState::Failed)
    }
}

/// What is worth saying of a layer that is whole.
fn detail(layer: Layer, report: &database::Report) -> String {
    let Some(facts) = &report.facts else {
        return String::new();
    };
    match layer {
        Layer::Trailer => "SHA-256 holds".to_owned(),
        Layer::Meta => format!(
            "transaction {}, pages of {} bytes",
            facts.transaction, facts.page_size
        ),
        Layer::Pages => {
            let pages = facts.total_size / u64::from(facts.page_size.max(1));
            format!("{pages} pages, {} of them free", facts.free_pages)
        }
        _ => format!(
            "revision {}, {} keys, {} revisions",
            facts.revision, facts.keys, facts.revisions
        ),
    }
}
