//! `schedule`: the work that the loop starts. Each run looks up the node, its addresses and its
//! certificates again, works on its own thread, and prints one line of JSON on standard output.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::args::ScheduleArgs;
use super::output::{error, error_json, json};
use super::session::{Session, Shown, host_name, scratch as scratch_folder};
use super::{backup, copies, record, rehearsals, target};
use crate::context::Context;
use crate::error::{Failure, Kind, Result, exit};
use crate::event::Event;
use crate::inspect::verify;
use crate::keep::backup::Outcome;
use crate::keep::metrics::serve::{self, Served};
use crate::keep::metrics::{self, Tls, TlsFiles};
use crate::keep::ranges::{HashKvFound, Proven};
use crate::keep::schedule::{
    self, Beside, Ended, GRACE, Notifier, Pace, Period, Rehearsals, Run, Schedule, SideReport,
    SideWork, Turns, Waited, Work, on_a_thread,
};
use crate::keep::{backup as taking, catalog};
use crate::store::LocalStore;
use crate::sys::{bound, scratch};

/// A backup is given no less time than this.
const SHORTEST: Duration = Duration::from_secs(600);
/// The longest that work beside a backup may move nothing at a period's end.
const LONGEST_FAIR: Duration = Duration::from_secs(60);

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
        beside: Beside::default(),
        verifying: Arc::default(),
        passed_over: BTreeSet::new(),
        rehearsals: rehearsals::of(session, args, &served.metrics),
    };
    session.block_on(async {
        if let Some(address) = args.metrics_listen {
            let listener = serve::listen(address).await?;
            let context = session.context.clone();
            tokio::spawn(serve::serve(listener, served.clone(), tls, context));
        }
        hands.look().await;
        if let Some(limit) = watchdog_limit() {
            tokio::spawn(watchdog(limit, notifier.clone(), served.clone()));
        }
        let recording = record::beside(session, args, &served)?;
        notifier.insist("READY=1").await;
        served.set_ready(true);
        let ended = schedule::run(&session.context.cancel, &mut pace, &mut hands, GRACE).await;
        served.set_ready(false);
        notifier.insist("STOPPING=1").await;
        record::ended(recording).await;
        ended
    })?;
    // A rehearsal that was left to itself ends with this process, and its folder with it.
    bound::kill_all();
    scratch::remove_all();
    Ok(Shown::done(String::new(), Value::Null))
}

/// When runs are due on this node.
fn pace(session: &Session, args: &ScheduleArgs, zone: &TimeZone) -> Result<Pace> {
    let told = session.global.node_name.clone();
    let name = told.or_else(|| session.config.node_name.clone());
    let spread = schedule::spread(&name.unwrap_or_else(host_name));
    let seed = (spread * f64::from(u32::MAX)) as u64;
    let schedule = Schedule::parse(&args.cron, zone, seed)?;
    Ok(Pace::new(schedule, spread, args.jitter))
}

/// A wrong command line is reported before the first run, not during it; whether copies are
/// to be made.
fn find_out_first(session: &Session, args: &ScheduleArgs) -> Result<bool> {
    let checked = backup::request(session, &args.backup).map(drop);
    let copies = copies::copies(session, &args.backup);
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
        return usage("schedule writes to a store, not plain files: --flat works only with backup");
    }
    if args.backup.if_older_than.is_some() {
        return usage(
            "the schedule decides when a backup is due: --if-older-than works only with backup",
        );
    }
    let asked = args.metrics_public || args.metrics_client_ca.is_some();
    match args.metrics_listen {
        Some(address) if !address.ip().is_loopback() && !asked => usage(
            "the address is not loopback, so metrics would be served without authentication: use --metrics-client-ca to authenticate, or --metrics-public to allow it",
        ),
        _ => Ok(()),
    }
}

/// systemd, if it started this process; a failure to notify it is no reason to stop.
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

/// Reports twice in each limit that the loop is alive, as long as it is.
async fn watchdog(limit: Duration, notifier: Arc<Notifier>, served: Arc<Served>) {
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        match served.pulse.trouble() {
            // Where there is no room, those that wait there say the same.
            None => notifier.say("WATCHDOG=1"),
            Some(trouble) => notifier.say(&format!("STATUS={trouble}")),
        };
    }
}

