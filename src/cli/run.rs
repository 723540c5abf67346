//! From arguments to a result: builds the request, runs it, shows what came.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::FromArgMatches;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{Cli, ColorArg, Command, ListArgs, OutputArg, ProgressArg};
use super::config::{self, Config};
use super::progress::Logged;
use super::{
    backup, complete, copy, environment, hints, human, machine, man, member, operation, progress,
    prune, remote, restore, schedule, switch, verify,
};
use crate::context::{Cancel, Context};
use crate::error::{Doing, Fact, Failure, Kind, Result, exit};
use crate::etcd::finding::printable;
use crate::keep::catalog;
use crate::node::layout::NodeLayout;
use crate::store::local::SET_PREFIX;
use crate::store::objects::Scheme;
use crate::store::{Address, LocalStore};
use crate::sys::limits;

/// What a command has to show, and the status that goes with it.
pub(super) struct Shown {
    /// For people; where there is no `json`, for programs too.
    pub(super) text: String,
    /// For programs.
    pub(super) json: Value,
    /// What goes to standard error besides.
    pub(super) remark: Option<String>,
    /// The exit status.
    pub(super) status: u8,
}

impl Shown {
    /// A result that is simply done.
    pub(super) fn done(text: String, json: Value) -> Self {
        Self {
            text,
            json,
            remark: None,
            status: exit::DONE,
        }
    }
}

/// Everything a command needs besides its own arguments.
pub(super) struct Session {
    pub(super) global: super::args::Global,
    pub(super) config: Config,
    pub(super) root: PathBuf,
    pub(super) context: Context,
    log: Arc<Logged>,
}

/// Runs the command line; what is returned is the process's exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if complete::answer(&arguments) {
        return ExitCode::from(exit::DONE);
    }
    let mut command = environment::command();
    let parsed = command
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| {
            Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
        });
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                exit::USAGE
            } else {
                exit::DONE
            });
        }
    };
    hints::keep(&arguments);
    colours(cli.global.color);
    let output = cli.global.output;
    let name = command_name(&cli.command);
    match dispatch(cli) {
        Ok(shown) => show(output, &shown),
        Err(failure) => {
            human::fail(name, &failure);
            if output == OutputArg::Json {
                let _ = write_json(&machine::failure(name, &failure));
            }
            ExitCode::from(failure.kind().exit_code())
        }
    }
}

fn show(output: OutputArg, shown: &Shown) -> ExitCode {
    let written = match output {
        OutputArg::Text => write_out(&shown.text),
        // It has told everything already, or has made its document itself.
        OutputArg::Json if shown.json.is_null() => write_out(&shown.text),
        OutputArg::Json => write_json(&shown.json),
    };
    if let Some(remark) = &shown.remark {
        human::tell_line(remark);
    }
    match written {
        // The reader has gone; what was done is done.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(shown.status),
        Err(e) => {
            human::tell_line(format_args!("error: writing the result: {e}"));
            ExitCode::from(if shown.status == exit::DONE {
                exit::UNEXPECTED
            } else {
                shown.status
            })
        }
        Ok(()) => ExitCode::from(shown.status),
    }
}

fn write_json(document: &Value) -> std::io::Result<()> {
    write_out(&machine::text(document)?)
}

fn write_out(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Honours `--color` and `NO_COLOR`; what is not a terminal gets none unless told.
fn colours(when: ColorArg) {
    let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (out, err) = match when {
        ColorArg::Always => (true, true),
        ColorArg::Never => (false, false),
        ColorArg::Auto => (
            allowed && std::io::stdout().is_terminal(),
            allowed && std::io::stderr().is_terminal(),
        ),
    };
    console::set_colors_enabled(out);
    console::set_colors_enabled_stderr(err);
}

fn command_name(command: &Command) -> &'static str {
    match command {
        Command::Backup(_) => "backup",
        Command::Schedule(_) => "schedule",
        Command::List(_) => "list",
        Command::Verify(_) => "verify",
        Command::Prune(_) => "prune",
        Command::Copy(_) => "copy",
        Command::Restore(_) => "restore",
        Command::Disable(_) => "disable",
        Command::Enable(_) => "enable",
        // What hints are made from.
        Command::MemberAdd(args) if args.join => "member-add --join",
        Command::MemberAdd(_) => "member-add",
        Command::MemberRemove(_) => "member-remove",
        Command::MemberUpdate(_) => "member-update",
        Command::Completions { .. } => "completions",
        Command::Man { .. } => "man",
    }
}

