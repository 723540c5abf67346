//! What a command has besides its own arguments, and what it comes to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::{Global, OutputArg, ProgressArg};
use super::config::{self, Config};
use super::output::progress::{self, Logged};
use super::output::terminal;
use crate::context::{Cancel, Context};
use crate::error::{Doing, Fact, Failure, Kind, Result, exit};
use crate::node::layout::NodeLayout;
use crate::store::{Address, LocalStore};

/// Where scratch folders are made unless another place is named.
const SCRATCH: &str = "/var/tmp";

/// What a command has to show, and the status that goes with it.
pub(super) struct Shown {
    /// For people; where there is no `json`, for programs too.
    pub(super) text: String,
    /// For programs.
    pub(super) json: Value,
    /// What goes to standard error besides.
    pub(super) remark: Option<String>,
    /// What failed once the result was there: reported at the end, and as `error` of the document.
    pub(super) problems: Vec<Failure>,
    /// The exit status.
    pub(super) status: u8,
}

impl Shown {
    /// A result after which something failed, which may have been done in part.
    pub(super) fn in_part(text: String, json: Value, problems: Vec<Failure>) -> Self {
        Self {
            status: match problems.is_empty() {
                true => exit::DONE,
                false => exit::PARTIAL,
            },
            problems,
            ..Self::done(text, json)
        }
    }

    /// A result that is simply done.
    pub(super) fn done(text: String, json: Value) -> Self {
        Self {
            text,
            json,
            remark: None,
            problems: Vec::new(),
            status: exit::DONE,
        }
    }
}

/// Everything a command needs besides its own arguments.
pub(super) struct Session {
    pub(super) global: Global,
    pub(super) config: Config,
    pub(super) root: PathBuf,
    pub(super) context: Context,
    /// The passphrase of the signing key, once it is known.
    pub(super) passphrase: OnceLock<String>,
    log: Arc<Logged>,
}

impl Session {
    /// Reads the configuration, and begins to report progress as the options ask for.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is no such root, or the configuration is wrong.
    pub(super) fn open(global: Global) -> Result<Self> {
        let root = global.root.clone().unwrap_or_else(|| PathBuf::from("/"));
        if !root.is_dir() {
            let what = format!(
                "looking for the node's file system in {}: there is no such directory",
                root.display()
            );
            return Err(Failure::new(Kind::Usage, what).with(Fact::Path(root)));
        }
        let config = config::load(global.config.as_deref(), &root)?;
        if global.progress == ProgressArg::Json {
            terminal::tell_events_only();
        }
        let observer = progress::observer(global.progress, global.verbose);
        let log = Arc::new(Logged::new(observer));
        let context = Context {
            observer: log.clone(),
            now: Timestamp::now(),
            cancel: Cancel::default(),
        };
        Ok(Self {
            global,
            config,
            root,
            context,
            passphrase: OnceLock::new(),
            log,
        })
    }

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

    /// Runs work that blocks on this thread, and stops it as [`Self::block_on`] does: another thread listens to
    /// signals, which earlier work may have caught for good.
    pub(super) fn attended<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let cancel = self.context.cancel.clone();
        let (working, done) = tokio::sync::oneshot::channel::<()>();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                self.drive(stop_on_signals(cancel), async {
                    // Its sender is dropped when the work is done.
                    let _ = done.await;
                    Ok(())
                })
            });
            let result = work();
            drop(working);
            result
        });
        result.map_err(|failure| self.context.cancel.check().err().unwrap_or(failure))
    }

    /// Runs what must come to an end of its own: a terminal that goes is no reason to stop, the
    /// first Ctrl-C asks it to roll back, and a second one says why it waits.
    pub(super) fn block_on_uninterruptible<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.drive(roll_back_on_signals(self.context.cancel.clone()), work)
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

    /// A directory or file to be read, as this process sees it; if it does not exist, the node's
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
                "{} is missing; its backups are in {}, and the next backup creates the link again",
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

/// The signals that ask this process to stop.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// One of [`StopSignals`].
#[derive(PartialEq, Eq)]
enum Stop {
    /// SIGINT or SIGTERM: the process is to stop.
    Asked,
    /// SIGHUP: the session ended.
    Hangup,
}

impl StopSignals {
    /// From now on the signals no longer end the process; none if they cannot be received.
    fn receive() -> Option<Self> {
        Some(Self {
            interrupt: signal(SignalKind::interrupt()).ok()?,
            terminate: signal(SignalKind::terminate()).ok()?,
            hangup: signal(SignalKind::hangup()).ok()?,
        })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Asked,
            _ = self.terminate.recv() => Stop::Asked,
            _ = self.hangup.recv() => Stop::Hangup,
        }
    }
}

/// Turns SIGINT, SIGTERM and SIGHUP into a request to stop; the second one ends the process.
async fn stop_on_signals(cancel: Cancel) {
    let Some(mut signals) = StopSignals::receive() else {
        return;
    };
    loop {
        signals.next().await;
        if cancel.is_cancelled() {
            // What they run in goes once they are gone.
            crate::sys::bound::kill_all();
            crate::sys::scratch::remove_all();
            std::process::exit(exit::INTERRUPTED.into());
        }
        cancel.cancel();
    }
}

/// Turns SIGINT and SIGTERM into a request to roll back; SIGHUP, as when a session ends, changes
/// nothing.
async fn roll_back_on_signals(cancel: Cancel) {
    let Some(mut signals) = StopSignals::receive() else {
        return;
    };
    loop {
        if signals.next().await == Stop::Hangup {
            continue;
        }
        if cancel.is_cancelled() {
            terminal::tell_line(
                "already rolling back, which cannot stop halfway. If it hangs, kill -KILL this process and then: etcd-dr restore --rollback",
            );
        } else {
            terminal::tell_line("rolling back: the node becomes what it was before");
            cancel.cancel();
        }
    }
}

/// The kernel's name for this host; it goes into the Manifest only.
pub(super) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Where what is brought or unpacked only to be looked at goes: not to /tmp, which may be memory.
/// A machine without that folder still has a temporary one.
pub(super) fn scratch(given: Option<&Path>) -> PathBuf {
    let usual = Path::new(SCRATCH);
    match given {
        Some(given) => given.to_owned(),
        None if usual.is_dir() => usual.to_owned(),
        None => std::env::temp_dir(),
    }
}
