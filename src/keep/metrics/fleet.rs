//! What a monitor sees of many clusters: one series for each cluster and node, so that one that is well hides
//! none that is not, and one for each that is expected, so that what is absent shows.

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Number, OfStore, exposition, seconds};
use crate::error::{Doing, Kind, Result};
use crate::keep::fleet::{Line, Proof, State};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNode {
    cluster: String,
    node: String,
    name: String,
}

/// The metrics of one look at a fleet.
#[derive(Debug)]
pub struct FleetMetrics {
    registry: Registry,
}

impl FleetMetrics {
    /// What lines say, and whether each store could be read.
    pub fn new<'a>(
        lines: &[Line],
        stores: impl Iterator<Item = (&'a str, bool)>,
        now: Timestamp,
    ) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
        };
        let checked = Number::default();
        checked.set(seconds(now));
        let help = "When the stores were looked at";
        metrics
            .registry
            .register("etcd_dr_fleet_checked_timestamp_seconds", help, checked);
        let reachable: Family<OfStore, Number> = Family::default();
        for (store, whole) in stores {
            let of = OfStore {
                store: store.to_owned(),
            };
            reachable.get_or_create(&of).set(f64::from(u8::from(whole)));
        }
        let help = "Whether all of a store could be read";
        metrics
            .registry
            .register("etcd_dr_fleet_store_reachable", help, reachable);
        metrics.nodes(lines);
        metrics
    }

    fn nodes(&mut self, lines: &[Line]) {
        let newest = |line: &Line| {
            line.newest
                .as_ref()
                .map_or(0.0, |newest| seconds(newest.created))
        };
        let proof = |proof: &Option<Proof>| proof.as_ref().map_or(0.0, |proof| seconds(proof.time));
        // What others made has no time in here: it is never as good as a backup.
        let ours: Vec<&Line> = lines
            .iter()
            .filter(|line| line.expected || line.backups.foreign == 0 || line.newest.is_some())
            .collect();
        self.family(
            &ours,
            "etcd_dr_expected",
            "Whether there must be recent backups of it",
            |line| Some(f64::from(u8::from(line.expected))),
        );
        self.family(
            &ours,
            "etcd_dr_absent",
            "Whether no store has a backup of it",
            |line| Some(f64::from(u8::from(line.state == State::Absent))),
        );
        self.family(
            &ours,
            "etcd_dr_fleet_newest_timestamp_seconds",
            "Start of its newest good backup; 0: there is no good backup",
            |line| Some(newest(line)),
        );
        self.family(
            &ours,
            "etcd_dr_fleet_verified_timestamp_seconds",
            "When a good backup of it was last verified; 0: never",
            |line| Some(proof(&line.verified)),
        );
        self.family(
            &ours,
            "etcd_dr_fleet_rehearsed_timestamp_seconds",
            "When a backup of it was last rehearsed; 0: never",
            |line| Some(proof(&line.rehearsed)),
        );
        self.contents(&ours);
    }

    /// What the stores have of them.
    fn contents(&mut self, ours: &[&Line]) {
        self.family(
            ours,
            "etcd_dr_fleet_size_bytes",
            "Bytes of its newest good backup",
            |line| line.newest.as_ref().map(|newest| newest.size as f64),
        );
        self.family(ours, "etcd_dr_fleet_backups", "Its good backups", |line| {
            Some(line.backups.good as f64)
        });
        self.family(
            ours,
            "etcd_dr_fleet_bad_backups",
            "Its backups that their last verification found bad",
            |line| Some(line.backups.bad as f64),
        );
        self.family(
            ours,
            "etcd_dr_fleet_recorded_timestamp_seconds",
            "When the last of its recorded changes came; absent: nothing is recorded",
            |line| {
                line.recorded
                    .as_ref()
                    .map(|recorded| seconds(recorded.until))
            },
        );
        self.family(
            ours,
            "etcd_dr_fleet_gaps",
            "Gaps between its recorded changes, whose revisions cannot be restored",
            |line| {
                line.recorded
                    .as_ref()
                    .map(|recorded| recorded.gaps.len() as f64)
            },
        );
    }

    /// A series a line, where the line has that number.
    fn family(
        &mut self,
        lines: &[&Line],
        name: &str,
        help: &str,
        value: impl Fn(&Line) -> Option<f64>,
    ) {
        let family: Family<OfNode, Number> = Family::default();
        for line in lines {
            if let Some(value) = value(line) {
                let of = OfNode {
                    cluster: line.cluster.clone(),
                    node: line.node.clone().unwrap_or_default(),
                    name: line.label.clone().unwrap_or_default(),
                };
                family.get_or_create(&of).set(value);
            }
        }
        self.registry.register(name, help, family);
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    ///
    /// # Errors
    /// [`Kind::Unexpected`] if the library cannot write it.
    pub fn render(&self) -> Result<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)
            .doing(Kind::Unexpected, || "writing the metrics")?;
        Ok(exposition::classic(&text))
    }
}