/// The store, which some commands take by its place and others as an option: `--store` is taken by
/// all. The positional one may be the environment's.
fn one_store(store: &mut Option<PathBuf>, option: &mut Option<PathBuf>) -> Result<()> {
    let Some(named) = option.take() else {
        return Ok(());
    };
    let by_variable = environment::variable("ETCD_DR_STORE").map(PathBuf::from);
    if let Some(other) = store
        .as_ref()
        .filter(|other| Some(*other) != by_variable.as_ref())
    {
        let what = format!(
            "the store is given twice: {} and --store {}",
            other.display(),
            named.display()
        );
        return Err(Failure::new(Kind::Usage, what));
    }
    *store = Some(named);
    Ok(())
}

fn dispatch(mut cli: Cli) -> Result<Shown> {
    match &mut cli.command {
        Command::Backup(args) => one_store(&mut args.store, &mut args.store_option)?,
        Command::Schedule(args) => {
            one_store(&mut args.backup.store, &mut args.backup.store_option)?;
        }
        Command::List(args) => one_store(&mut args.store, &mut args.store_option)?,
        Command::Prune(args) => one_store(&mut args.store, &mut args.store_option)?,
        _ => {}
    }
    match &cli.command {
        Command::Completions { shell } => {
            return text_only(complete::script(*shell)?);
        }
        Command::Man { command } => return text_only(man::page(command.as_deref())?),
        _ => {}
    }
    limits::forbid_core_dumps().doing(Kind::Unexpected, || "forbidding core dumps")?;
    limits::raise_descriptors()?;
    let root = cli
        .global
        .root
        .clone()
        .unwrap_or_else(|| PathBuf::from("/"));
    if !root.is_dir() {
        let what = format!(
            "looking for the node's file system in {}: there is no such directory",
            root.display()
        );
        return Err(Failure::new(Kind::Usage, what).with(Fact::Path(root)));
    }
    let config = config::load(cli.global.config.as_deref(), &root)?;
    if cli.global.progress == ProgressArg::Json {
        human::tell_events_only();
    }
    let log = Arc::new(Logged::new(progress::observer(
        cli.global.progress,
        cli.global.verbose,
    )));
    let context = Context {
        observer: log.clone(),
        now: Timestamp::now(),
        cancel: Cancel::default(),
    };
    // What is made is private whatever the caller's umask is; modes given to calls stay.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    arm_faults()?;
    let session = Session {
        global: cli.global,
        config,
        root,
        context,
        log,
    };
    match &cli.command {
        Command::Backup(args) => backup::run(&session, args),
        Command::Schedule(args) => schedule::run(&session, args),
        Command::List(args) => list(&session, args),
        Command::Verify(args) => verify::run(&session, args),
        Command::Prune(args) => prune::run(&session, args),
        Command::Copy(args) => copy::run(&session, args),
        Command::Restore(args) => restore::run(&session, args),
        Command::Disable(args) => switch::disable(&session, args),
        Command::Enable(args) => switch::enable(&session, args),
        Command::MemberAdd(args) => member::add(&session, args),
        Command::MemberRemove(args) => member::remove(&session, args),
        Command::MemberUpdate(args) => member::update(&session, args),
        Command::Completions { .. } | Command::Man { .. } => {
            Ok(Shown::done(String::new(), Value::Null))
        }
    }
}

fn text_only(bytes: Vec<u8>) -> Result<Shown> {
    let text = String::from_utf8(bytes).doing(Kind::Unexpected, || "generating text")?;
    let json = json!({"schemaVersion": machine::SCHEMA_VERSION, "text": text});
    Ok(Shown::done(text, json))
}

/// Turns SIGINT, SIGTERM and SIGHUP into the wish to stop.
async fn stop_on_signals(cancel: Cancel) {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if cancel.is_cancelled() {
            crate::sys::scratch::remove_all();
            std::process::exit(exit::INTERRUPTED.into());
        }
        cancel.cancel();
    }
}

/// Turns SIGINT and SIGTERM into the wish to go back; SIGHUP, as when a session ends, changes
/// nothing.
async fn go_back_on_signals(cancel: Cancel) {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => continue,
        }
        if cancel.is_cancelled() {
            human::tell_line(
                "going back already; it is not left in the middle. If it hangs, kill -KILL this process and then: etcd-dr restore --rollback",
            );
        } else {
            human::tell_line("going back: the node becomes what it was before");
            cancel.cancel();
        }
    }
}

