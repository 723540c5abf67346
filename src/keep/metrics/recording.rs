//! What a monitor sees of the recorder; nothing if nothing is recorded.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::keep::record::Standing;

/// A metric that does not exist before its value is known.
type Number = Family<Vec<(String, String)>, Gauge<f64, AtomicU64>>;

/// The metrics of the recorder.
#[derive(Debug, Default)]
pub(super) struct Recording {
    up: Number,
    revision: Number,
    until: Number,
    gaps: Number,
    proven: Number,
    copied: Number,
}

impl Recording {
    pub(super) fn register(&self, registry: &mut Registry) {
        let metrics = [
            (
                "etcd_dr_recording",
                "Whether the recorder watches etcd",
                &self.up,
            ),
            (
                "etcd_dr_recorded_revision",
                "The last revision whose changes are sealed",
                &self.revision,
            ),
            (
                "etcd_dr_recorded_timestamp_seconds",
                "Everything written up to this time is sealed; 0: nothing is sealed yet",
                &self.until,
            ),
            (
                "etcd_dr_recording_gaps",
                "Gaps in what was recorded, since this process began",
                &self.gaps,
            ),
            (
                "etcd_dr_recording_proven",
                "Whether the recorded changes lead from the last backup but one to the last one",
                &self.proven,
            ),
            (
                "etcd_dr_recording_copied_timestamp_seconds",
                "Everything sealed up to this time is in that store; 0: not yet",
                &self.copied,
            ),
        ];
        for (name, help, metric) in metrics {
            registry.register(name, help, metric.clone());
        }
    }

    pub(super) fn stands(&self, standing: &Standing) {
        let until = standing.recorded_until.map_or(0.0, seconds);
        set(&self.up, if standing.connected { 1.0 } else { 0.0 });
        set(&self.revision, standing.revision.unwrap_or(0) as f64);
        set(&self.until, until);
        set(&self.gaps, standing.gaps as f64);
    }

    pub(super) fn copied(&self, url: &str, until: Timestamp) {
        let labels = vec![("store".to_owned(), url.to_owned())];
        self.copied.get_or_create(&labels).set(seconds(until));
    }

    pub(super) fn proven(&self, good: bool) {
        set(&self.proven, if good { 1.0 } else { 0.0 });
    }
}

fn set(metric: &Number, value: f64) {
    metric.get_or_create(&Vec::new()).set(value);
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}
