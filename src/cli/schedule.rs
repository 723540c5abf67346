//! `schedule`: the loop's hands. Each run finds the node, its addresses and its certificates anew,
//! works on a thread of its own, and tells one line of JSON on standard output.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::args::ScheduleArgs;
use super::backup;
use super::run::{Session, Shown};
use super::{human, machine, target};
use crate::error::{Doing, Failure, Kind, Result, exit};
use crate::event::Event;
use crate::ops::backup::{self as taking, BackupRequest, Outcome};
use crate::ops::copies::{Copies, Tried};
use crate::ops::metrics::serve::{self, Served};
use crate::ops::metrics::{Tls, TlsFiles};
use crate::ops::schedule::{self, Ended, GRACE, Notifier, Pace, Run, Schedule, Work};
use crate::ops::verify::{self, Report};
use crate::ops::{Context, catalog, metrics};
use crate::store::LocalStore;

/// Takes backups until it is asked to stop.
pub(super) fn run(session: &Session, args: &ScheduleArgs) -> Result<Shown> {
    refuse_what_makes_no_sense(args)?;
    let zone = args.backup.keep.time_zone.clone();
    let zone = zone.unwrap_or(TimeZone::UTC);
    let mut pace = pace(session, args, &zone)?;
    if find_out_first(session, args)? {
        pace = pace.with_copies();
    }
    let tls = tls(args)?.map(Arc::new);
    let served = Arc::new(Served::default());
    let timezone = zone.iana_name().map(str::to_owned);
    let timezone = timezone.or_else(|| Some(zone.to_fixed_offset().ok()?.to_string()));
    let timezone = timezone.unwrap_or_else(|| "UTC".to_owned());
    served.metrics.scheduled(&args.cron, &timezone);
    let notifier = notifier(session);
    let mut hands = Hands {
        notifier: notifier.clone(),
        session,
        args,
        store: backup::store(session, &args.backup)?,
        served: served.clone(),
        timezone,
        suspended: false,
    };
    session.block_on(async {
        if let Some(address) = args.metrics_listen {
            let listener = serve::listen(address).await?;
            let context = session.context.clone();
            tokio::spawn(serve::serve(listener, served.clone(), tls, context));
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

/// What is wrong with the command line is told before the first run, not in it; whether copies are
/// to be made.
fn find_out_first(session: &Session, args: &ScheduleArgs) -> Result<bool> {
    let checked = backup::request(session, &args.backup).map(drop);
    let copies = backup::copies(session, &args.backup);
    let copies = match (checked, copies) {
        (Err(failure), _) | (_, Err(failure)) if failure.kind() == Kind::Usage => {
            return Err(failure);
        }
        (_, copies) => copies,
    };
    Ok(copies.is_ok_and(|copies| !copies.to.is_empty()))
}

/// How the metrics are served, where that is by TLS.
fn tls(args: &ScheduleArgs) -> Result<Option<Tls>> {
    let (Some(cert), Some(key)) = (&args.metrics_cert, &args.metrics_key) else {
        return Ok(None);
    };
    let files = TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: args.metrics_client_ca.clone(),
    };
    Tls::new(files).map(Some)
}

fn refuse_what_makes_no_sense(args: &ScheduleArgs) -> Result<()> {
    let usage = |what: &str| Err(Failure::new(Kind::Usage, what.to_owned()));
    if args.backup.flat.is_some() {
        return usage("schedule makes sets in a store, and no plain files: --flat is for backup");
    }
    if args.backup.if_older_than.is_some() {
        return usage("the schedule says when a backup is old: --if-older-than is for backup");
    }
    let asked = args.metrics_public || args.metrics_client_ca.is_some();
    match args.metrics_listen {
        Some(address) if !address.ip().is_loopback() && !asked => usage(
            "other machines reach that address, and who reads the metrics is not asked: \
             --metrics-client-ca asks them, --metrics-public says that they may",
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
    timezone: String,
    suspended: bool,
}

/// What came of a run that took a backup, or found one.
struct Came {
    outcome: Outcome,
    tried: Vec<Tried>,
    verified: Vec<(String, Result<Report>)>,
    /// How many sets lack a copy still.
    owed: usize,
}

/// Runs what may block or hang, with a runtime of its own, so that the loop goes on.
async fn on_a_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing(Kind::Unexpected, || "starting the runtime")?;
        let came = runtime.block_on(work());
        runtime.shutdown_background();
        came
    });
    thread
        .await
        .doing(Kind::Unexpected, || "running a thread")?
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

    fn context(&self) -> Context {
        Context {
            now: Timestamp::now(),
            ..self.session.context.clone()
        }
    }

    async fn attempt(&self, run: Run) -> Result<Came> {
        let context = self.context();
        let mut request = backup::request(self.session, &self.args.backup)?;
        // Looked at once more under the lock: somebody else's backup of this period will do.
        let age = context.now.duration_since(run.period.start);
        request.if_older_than = Some(Duration::try_from(age).unwrap_or_default());
        let copies = backup::copies(self.session, &self.args.backup)?;
        request.copies = copies.urls();
        let (store, sets) = (self.store.clone(), self.args.verify_sets);
        on_a_thread(async move || {
            work(&context, &request, &copies, &store, sets, run.period.end).await
        })
        .await
    }

    /// Makes the copies that are owed: what was tried, and how many sets lack one still.
    async fn catch_up(&self, run: Run) -> Result<(Vec<Tried>, usize)> {
        let (context, store) = (self.context(), self.store.clone());
        let copies = backup::copies(self.session, &self.args.backup)?;
        on_a_thread(async move || {
            let tried = copies.make(&context, &store, Some(run.period.end)).await?;
            Ok((tried, copies.owed(&store)?))
        })
        .await
    }

    /// What a command would say of a failure.
    fn failed(failure: &Failure) -> Told {
        // The hint is a command to type, which wants a schedule.
        let mut document = machine::failure("schedule CRON", failure);
        document["command"] = "schedule".into();
        Told {
            document,
            remark: Some(human::failure("schedule CRON", failure)),
            failure: Some(failure.kind()),
        }
    }

    /// Says what came of a run to who reads the log, the metrics and the results.
    async fn done(&self, run: Run, began: Instant, came: Told) {
        if let Some(remark) = came.remark {
            let _ = writeln!(std::io::stderr(), "{remark}");
        }
        let status = came.failure.map_or(exit::DONE, Kind::exit_code);
        self.tell(run, began, status, came.document);
        // Being asked to stop is no failure of a backup.
        if came.failure != Some(Kind::Interrupted) {
            self.served
                .metrics
                .ended(Timestamp::now(), began.elapsed(), came.failure);
            self.look().await;
        }
    }

    /// One line: what the run was, and what came of it.
    fn tell(&self, run: Run, began: Instant, status: u8, mut document: Value) {
        document["run"] = run.number.into();
        if run.gave_way {
            document["gaveWay"] = true.into();
        }
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

/// What is to be said of a run.
struct Told {
    document: Value,
    remark: Option<String>,
    failure: Option<Kind>,
}

/// The run itself: the backup and the prune, the copies, then the verification of other sets.
async fn work(
    context: &Context,
    request: &BackupRequest,
    copies: &Copies,
    store: &LocalStore,
    sets: u32,
    until: Timestamp,
) -> Result<Came> {
    let outcome = taking::run(context, request).await?;
    let tried = backup::copy_out(context, copies, store, &outcome, Some(until)).await;
    let verified = match &outcome {
        Outcome::Taken(taken) => verify_others(context, store, &taken.manifest.id, sets),
        Outcome::YoungEnough { .. } => Vec::new(),
    };
    let owed = match copies.to.is_empty() {
        true => 0,
        // What cannot be counted is looked at again.
        false => copies.owed(store).unwrap_or(1),
    };
    Ok(Came {
        outcome,
        tried,
        verified,
        owed,
    })
}

/// Verifies as many other sets as are asked for, those whose turn it is.
fn verify_others(
    context: &Context,
    store: &LocalStore,
    but: &str,
    sets: u32,
) -> Vec<(String, Result<Report>)> {
    let mut verified: Vec<(String, Result<Report>)> = Vec::new();
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
        let next = schedule::next_to_verify(&listed, Some(but), Timestamp::now());
        // Where there are fewer than asked for, none is read twice.
        let next = next.filter(|set| verified.iter().all(|(name, _)| *name != set.name));
        let Some(set) = next else { break };
        verified.push((set.name.clone(), verify::run(context, set)));
    }
    verified
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

    fn suspended(&mut self) -> bool {
        let Some(path) = &self.args.suspend_file else {
            return false;
        };
        // What cannot be looked at suspends nothing: a backup too many is better than none.
        let suspended = path.try_exists().unwrap_or(false);
        if suspended != self.suspended {
            self.suspended = suspended;
            let (cron, zone) = (&self.args.cron, &self.timezone);
            self.served.metrics.enabled(cron, zone, !suspended);
            let what = match suspended {
                true => format!("no run begins while {} is there", path.display()),
                false => format!("{} is gone, the schedule is followed", path.display()),
            };
            self.session.context.warn("suspended", what.clone());
            self.notifier.say(&format!("STATUS={what}"));
        }
        suspended
    }

    async fn leads(&mut self) -> bool {
        let context = self.context();
        let asked = match target::target(self.session) {
            Ok(target) => {
                on_a_thread(async move || schedule::leads_others(&context, &target).await).await
            }
            Err(failure) => Err(failure),
        };
        asked.unwrap_or_else(|failure| {
            // The run that follows says what is wrong.
            let note = format!("whether this member leads is not known: {failure}");
            self.session.context.tell(Event::Note(note));
            false
        })
    }

    async fn run(&mut self, run: Run) -> Ended {
        let began = Instant::now();
        let (came, ended) = match self.attempt(run).await {
            Ok(came) => {
                self.served.metrics.owed_copies(came.owed);
                let copies = came.owed == 0;
                let ended = Ended {
                    backup: true,
                    copies,
                };
                (described(came), ended)
            }
            Err(failure) => {
                let ended = Ended {
                    backup: false,
                    copies: false,
                };
                (Self::failed(&failure), ended)
            }
        };
        self.done(run, began, came).await;
        ended
    }

    async fn copy(&mut self, run: Run) -> Option<bool> {
        let began = Instant::now();
        let (came, owed) = match self.catch_up(run).await {
            Ok((tried, owed)) => {
                self.served.metrics.owed_copies(owed);
                if tried.is_empty() {
                    return (owed > 0).then_some(false);
                }
                let mut problems = Vec::new();
                let caught_up = backup::told(tried, &mut String::new(), &mut problems, true);
                let document = json!({"result": "caught-up", "caughtUp": caught_up});
                let came = Told {
                    document: machine::document("schedule", &document),
                    failure: (!problems.is_empty()).then_some(Kind::Partial),
                    remark: (!problems.is_empty()).then(|| problems.join("\n")),
                };
                (came, owed > 0)
            }
            Err(failure) => (Self::failed(&failure), true),
        };
        self.done(run, began, came).await;
        Some(!owed)
    }

    fn waits(&mut self, until: Timestamp) {
        self.served.metrics.next_run(until);
        self.notifier.say(&format!("STATUS=next run at {until}"));
    }

    async fn sleep(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// What is to be said of a run that has a backup.
fn described(came: Came) -> Told {
    let shown = backup::came("schedule", &came.outcome, came.tried);
    let (mut partial, mut document) = (shown.status != exit::DONE, shown.json);
    let mut remarks: Vec<String> = shown.remark.into_iter().collect();
    let mut verified = Vec::new();
    for (name, report) in came.verified {
        match report {
            Ok(report) => {
                if !report.good {
                    partial = true;
                    remarks.push(format!(
                        "error: {name} is bad\n  hint: to see where: etcd-dr verify {name}"
                    ));
                }
                verified.push(json!({"set": name, "good": report.good}));
            }
            Err(failure) if failure.kind() == Kind::Interrupted => {}
            Err(failure) => {
                partial = true;
                remarks.push(human::failure("schedule", &failure));
                verified.push(json!({"set": name, "error": failure.to_string()}));
            }
        }
    }
    document["verified"] = verified.into();
    Told {
        document,
        remark: (!remarks.is_empty()).then(|| remarks.join("\n")),
        failure: partial.then_some(Kind::Partial),
    }
}
