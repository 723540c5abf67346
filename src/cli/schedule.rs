//! `schedule`: the loop's hands. Each run finds the node, its addresses and its certificates anew,
//! works on a thread of its own, and tells one line of JSON on standard output.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::args::ScheduleArgs;
use super::backup::{self, Copies};
use super::run::{Session, Shown};
use super::{human, machine};
use crate::error::{Doing, Failure, Kind, Result, exit};
use crate::ops::backup::{self as taking, BackupRequest, Outcome};
use crate::ops::metrics::serve::{self, Served};
use crate::ops::remote::Copied;
use crate::ops::schedule::{self, GRACE, Notifier, Pace, Run, Schedule, Work};
use crate::ops::verify::{self, Report};
use crate::ops::{Context, catalog, metrics};
use crate::store::LocalStore;

/// Takes backups until it is asked to stop.
pub(super) fn run(session: &Session, args: &ScheduleArgs) -> Result<Shown> {
    refuse_what_makes_no_sense(args)?;
    let zone = args.backup.keep.time_zone.clone();
    let zone = zone.unwrap_or(TimeZone::UTC);
    let mut pace = pace(session, args, &zone)?;
    find_out_first(session, args)?;
    let served = Arc::new(Served::default());
    let timezone = zone.iana_name().map(str::to_owned);
    let timezone = timezone.or_else(|| Some(zone.to_fixed_offset().ok()?.to_string()));
    served
        .metrics
        .scheduled(&args.cron, timezone.as_deref().unwrap_or("UTC"));
    let notifier = notifier(session);
    let mut hands = Hands {
        notifier: notifier.clone(),
        session,
        args,
        store: backup::store(session, &args.backup)?,
        served: served.clone(),
    };
    session.block_on(async {
        if let Some(address) = args.metrics_listen {
            let listener = serve::listen(address).await?;
            tokio::spawn(serve::serve(listener, served.clone()));
        }
        hands.look().await;
        if let Some(limit) = watchdog_limit() {
            tokio::spawn(watchdog(limit, notifier.clone()));
        }
        notifier.insist("READY=1").await;
        served.set_ready(true);
        let ended = schedule::run(&session.context.cancel, &mut pace, &mut hands, GRACE).await;
        served.set_ready(false);
        notifier.insist("STOPPING=1").await;
        ended
    })?;
    Ok(Shown::done(String::new(), Value::Null))
}

/// When runs are due on this node.
fn pace(session: &Session, args: &ScheduleArgs, zone: &TimeZone) -> Result<Pace> {
    let told = session.global.node_name.clone();
    let name = told.or_else(|| session.config.node_name.clone());
    let spread = schedule::spread(&name.unwrap_or_else(backup::host_name));
    let seed = (spread * f64::from(u32::MAX)) as u64;
    let schedule = Schedule::parse(&args.cron, zone, seed)?;
    Ok(Pace::new(schedule, spread, args.jitter))
}

/// What is wrong with the command line is told before the first run, not in it.
fn find_out_first(session: &Session, args: &ScheduleArgs) -> Result<()> {
    for checked in [
        backup::request(session, &args.backup).map(drop),
        Copies::new(session, &args.backup).map(drop),
    ] {
        match checked {
            Err(failure) if failure.kind() == Kind::Usage => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

fn refuse_what_makes_no_sense(args: &ScheduleArgs) -> Result<()> {
    let usage = |what: &str| Err(Failure::new(Kind::Usage, what.to_owned()));
    if args.backup.flat.is_some() {
        return usage("schedule makes sets in a store, and no plain files: --flat is for backup");
    }
    if args.backup.if_older_than.is_some() {
        return usage("the schedule says when a backup is old: --if-older-than is for backup");
    }
    match args.metrics_listen {
        Some(address) if !address.ip().is_loopback() && !args.metrics_public => usage(
            "other machines reach that address, and who reads the metrics is not asked: \
             --metrics-public says that they may",
        ),
        _ => Ok(()),
    }
}

/// systemd, if it started this process; that it cannot be told anything is no reason to stop.
fn notifier(session: &Session) -> Arc<Notifier> {
    let address = std::env::var_os("NOTIFY_SOCKET");
    let notifier = Notifier::new(address.as_deref()).unwrap_or_else(|error| {
        let what = format!("NOTIFY_SOCKET cannot be reached: {error}");
        session.context.warn("notify", what);
        Notifier::default()
    });
    Arc::new(notifier)
}

/// What systemd's WatchdogSec= says to this process, sd_watchdog_enabled(3).
fn watchdog_limit() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let of_another = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && !of_another)?;
    Some(Duration::from_micros(micros))
}

/// Says twice in each limit that the loop still turns.
async fn watchdog(limit: Duration, notifier: Arc<Notifier>) {
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        // Where there is no room, those that wait there say the same.
        notifier.say("WATCHDOG=1");
    }
}

struct Hands<'a> {
    session: &'a Session,
    args: &'a ScheduleArgs,
    store: LocalStore,
    served: Arc<Served>,
    notifier: Arc<Notifier>,
}

/// What came of a run that took a backup, or found one.
struct Came {
    outcome: Outcome,
    copied: Vec<Result<Copied>>,
    verified: Vec<(String, Result<Report>)>,
}