/// How long a backup may take: two periods. If these are short it may miss some.
fn longest(period: Period) -> Duration {
    let length = Duration::try_from(period.length()).unwrap_or_default();
    length.saturating_mul(2).max(SHORTEST)
}

/// How long copies and verification have to move anything before they count as hanging: a quarter of
/// the period, and at most a minute. A run may begin a moment before its period ends.
fn fair(period: Period) -> Duration {
    let length = Duration::try_from(period.length()).unwrap_or_default();
    (length / 4).min(LONGEST_FAIR)
}

struct Hands<'a> {
    session: &'a Session,
    args: &'a ScheduleArgs,
    store: LocalStore,
    served: Arc<Served>,
    notifier: Arc<Notifier>,
    timezone: String,
    suspended: bool,
    beside: Beside<SideReport>,
    /// The set that is being verified.
    verifying: Arc<Mutex<Option<String>>>,
    /// Sets whose verification did not end: the others come first.
    passed_over: BTreeSet<String>,
    rehearsals: Option<Rehearsals>,
}

impl Hands<'_> {
    /// Reads the store on a thread: a dead disk must not stop the loop's watchdog messages.
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
                .warn("metrics", "reading the store failed");
        }
        if let Some(path) = &self.args.backup.textfile
            && let Err(failure) = self
                .served
                .metrics
                .render()
                .and_then(|text| metrics::textfile(&text, path))
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

    /// Takes the backup, within its time.
    async fn attempt(&self, run: Run) -> Result<Outcome> {
        let context = self.context();
        let mut request = backup::request(self.session, &self.args.backup)?;
        // Checked again under the lock: a backup of this period by another process suffices.
        let age = context.now.duration_since(run.period.start);
        request.if_older_than = Some(Duration::try_from(age).unwrap_or_default());
        // A problem with the copies does not stop the backup: the copies are owed.
        request.copies = copies::copy_urls(self.session, &self.args.backup)?;
        let limit = longest(run.period);
        self.served.pulse.does("taking a backup", limit);
        self.served.metrics.running(Some(context.now));
        let work = move |context: Context| async move { taking::run(&context, &request).await };
        let (came, alive) = schedule::bounded(&context, limit, work).await;
        self.served.metrics.running(None);
        if let Some(alive) = alive {
            self.served.pulse.gave_up(alive);
        }
        came
    }

    /// Begins the work beside a backup, unless some of an earlier run is still in progress, and waits for it
    /// until the period's end.
    async fn besides(&mut self, run: Run, taken: Option<&Outcome>) -> (SideReport, bool) {
        let context = self.context();
        let (ask, verify) = match taken {
            Some(Outcome::RecentEnough { name, .. }) => (Some(name.clone()), None),
            Some(Outcome::Taken(taken)) => {
                let own = taken.manifest.id.clone();
                (None, Some((own, self.args.verify_sets)))
            }
            None => (None, None),
        };
        let work = SideWork {
            copies: copies::copies(self.session, &self.args.backup),
            ask,
            verify,
            turns: Turns {
                store: self.store.clone(),
                verify: |context, set| verify::run(context, set).map(|report| report.good),
                verifying: Arc::clone(&self.verifying),
                passed_over: self.passed_over.clone(),
            },
            rehearsals: self.rehearsals.clone(),
            prove_in: (self.args.record && taken.is_some()).then(|| scratch_folder(None)),
            until: run.period.end,
        };
        self.beside
            .start(&context, move |context| work.run(context));
        let left = run.period.end.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        let what = "waiting for copies, verification and rehearsals";
        self.served.pulse.does(what, left);
        let stop = context.cancel.clone();
        match self.beside.wait(&stop, left, fair(run.period)).await {
            Waited::GoesOn => (SideReport::default(), true),
            Waited::Ended(Ok(mut came), cut) => {
                self.served.metrics.copies(&came.places);
                if let Some(proven) = &came.proven {
                    self.proven(proven, &mut came.problems);
                }
                if cut {
                    came.cut();
                    self.pass_over();
                }
                (came, false)
            }
            Waited::Ended(Err(failure), _) => (SideReport::trouble(failure), false),
            Waited::Abandoned => {
                self.pass_over();
                let what = "copies or verification hang and were abandoned";
                let failure = Failure::new(Kind::Partial, what);
                (SideReport::trouble(failure), false)
            }
            Waited::Idle => {
                let what = "copies and verification of earlier runs hang: none was started";
                let failure = Failure::new(Kind::Partial, what);
                (SideReport::trouble(failure), false)
            }
        }
    }

    /// Tells whether recorded changes lead from one backup to the next.
    fn proven(&self, proven: &Proven, problems: &mut Vec<Failure>) {
        let good = proven.hashkv == HashKvFound::Equal;
        self.served.metrics.proven(good);
        if !good {
            let what = format!(
                "the changes recorded after {} do not lead to {}: {}",
                proven.base,
                proven.backup.as_deref().unwrap_or("the next backup"),
                proven.why.as_deref().unwrap_or_default()
            );
            problems.push(Failure::new(Kind::Partial, what));
        }
    }

    /// The set whose verification did not end has its turn after the others.
    fn pass_over(&mut self) {
        let verifying = self.verifying.lock();
        let set = verifying.unwrap_or_else(PoisonError::into_inner).take();
        self.passed_over.extend(set);
    }

    /// How many sets lack a copy that was asked for; what cannot be counted is looked at again.
    async fn owed(&self) -> usize {
        let copies = match copies::copies(self.session, &self.args.backup) {
            Ok(copies) if copies.to.is_empty() => return 0,
            Ok(copies) => copies,
            Err(_) => return 1,
        };
        let store = self.store.clone();
        let counted = tokio::task::spawn_blocking(move || copies.owed(&store)).await;
        counted.ok().and_then(Result::ok).unwrap_or(1)
    }

    /// What a command would say of a failure.
    fn failed(failure: &Failure) -> Told {
        // The hint is a command to type, which wants a schedule.
        let mut document = error_json::render("schedule CRON", failure);
        document["command"] = "schedule".into();
        Told {
            document,
            remark: Some(error::render("schedule CRON", failure)),
            failure: Some(failure.kind()),
        }
    }

    /// Reports the result of a run to the log, the metrics and the list of results.
    async fn done(&self, run: Run, began: Instant, came: Told) {
        if let Some(remark) = came.remark {
            let _ = writeln!(std::io::stderr(), "{remark}");
        }
        let status = came.failure.map_or(exit::DONE, Kind::exit_code);
        self.tell(run, began, status, came.document);
        // Being asked to stop is not a failure of a backup.
        if came.failure != Some(Kind::Interrupted) {
            self.served.pulse.does("reading the store", Duration::ZERO);
            self.served
                .metrics
                .ended(Timestamp::now(), began.elapsed(), came.failure);
            self.look().await;
        }
    }

    /// One line: what the run was, and its result.
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