/// Arms the seam from `ETCD_DR_SEAM`, in builds for the suites only.
fn arm_faults() -> Result<()> {
    #[cfg(feature = "faults")]
    if let Ok(text) = std::env::var("ETCD_DR_SEAM") {
        use crate::sys::seam;
        let mode = seam::Mode::parse(&text).ok_or_else(|| {
            Failure::new(
                Kind::Usage,
                format!("reading ETCD_DR_SEAM: {text:?} is no mode"),
            )
        })?;
        seam::arm(mode).doing(Kind::Unexpected, || "arming the seam")?;
    }
    Ok(())
}

impl Session {
    /// Runs an operation that blocks, on a thread of its own.
    pub(super) fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Context) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let context = self.context.clone();
        self.block_on(async {
            let done = tokio::task::spawn_blocking(move || work(context)).await;
            done.doing(Kind::Unexpected, || "running a thread")?
        })
    }

    /// Runs an operation, which the first signal asks to stop and a second one ends.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.drive(stop_on_signals(self.context.cancel.clone()), work)
    }

    /// Runs what must come to an end of its own: a terminal that goes is no reason to stop, the
    /// first Ctrl-C asks it to go back, and a second one is told why it waits.
    pub(super) fn block_on_to_the_end<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.drive(go_back_on_signals(self.context.cancel.clone()), work)
    }

    /// Runs an operation while something listens to signals.
    fn drive<T>(
        &self,
        listening: impl Future<Output = ()> + 'static + Send,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing(Kind::Unexpected, || "starting the runtime")?;
        let result = runtime.block_on(async {
            tokio::spawn(listening);
            work.await
        });
        // A thread that hangs on a dead disk must not keep the process.
        runtime.shutdown_background();
        result
    }

    /// A directory or file to be read, as this process sees it; where there is none, the node's
    /// under its root.
    pub(super) fn readable(&self, path: &Path) -> PathBuf {
        let on_node = NodeLayout::new(&self.root).host(path);
        if path.is_absolute() && !path.exists() && on_node.exists() {
            on_node
        } else {
            path.to_owned()
        }
    }

    /// What writes the log beside a journal.
    pub(super) fn log(&self) -> &Logged {
        &self.log
    }

    /// Whether people read the result.
    pub(super) fn is_text(&self) -> bool {
        self.global.output == OutputArg::Text
    }

    /// The store that is meant: the argument, the configuration, or the node's own.
    pub(super) fn store(&self, named: Option<&Path>) -> Result<LocalStore> {
        let named = named
            .map(Path::to_owned)
            .or_else(|| self.config.store.clone());
        match named {
            Some(path) => {
                let text = path.to_string_lossy();
                if Address::is_url(&text) {
                    // A mistyped URL may hold what must not be shown.
                    let what = format!(
                        "opening {}: expected a directory here",
                        Address::parse(&text)?
                    );
                    return Err(Failure::new(Kind::Usage, what));
                }
                Ok(LocalStore::at(path))
            }
            None => Ok(LocalStore::at(NodeLayout::new(&self.root).store())),
        }
    }

    /// The store whose backups are read. The node's own is a link below /etc: where that was lost
    /// its backups were not, and where it leads nowhere they are not known to be none.
    pub(super) fn store_to_read(&self, named: Option<&Path>) -> Result<LocalStore> {
        let store = self.store(named)?;
        let layout = NodeLayout::new(&self.root);
        let own = named.is_none() && self.config.store.is_none();
        let link = layout.backups();
        if own && link.symlink_metadata().is_err() && store.dir().is_dir() {
            let what = format!(
                "{} is gone; its backups are in {}, and the next backup links them again",
                link.display(),
                store.dir().display()
            );
            self.context.warn("store-link-gone", what);
        }
        Ok(store)
    }

    /// The same, and it must be there.
    pub(super) fn existing_store(&self, named: Option<&Path>) -> Result<LocalStore> {
        let store = self.store_to_read(named)?;
        if store.dir().is_dir() {
            return Ok(store);
        }
        let what = format!(
            "opening {}: there is no such directory",
            store.dir().display()
        );
        Err(Failure::new(Kind::Store, what).with(Fact::Path(store.dir().to_owned())))
    }
}

/// What is to be said of operations on this node that are not finished, or not committed.
fn unfinished(session: &Session) -> Result<Option<String>> {
    let layout = NodeLayout::new(&session.root);
    match crate::plan::registry::refuse_while_unfinished(&layout.state()) {
        Err(failure) => Ok(Some(human::failure("restore", &failure))),
        Ok(()) => operation::uncommitted(&layout),
    }
}