impl Hands<'_> {
    /// Looks at the store, on a thread: a dead disk must not stop the loop from saying that it lives.
    async fn look(&self) {
        let (served, store, policy) = (
            self.served.clone(),
            self.store.clone(),
            self.args.cron.clone(),
        );
        let looked =
            tokio::task::spawn_blocking(move || served.metrics.look(&store, &policy)).await;
        if looked.is_err() {
            self.session
                .context
                .warn("metrics", "looking at the store failed");
        }
        if let Some(path) = &self.args.backup.textfile
            && let Err(failure) = metrics::textfile(&self.served.metrics, path)
        {
            self.session.context.warn("textfile", failure.to_string());
        }
    }

    async fn attempt(&self, run: Run) -> Result<Came> {
        let context = Context {
            now: Timestamp::now(),
            ..self.session.context.clone()
        };
        let mut request = backup::request(self.session, &self.args.backup)?;
        // Looked at once more under the lock: somebody else's backup of this period will do.
        let age = context.now.duration_since(run.period.start);
        request.if_older_than = Some(Duration::try_from(age).unwrap_or_default());
        let copies = Copies::new(self.session, &self.args.backup)?;
        let (store, sets) = (self.store.clone(), self.args.verify_sets);
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .doing(Kind::Unexpected, || "starting the runtime")?;
            let came = runtime.block_on(work(&context, &request, &copies, &store, sets));
            runtime.shutdown_background();
            came
        });
        thread
            .await
            .doing(Kind::Unexpected, || "running a thread")?
    }

    /// One line: what the run was, and what came of it.
    fn tell(&self, run: Run, began: Instant, status: u8, mut document: Value) {
        document["run"] = run.number.into();
        document["period"] = json!({"start": run.period.start, "end": run.period.end});
        document["ended"] = json!(Timestamp::now());
        document["tookSeconds"] = began.elapsed().as_secs_f64().into();
        document["status"] = status.into();
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{document}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                let _ = writeln!(std::io::stderr(), "error: writing the result: {error}");
            }
            _ => {}
        }
    }
}

/// The run itself: the backup and the prune, the copies, then the verification of other sets.
async fn work(
    context: &Context,
    request: &BackupRequest,
    copies: &Copies,
    store: &LocalStore,
    sets: u32,
) -> Result<Came> {
    let outcome = taking::run(context, request).await?;
    let Outcome::Taken(taken) = &outcome else {
        return Ok(Came {
            outcome,
            copied: Vec::new(),
            verified: Vec::new(),
        });
    };
    let copied = copies.make(context, taken).await;
    let mut verified = Vec::new();
    for _ in 0..sets {
        if context.cancel.is_cancelled() {
            break;
        }
        let listed = match catalog::list(store) {
            Ok(listed) => listed,
            Err(failure) => {
                verified.push(("the store".to_owned(), Err(failure)));
                break;
            }
        };
        let next = schedule::next_to_verify(&listed, Some(&taken.manifest.id));
        // Where there are fewer than asked for, none is read twice.
        let next = next.filter(|set| verified.iter().all(|(name, _)| *name != set.name));
        let Some(set) = next else { break };
        verified.push((set.name.clone(), verify::run(context, set)));
    }
    Ok(Came {
        outcome,
        copied,
        verified,
    })
}

impl Work for Hands<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn newest(&mut self) -> Option<Timestamp> {
        let store = self.store.clone();
        let listed = tokio::task::spawn_blocking(move || catalog::list(&store)).await;
        schedule::newest_whole(&listed.ok()?.ok()?, Timestamp::now())
    }

    async fn run(&mut self, run: Run) -> bool {
        let began = Instant::now();
        let came = self.attempt(run).await;
        let (good, failure, document, remark) = match came {
            Ok(came) => {
                let (status, document, remark) = described(came);
                let failure = (status != exit::DONE).then_some(Kind::Partial);
                (true, failure, document, remark)
            }
            Err(failure) => {
                // The hint is a command to type, which wants a schedule.
                let said = human::failure("schedule CRON", &failure);
                let mut document = machine::failure("schedule CRON", &failure);
                document["command"] = "schedule".into();
                (false, Some(failure.kind()), document, Some(said))
            }
        };
        if let Some(remark) = remark {
            let _ = writeln!(std::io::stderr(), "{remark}");
        }
        let status = failure.map_or(exit::DONE, Kind::exit_code);
        self.tell(run, began, status, document);
        // Being asked to stop is no failure of a backup.
        if failure != Some(Kind::Interrupted) {
            self.served
                .metrics
                .ended(Timestamp::now(), began.elapsed(), failure);
            self.look().await;
        }
        good
    }

    fn waits(&mut self, until: Timestamp) {
        self.served.metrics.next_run(until);
        self.notifier.say(&format!("STATUS=next run at {until}"));
    }

    async fn sleep(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Status, document and remark of a run that has a backup.
fn described(came: Came) -> (u8, Value, Option<String>) {
    let shown = backup::came("schedule", &came.outcome, came.copied);
    let (mut status, mut document) = (shown.status, shown.json);
    let mut remarks: Vec<String> = shown.remark.into_iter().collect();
    let mut verified = Vec::new();
    for (name, report) in came.verified {
        match report {
            Ok(report) => {
                if !report.good {
                    status = exit::PARTIAL;
                    remarks.push(format!(
                        "error: {name} is bad\n  hint: to see where: etcd-dr verify {name}"
                    ));
                }
                verified.push(json!({"set": name, "good": report.good}));
            }
            Err(failure) if failure.kind() == Kind::Interrupted => {}
            Err(failure) => {
                status = exit::PARTIAL;
                remarks.push(human::failure("schedule", &failure));
                verified.push(json!({"set": name, "error": failure.to_string()}));
            }
        }
    }
    document["verified"] = verified.into();
    let remark = (!remarks.is_empty()).then(|| remarks.join("\n"));
    (status, document, remark)
}