impl Work for Hands<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn newest(&mut self) -> Option<Timestamp> {
        self.served.pulse.does("reading the store", Duration::ZERO);
        let store = self.store.clone();
        let listed = tokio::task::spawn_blocking(move || catalog::list(&store)).await;
        schedule::newest_whole(&listed.ok()?.ok()?, Timestamp::now())
    }

    fn suspended(&mut self) -> bool {
        let Some(path) = &self.args.suspend_file else {
            return false;
        };
        // A file that cannot be checked does not suspend: a backup too many is better than none.
        let suspended = path.try_exists().unwrap_or(false);
        if suspended != self.suspended {
            self.suspended = suspended;
            let (cron, zone) = (&self.args.cron, &self.timezone);
            self.served.metrics.enabled(cron, zone, !suspended);
            let what = match suspended {
                true => format!("no run starts while {} exists", path.display()),
                false => format!("{} is gone, the schedule continues", path.display()),
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
            let note = format!("cannot tell whether this member is the leader: {failure}");
            self.session.context.tell(Event::Note(note));
            false
        })
    }

    async fn run(&mut self, run: Run) -> Ended {
        let began = Instant::now();
        let (came, ended) = match self.attempt(run).await {
            Ok(outcome) => {
                // What copies come to is not waited for.
                self.look().await;
                let (came, goes_on) = self.besides(run, Some(&outcome)).await;
                if came.verified.is_empty() && !goes_on {
                    // All others had their turn.
                    self.passed_over.clear();
                }
                let owed = self.owed().await;
                self.served.metrics.owed_copies(owed);
                let ended = Ended {
                    backup: true,
                    copies: owed == 0 && !goes_on,
                };
                (described(&outcome, came), ended)
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
        let before = self.owed().await;
        if before == 0 && !self.beside.is_running() {
            self.served.metrics.owed_copies(0);
            return None;
        }
        let (came, goes_on) = self.besides(run, None).await;
        let owed = self.owed().await;
        self.served.metrics.owed_copies(owed);
        let all = owed == 0 && !goes_on;
        if came.is_nothing() {
            return (!all).then_some(false);
        }
        self.done(run, began, caught_up(came)).await;
        Some(all)
    }

    fn waits(&mut self, until: Timestamp) {
        self.served.metrics.next_run(until);
        self.notifier.say(&format!("STATUS=next run at {until}"));
    }

    async fn sleep(&mut self, time: Duration) {
        self.served.pulse.does("waiting for the next period", time);
        tokio::time::sleep(time).await;
    }
}

/// What is to be said of a run that has a backup.
fn described(outcome: &Outcome, came: SideReport) -> Told {
    let shown = backup::came("schedule", outcome, came.tried);
    let (partial, mut document) = (shown.status != exit::DONE, shown.json);
    let mut remarks: Vec<String> = rendered(&shown.problems);
    let before = remarks.len();
    remarks.extend(rendered(&came.problems));
    document["verified"] = verified(came.verified, &mut remarks);
    if let Some(came) = came.rehearsed {
        document["rehearsed"] = rehearsals::told(came, &mut remarks);
    }
    let failed = partial || remarks.len() > before;
    Told {
        document,
        remark: (!remarks.is_empty()).then(|| remarks.join("\n")),
        failure: failed.then_some(Kind::Partial),
    }
}

/// What is to be said of copies that were owed, and of a verification that ended late.
fn caught_up(came: SideReport) -> Told {
    let mut failed = Vec::new();
    let copies = copies::told(came.tried, &mut String::new(), &mut failed, true);
    let mut problems = rendered(&came.problems);
    problems.extend(rendered(&failed));
    let mut document = json!({"result": "caught-up", "caughtUp": copies});
    if !came.verified.is_empty() {
        document["verified"] = verified(came.verified, &mut problems);
    }
    if let Some(came) = came.rehearsed {
        document["rehearsed"] = rehearsals::told(came, &mut problems);
    }
    Told {
        document: json::document("schedule", &document),
        failure: (!problems.is_empty()).then_some(Kind::Partial),
        remark: (!problems.is_empty()).then(|| problems.join("\n")),
    }
}

/// What failed beside a backup, for people.
fn rendered(problems: &[Failure]) -> Vec<String> {
    let problem = |failure: &Failure| error::render("schedule", failure);
    problems.iter().map(problem).collect()
}

/// Verifications for programs, and what they found for people.
fn verified(came: Vec<(String, Result<bool>)>, remarks: &mut Vec<String>) -> Value {
    let mut verified = Vec::new();
    for (name, checked) in came {
        match checked {
            Ok(good) => {
                if !good {
                    remarks.push(format!(
                        "error: {name} is bad\n  hint: to see where: etcd-dr verify {name}"
                    ));
                }
                verified.push(json!({"set": name, "good": good}));
            }
            Err(failure) if failure.kind() == Kind::Interrupted => {}
            Err(failure) => {
                remarks.push(error::render("schedule", &failure));
                verified.push(json!({"set": name, "error": failure.to_string()}));
            }
        }
    }
    verified.into()
}
