//! What a monitor sees: of a store's sets, of the runs, and of the schedule.
//!
//! The names `etcd_backup_*` are those of OpenShift's enhancement proposal for etcd backups, a series a set, with
//! the label `etcd_backup`; its `uid` has no counterpart. All else is `etcd_dr_*`. Times are seconds since 1970.

mod exposition;
pub mod fleet;
mod recording;
pub mod serve;
mod tls;
mod write;

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::backup::names::MANIFEST;
use crate::error::{Doing, Kind, Result};
use crate::keep::catalog;
use crate::keep::catalog::{BackupSet, SetState};
use crate::keep::copies::Place;
use crate::keep::record::Standing;
use crate::store::LocalStore;
use crate::sys::space;

use recording::Recording;

pub use tls::{Tls, TlsFiles};
pub use write::textfile;

type Number = Gauge<f64, AtomicU64>;
/// A metric without labels that does not exist before its value is known.
type Unlabelled = Vec<(String, String)>;

/// The bounds of the histogram of durations, in seconds.
const DURATIONS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSet {
    etcd_backup: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStore {
    store: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Info {
    etcd_backup: String,
    node: String,
    storage_type: String,
    storage_location: String,
    created_by_policy: String,
    quality: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    etcd_backup: String,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Plan {
    schedule: String,
    timezone: String,
}

/// Everything that is exported.
#[derive(Debug)]
pub struct Metrics {
    /// Held by who changes several or writes all of them out: a reader sees one moment, never half of a store.
    whole: Mutex<()>,
    registry: Registry,
    info: Family<Info, Number>,
    status: Family<Status, Number>,
    start: Family<OfSet, Number>,
    completion: Family<OfSet, Number>,
    size: Family<OfSet, Number>,
    sets: Family<State, Number>,
    future: Number,
    store_reachable: Number,
    store_bytes: Number,
    store_free: Number,
    last_success: Number,
    last_success_size: Number,
    last_verified: Number,
    unverified: Number,
    failed_verification: Number,
    last_rehearsed: Number,
    failed_rehearsals: Number,
    rehearsal_interval: Family<Unlabelled, Number>,
    owed_copies: Family<Unlabelled, Number>,
    copies_reachable: Family<OfStore, Number>,
    copies_size: Family<OfStore, Number>,
    copies_newest: Family<OfStore, Number>,
    expiry: Family<Unlabelled, Number>,
    run_since: Number,
    last_run: Number,
    last_run_good: Number,
    successes: Counter,
    failures: Family<Reason, Counter>,
    durations: Histogram,
    schedule: Family<Plan, Number>,
    next_run: Family<Unlabelled, Number>,
    recording: Recording,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// With nothing known yet.
    pub fn new() -> Self {
        let mut metrics = Self {
            whole: Mutex::new(()),
            registry: Registry::default(),
            info: Family::default(),
            status: Family::default(),
            start: Family::default(),
            completion: Family::default(),
            size: Family::default(),
            sets: Family::default(),
            future: Number::default(),
            store_reachable: Number::default(),
            store_bytes: Number::default(),
            store_free: Number::default(),
            last_success: Number::default(),
            last_success_size: Number::default(),
            last_verified: Number::default(),
            unverified: Number::default(),
            failed_verification: Number::default(),
            last_rehearsed: Number::default(),
            failed_rehearsals: Number::default(),
            rehearsal_interval: Family::default(),
            owed_copies: Family::default(),
            copies_reachable: Family::default(),
            copies_size: Family::default(),
            copies_newest: Family::default(),
            expiry: Family::default(),
            run_since: Number::default(),
            last_run: Number::default(),
            last_run_good: Number::default(),
            successes: Counter::default(),
            failures: Family::default(),
            durations: Histogram::new(DURATIONS),
            schedule: Family::default(),
            next_run: Family::default(),
            recording: Recording::default(),
        };
        metrics.register_backups();
        metrics.register_store();
        metrics.register_rehearsals();
        metrics.register_copies();
        metrics.register_runs();
        metrics.recording.register(&mut metrics.registry);
        metrics
    }

    fn register_backups(&mut self) {
        let r = &mut self.registry;
        r.register(
            "etcd_backup_info",
            "A backup in the store",
            self.info.clone(),
        );
        r.register("etcd_backup_status", "Its outcome", self.status.clone());
        r.register(
            "etcd_backup_start_time",
            "When it started",
            self.start.clone(),
        );
        r.register(
            "etcd_backup_completion_time",
            "When it was complete",
            self.completion.clone(),
        );
        r.register(
            "etcd_backup_size_bytes",
            "Bytes of its files",
            self.size.clone(),
        );
    }

    fn register_store(&mut self) {
        let r = &mut self.registry;
        r.register(
            "etcd_dr_store_backups",
            "Backups in the store, by state",
            self.sets.clone(),
        );
        let future =
            "Backups whose time is in the future because a clock was wrong; they do not count";
        r.register("etcd_dr_future_backups", future, self.future.clone());
        let reachable = "Whether the store could be read";
        r.register(
            "etcd_dr_store_reachable",
            reachable,
            self.store_reachable.clone(),
        );
        r.register(
            "etcd_dr_store_size_bytes",
            "Bytes of all backups",
            self.store_bytes.clone(),
        );
        let free = "Bytes that the store's file system has free";
        r.register("etcd_dr_store_free_bytes", free, self.store_free.clone());
        let last = "Start of the newest good backup; 0: there is no good backup";
        r.register(
            "etcd_dr_last_success_timestamp_seconds",
            last,
            self.last_success.clone(),
        );
        let size = "Bytes of the newest good backup";
        r.register(
            "etcd_dr_last_success_size_bytes",
            size,
            self.last_success_size.clone(),
        );
        let verified = "When a backup was last verified; 0: never";
        r.register(
            "etcd_dr_last_verified_timestamp_seconds",
            verified,
            self.last_verified.clone(),
        );
        let never = "Backups that were never verified";
        r.register("etcd_dr_unverified_backups", never, self.unverified.clone());
        let bad = "Backups that their last verification found bad";
        r.register("etcd_dr_bad_backups", bad, self.failed_verification.clone());
        let expiry = "When the first certificate in the newest good backup expires";
        r.register(
            "etcd_dr_certificate_expiry_timestamp_seconds",
            expiry,
            self.expiry.clone(),
        );
    }

    fn register_rehearsals(&mut self) {
        let r = &mut self.registry;
        let last = "When etcd last served a backup in a rehearsal; 0: never";
        r.register(
            "etcd_dr_last_rehearsed_timestamp_seconds",
            last,
            self.last_rehearsed.clone(),
        );
        let failed = "Backups that etcd did not serve in their last rehearsal";
        let family = self.failed_rehearsals.clone();
        r.register("etcd_dr_unservable_backups", failed, family);
        let interval = "Seconds after which the schedule rehearses again";
        let family = self.rehearsal_interval.clone();
        r.register("etcd_dr_rehearsal_interval_seconds", interval, family);
    }

    fn register_copies(&mut self) {
        let r = &mut self.registry;
        let owed = "Backups that lack a requested copy";
        r.register("etcd_dr_uncopied_backups", owed, self.owed_copies.clone());
        let reachable = "Whether a store of copies could be read after the last copy";
        let family = self.copies_reachable.clone();
        r.register("etcd_dr_copies_reachable", reachable, family);
        let size = "Bytes of this node's copies in a store";
        r.register("etcd_dr_copies_size_bytes", size, self.copies_size.clone());
        let newest =
            "Start of the newest good copy of this node in a store; 0: there is no good copy";
        let family = self.copies_newest.clone();
        r.register("etcd_dr_copies_newest_timestamp_seconds", newest, family);
    }

    fn register_runs(&mut self) {
        let r = &mut self.registry;
        r.register(
            "etcd_dr_run_since_timestamp_seconds",
            "Start of the backup in progress; 0: no backup is in progress",
            self.run_since.clone(),
        );
        r.register(
            "etcd_dr_last_run_timestamp_seconds",
            "When a run last ended",
            self.last_run.clone(),
        );
        r.register(
            "etcd_dr_last_run_success",
            "Whether the last run took a backup or found one",
            self.last_run_good.clone(),
        );
        r.register(
            "etcd_dr_run_successes",
            "Runs of this process that succeeded",
            self.successes.clone(),
        );
        r.register(
            "etcd_dr_run_failures",
            "Runs of this process that failed, by reason",
            self.failures.clone(),
        );
        r.register(
            "etcd_dr_run_duration_seconds",
            "How long runs took",
            self.durations.clone(),
        );
        r.register(
            "etcd_dr_schedule_enabled",
            "Whether the schedule is enabled; 0: suspended",
            self.schedule.clone(),
        );
        r.register(
            "etcd_dr_next_run_timestamp_seconds",
            "When the next run is due",
            self.next_run.clone(),
        );
    }

    /// How the recorder stands.
    pub fn recording(&self, standing: &Standing) {
        let _whole = self.lock();
        self.recording.stands(standing);
    }

    /// Up to when everything that was sealed is in another store.
    pub fn copied(&self, url: &str, until: Timestamp) {
        let _whole = self.lock();
        self.recording.copied(url, until);
    }

    /// Whether recorded changes were proven by the newest backup.
    pub fn proven(&self, good: bool) {
        let _whole = self.lock();
        self.recording.proven(good);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own that a panic could have left half-changed.
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The schedule that is followed; each reason to fail is there from the beginning.
    pub fn scheduled(&self, schedule: &str, timezone: &str) {
        self.enabled(schedule, timezone, true);
        let _whole = self.lock();
        for kind in [
            Kind::Unexpected,
            Kind::Unreachable,
            Kind::Refused,
            Kind::Store,
            Kind::Busy,
            Kind::Partial,
        ] {
            let reason = kind.word().to_owned();
            // A counter that begins with its first failure shows Prometheus no increase.
            self.failures.get_or_create(&Reason { reason }).inc_by(0);
        }
    }

    /// Whether the schedule is followed, or suspended: then no next run is known.
    pub fn enabled(&self, schedule: &str, timezone: &str, enabled: bool) {
        let plan = Plan {
            schedule: schedule.to_owned(),
            timezone: timezone.to_owned(),
        };
        let _whole = self.lock();
        let value = if enabled { 1.0 } else { 0.0 };
        self.schedule.get_or_create(&plan).set(value);
        if !enabled {
            self.next_run.clear();
        }
    }

    /// How long after a rehearsal the schedule makes the next one.
    pub fn rehearses(&self, every: Duration) {
        let _whole = self.lock();
        let interval = self.rehearsal_interval.get_or_create(&Vec::new());
        interval.set(every.as_secs_f64());
    }

    /// How many sets lack a copy that was asked for.
    pub fn owed_copies(&self, sets: usize) {
        let _whole = self.lock();
        self.owed_copies.get_or_create(&Vec::new()).set(sets as f64);
    }

    /// The state of the copies in each store.
    pub fn copies(&self, places: &[Place]) {
        let _whole = self.lock();
        for place in places {
            let of = OfStore {
                store: place.url.clone(),
            };
            let reachable = if place.seen.is_some() { 1.0 } else { 0.0 };
            self.copies_reachable.get_or_create(&of).set(reachable);
            // What was known stays where the store cannot be read.
            let Some(seen) = place.seen else { continue };
            let newest = seen.newest.map_or(0.0, seconds);
            self.copies_newest.get_or_create(&of).set(newest);
            self.copies_size.get_or_create(&of).set(seen.size as f64);
        }
    }

    /// A backup is being taken since then; `None`: no more.
    pub fn running(&self, since: Option<Timestamp>) {
        let _whole = self.lock();
        self.run_since.set(since.map_or(0.0, seconds));
    }

    /// When the next run is due.
    pub fn next_run(&self, at: Timestamp) {
        let _whole = self.lock();
        self.next_run.get_or_create(&Vec::new()).set(seconds(at));
    }

    /// A run ended; `failure` is `None` for one that completed.
    pub fn ended(&self, at: Timestamp, took: Duration, failure: Option<Kind>) {
        let _whole = self.lock();
        self.last_run.set(seconds(at));
        self.durations.observe(took.as_secs_f64());
        self.last_run_good
            .set(if failure.is_none() { 1.0 } else { 0.0 });
        match failure {
            None => {
                self.successes.inc();
            }
            Some(kind) => {
                let reason = kind.word().to_owned();
                self.failures.get_or_create(&Reason { reason }).inc();
            }
        }
    }

    /// Reads the store again.
    pub fn look(&self, store: &LocalStore, policy: &str) {
        let sets = if store.dir().is_dir() {
            catalog::list(store).ok()
        } else {
            None
        };
        self.store_reachable
            .set(if sets.is_some() { 1.0 } else { 0.0 });
        // What was known stays where the store cannot be read.
        let Some(sets) = sets else { return };
        if let Ok(space) = space::space(store.dir()) {
            self.store_free.set(space.available as f64);
        }
        self.observe(&sets, store, policy, Timestamp::now());
    }

    fn observe(&self, sets: &[BackupSet], store: &LocalStore, policy: &str, now: Timestamp) {
        let _whole = self.lock();
        self.info.clear();
        self.status.clear();
        self.start.clear();
        self.completion.clear();
        self.size.clear();
        for state in [
            SetState::Good,
            SetState::Dirty,
            SetState::Incomplete,
            SetState::Foreign,
        ] {
            let count = sets.iter().filter(|set| set.state == state).count();
            let state = state.word().to_owned();
            self.sets.get_or_create(&State { state }).set(count as f64);
        }
        self.store_bytes
            .set(sets.iter().fold(0.0, |sum, set| sum + set.size as f64));
        for set in sets {
            self.one(set, store, policy);
        }
        let future = sets.iter().filter(|set| set.is_future(now)).count();
        self.future.set(future as f64);
        let ours = || sets.iter().filter(|set| set.manifest.is_some());
        // A record from the future says nothing.
        let known = |set: &&BackupSet| !set.is_verified_in_future(now);
        let verified = || ours().filter(known).filter_map(|set| set.verified.as_ref());
        let last = verified().map(|verified| seconds(verified.time));
        self.last_verified.set(last.fold(0.0, f64::max));
        let never = ours().filter(|set| set.verified.is_none() || !known(set));
        self.unverified.set(never.count() as f64);
        self.failed_verification
            .set(verified().filter(|verified| !verified.good).count() as f64);
        let rehearsed = || ours().filter_map(|set| set.believed_rehearsal(now));
        let served = rehearsed().filter(|last| last.good);
        let last = served.map(|last| seconds(last.time));
        self.last_rehearsed.set(last.fold(0.0, f64::max));
        self.failed_rehearsals
            .set(rehearsed().filter(|last| !last.good).count() as f64);
        let newest = catalog::newest_good(sets, now);
        self.last_success
            .set(newest.and_then(|set| set.created).map_or(0.0, seconds));
        self.last_success_size
            .set(newest.map_or(0.0, |set| set.size as f64));
        let manifest = newest.and_then(|set| set.manifest.as_ref());
        match manifest.and_then(|manifest| manifest.earliest_certificate_expiry.as_ref()) {
            Some(expiry) => {
                self.expiry
                    .get_or_create(&Vec::new())
                    .set(seconds(expiry.time));
            }
            None => self.expiry.clear(),
        }
    }

    /// One set's series; one that has no Manifest was never begun by this tool, or never ended.
    fn one(&self, set: &BackupSet, store: &LocalStore, policy: &str) {
        let Some(manifest) = &set.manifest else {
            return;
        };
        let etcd_backup = set.name.clone();
        let node = manifest.node.name.clone();
        let info = Info {
            etcd_backup: etcd_backup.clone(),
            node: node.unwrap_or_else(|| manifest.node.host.clone()),
            storage_type: "Local".to_owned(),
            storage_location: store.dir().display().to_string(),
            created_by_policy: policy.to_owned(),
            quality: set.state.word().to_owned(),
        };
        self.info.get_or_create(&info).set(1.0);
        let status = if set.problems.is_empty() {
            "Completed"
        } else {
            "Failed"
        };
        let status = Status {
            etcd_backup: etcd_backup.clone(),
            status: status.to_owned(),
        };
        self.status.get_or_create(&status).set(1.0);
        let of = OfSet { etcd_backup };
        self.start.get_or_create(&of).set(seconds(manifest.created));
        self.size.get_or_create(&of).set(set.size as f64);
        // The Manifest is written last and never changed.
        let whole = std::fs::metadata(set.dir.join(MANIFEST)).and_then(|meta| meta.modified());
        if let Some(whole) = whole.ok().and_then(|time| Timestamp::try_from(time).ok()) {
            self.completion.get_or_create(&of).set(seconds(whole));
        }
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    ///
    /// # Errors
    /// [`Kind::Unexpected`] if the library cannot write it.
    pub fn render(&self) -> Result<String> {
        let _whole = self.lock();
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)
            .doing(Kind::Unexpected, || "writing the metrics")?;
        Ok(exposition::classic(&text))
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_does_not_wait_for_ever_while_the_store_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        metrics.scheduled("@hourly", "UTC");
        std::thread::scope(|scope| {
            scope.spawn(|| (0..300).for_each(|_| metrics.look(&LocalStore::at(dir.path()), "")));
            scope.spawn(|| (0..300).for_each(|_| drop(metrics.render().unwrap())));
            scope.spawn(|| {
                for _ in 0..300 {
                    metrics.ended(Timestamp::UNIX_EPOCH, Duration::ZERO, Some(Kind::Store));
                }
            });
        });
        let text = metrics.render().unwrap();
        let failures = "etcd_dr_run_failures_total{reason=\"store\"} 300\n";
        assert!(text.contains(failures), "{text}");
        assert!(text.contains("etcd_dr_store_size_bytes 0.0\n"), "{text}");
        assert!(!text.contains("etcd_dr_next_run"), "{text}");
    }
}