fn list(session: &Session, args: &ListArgs) -> Result<Shown> {
    let (place, latest, sets) = match remote::url(session, args.store.as_deref())? {
        Some(address) => {
            let sets = remote::list(session, &address, &args.remote)?;
            let local = match address.scheme() {
                Scheme::Directory if sets.is_empty() => Some(LocalStore::at(address.path())),
                _ => None,
            };
            // The directory of a store, and not of copies.
            let (sets, latest) = match local {
                Some(store) => (catalog::list(&store)?, store.latest()),
                None => (sets, None),
            };
            (address.to_string(), latest, sets)
        }
        None => {
            let store = session.store_to_read(args.store.as_deref())?;
            let sets = local_sets(&store, args.store.is_some())?;
            let copies = sets.is_empty() && args.store.is_some() && holds_copies(store.dir());
            let sets = match copies {
                true => copies_in(session, &store, args)?,
                false => sets,
            };
            (store.dir().display().to_string(), store.latest(), sets)
        }
    };
    let now = session.context.now;
    let newest = catalog::newest_good(&sets, now);
    let age = newest
        .and_then(|set| set.created)
        .map(|created| now.duration_since(created).max(jiff::SignedDuration::ZERO));
    let stale = args.stale_after.map(|limit| {
        age.is_none_or(|age| {
            age > jiff::SignedDuration::try_from(limit).unwrap_or(jiff::SignedDuration::MAX)
        })
    });
    let mut remarks: Vec<String> = sets
        .iter()
        .flat_map(|set| {
            set.problems
                .iter()
                .map(move |problem| printable(format!("{}: {problem}", set.name)))
        })
        .collect();
    remarks.extend(human::future(&sets, now));
    // That this node's operations cannot be read is no reason to show nothing.
    match unfinished(session).and_then(|unfinished| {
        let disabled = switch::remark(&NodeLayout::new(&session.root))?;
        Ok([unfinished, disabled])
    }) {
        Ok(found) => remarks.extend(found.into_iter().flatten()),
        Err(failure) => remarks.push(human::failure("list", &failure)),
    }
    let mut status = exit::DONE;
    if let (Some(true), Some(limit)) = (stale, args.stale_after) {
        remarks.push(human::staleness(
            newest.map(|set| set.name.as_str()).zip(age),
            limit,
        ));
        status = exit::DIFFERS;
    }
    // Of a thousand sets either is work: the one that is shown is made, and without a tree of values.
    let text = if !session.is_text() {
        let listing = machine::Listing::new(&place, latest.as_deref(), &sets, newest, stale, now);
        machine::text(&listing).doing(Kind::Unexpected, || "writing JSON")?
    } else if sets.is_empty() {
        format!("no backups in {place}\n")
    } else {
        human::list(&sets, newest, now, session.global.verbose > 0)
    };
    Ok(Shown {
        text,
        json: Value::Null,
        remark: (!remarks.is_empty()).then(|| remarks.join("\n")),
        status,
    })
}

/// Whether a directory has folders as copies are in, three below each other. Only these are looked
/// at: it may be any directory, and of any size.
fn holds_copies(dir: &Path) -> bool {
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    };
    let is_set = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(SET_PREFIX)
    };
    folders(dir)
        .iter()
        .flat_map(|cluster| folders(cluster))
        .any(|node| folders(&node).iter().any(is_set))
}

/// The copies in a directory, as its `file` URL has them.
fn copies_in(
    session: &Session,
    store: &LocalStore,
    args: &ListArgs,
) -> Result<Vec<catalog::BackupSet>> {
    let listing = || format!("listing {}", store.dir().display());
    let dir = store.dir().canonicalize().doing(Kind::Store, listing)?;
    remote::list(session, &Address::of_directory(&dir)?, &args.remote)
}

/// The sets of a directory; the node's own need not exist before the first backup.
fn local_sets(store: &LocalStore, named: bool) -> Result<Vec<catalog::BackupSet>> {
    if store.dir().is_symlink() && !store.dir().exists() {
        let target = std::fs::read_link(store.dir()).unwrap_or_default();
        let what = format!(
            "listing {}: it leads to {}, where nothing is: is that volume mounted?",
            store.dir().display(),
            target.display()
        );
        return Err(Failure::new(Kind::Store, what).with(Fact::Path(store.dir().to_owned())));
    }
    if store.dir().symlink_metadata().is_ok() {
        return catalog::list(store);
    }
    if !named {
        return Ok(Vec::new());
    }
    let what = format!(
        "listing {}: there is no such directory",
        store.dir().display()
    );
    Err(Failure::new(Kind::Store, what).with(Fact::Path(store.dir().to_owned())))
}
