//! Which etcd rehearses: the one that was given, the one that runs on this node, or one in a search path.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::context::Context;
use crate::error::{Doing, Failure, Kind, Result, cut};
use crate::etcd::release::Release;
use crate::event::Event;
use crate::node::running_etcd::{self, RunningEtcd};
use crate::sys::bound::{Bound, Spec};

use super::expected::Needed;

/// Where procfs is mounted (proc(5)).
const PROC: &str = "/proc";
/// How long a program may take to say which release it is.
const ANSWER: Duration = Duration::from_secs(10);
/// How often it is looked at in the meantime.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of its answer that are read.
const MAX_ANSWER: u64 = 4 << 10;
/// What its answer begins with.
const VERSION: &str = "etcd Version: ";
/// The file that receives it.
const ANSWERED: &str = "version";

/// Where an etcd may be.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// The one that was given; none: one that is found.
    pub given: Option<PathBuf>,
    /// The node's own data directory: whoever has its database open is the node's etcd.
    pub data_dir: PathBuf,
    /// Folders that are searched where none runs here.
    pub search: Vec<PathBuf>,
}

/// The etcd that served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Etcd {
    /// Its release.
    pub version: String,
    /// Its program.
    pub path: PathBuf,
    /// Where that is from.
    pub from: From,
}

/// Where an etcd was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// It was given.
    Given,
    /// It runs on this node.
    Node,
    /// In the search path.
    Path,
}

impl From {
    /// What is said of it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Given => "as given",
            Self::Node => "which runs on this node",
            Self::Path => "found in PATH",
        }
    }
}

/// An etcd that can be started.
#[derive(Debug)]
pub(super) struct Program {
    version: String,
    path: PathBuf,
    from: From,
    /// What is run: the program, or its loader.
    pub(super) run: PathBuf,
    /// What comes before the arguments: the program, if a loader is run.
    pub(super) first: Option<PathBuf>,
    /// Its libraries' folders; empty: those of this machine.
    pub(super) libraries: OsString,
    /// Keeps the program of a process reachable.
    _held: Option<RunningEtcd>,
}

impl Program {
    pub(super) fn told(&self) -> Etcd {
        Etcd {
            version: self.version.clone(),
            path: self.path.clone(),
            from: self.from,
        }
    }

    fn release(&self) -> Result<Release> {
        self.version.parse().map_err(|_| {
            let what = format!(
                "{}: expected a release, found {:?}",
                self.path.display(),
                self.version
            );
            Failure::refused_for_good("etcd-unusable", what)
        })
    }

    /// A file of this machine.
    fn file(path: &Path, from: From) -> Self {
        Self {
            version: String::new(),
            path: path.to_owned(),
            from,
            run: path.to_owned(),
            first: None,
            libraries: OsString::new(),
            _held: None,
        }
    }

    /// Asks it for its release.
    fn asked(mut self, context: &Context, here: &Path) -> Result<Self> {
        self.version = version(context, &self, here).map_err(|why| match why {
            Why::Failed(failure) => failure,
            Why::Unusable(what) => {
                let what = format!("{} cannot be used: {what}", self.path.display());
                Failure::refused_for_good("etcd-unusable", what)
            }
        })?;
        Ok(self)
    }
}

/// Finds an etcd that can read the data. Of several that run here it is the one of the release that the backup
/// is of, else the newest.
///
/// # Errors
/// `no-etcd`, `etcd-unusable`, `etcd-too-old`.
pub(super) fn find(
    context: &Context,
    programs: &Programs,
    needed: &Needed,
    here: &Path,
) -> Result<Program> {
    if let Some(given) = &programs.given {
        // It runs in another folder, where a relative path would name another file.
        let path = std::path::absolute(given)
            .doing(Kind::Usage, || format!("looking for {}", given.display()))?;
        return fit(
            Program::file(&path, From::Given).asked(context, here)?,
            needed,
        );
    }
    find_in(context, programs, needed, here, Path::new(PROC))
}

/// The same if none was given.
fn find_in(
    context: &Context,
    programs: &Programs,
    needed: &Needed,
    here: &Path,
    proc: &Path,
) -> Result<Program> {
    let mut found = Vec::new();
    for etcd in running_etcd::running(proc, &programs.data_dir) {
        context.cancel.check()?;
        match of_process(context, etcd, here).and_then(|one| Ok((one.release()?, one))) {
            Ok(one) => found.push(one),
            // Another one may be usable.
            Err(failure) => context.tell(Event::Note(failure.to_string())),
        }
    }
    if let Some(best) = best(found, needed) {
        return fit(best, needed);
    }
    let in_path = programs.search.iter().map(|folder| folder.join("etcd"));
    let Some(path) = in_path.into_iter().find(|path| path.is_file()) else {
        let what = "there is no etcd to rehearse with: none runs on this node, and none is in PATH";
        return Err(Failure::refused_for_good("no-etcd", what));
    };
    fit(
        Program::file(&path, From::Path).asked(context, here)?,
        needed,
    )
}

/// The one of the member's own release, else the newest.
fn best(found: Vec<(Release, Program)>, needed: &Needed) -> Option<Program> {
    let own = |program: &Program| Some(&program.version) == needed.member.as_ref();
    found
        .into_iter()
        .max_by_key(|(release, program)| (own(program), *release))
        .map(|(_, program)| program)
}

/// The program of a process: by the loader and the libraries of its container, if it has any.
fn of_process(context: &Context, etcd: RunningEtcd, here: &Path) -> Result<Program> {
    let path = PathBuf::from(format!("/proc/{}/exe", etcd.pid));
    let bare = Program {
        path,
        ..Program::file(&etcd.program(), From::Node)
    };
    let Some(loader) = etcd.loader() else {
        let held = Some(etcd);
        return Program {
            _held: held,
            ..bare
        }
        .asked(context, here);
    };
    let loaded = Program {
        run: loader,
        first: Some(etcd.program()),
        libraries: etcd.library_path(),
        _held: Some(etcd),
        ..bare
    };
    loaded.asked(context, here)
}

/// Refuses a release that cannot read the data.
fn fit(program: Program, needed: &Needed) -> Result<Program> {
    let release = program.release()?;
    let Some((of, source)) = needed.too_new_for(release) else {
        return Ok(program);
    };
    let what = format!(
        "etcd {} of {} is too old for this backup, which needs {}.{} or later ({source})",
        program.version,
        program.path.display(),
        of.major,
        of.minor
    );
    Err(Failure::refused_for_good("etcd-too-old", what))
}

/// Why a program did not say its release.
enum Why {
    Failed(Failure),
    Unusable(String),
}

fn version(context: &Context, program: &Program, here: &Path) -> Result<String, Why> {
    let failed = |failure| Why::Failed(failure);
    let answer = here.join(ANSWERED);
    let doing = || format!("running {} --version", program.path.display());
    let output = File::create(&answer)
        .doing(Kind::Store, doing)
        .map_err(failed)?;
    let arguments = program.first.iter().map(OsString::from);
    let started = Bound::start(Spec {
        program: &program.run,
        libraries: program.libraries.clone(),
        arguments: arguments.chain(["--version".into()]).collect(),
        dir: here,
        output,
    });
    let child = started.doing(Kind::Unexpected, doing).map_err(failed)?;
    let until = Instant::now() + ANSWER;
    while child.exited().is_none() {
        context.cancel.check().map_err(failed)?;
        if Instant::now() > until {
            let what = format!("--version did not end within {} s", ANSWER.as_secs());
            return Err(Why::Unusable(what));
        }
        thread::sleep(POLL);
    }
    let mut text = Vec::new();
    File::open(&answer)
        .and_then(|file| file.take(MAX_ANSWER).read_to_end(&mut text))
        .doing(Kind::Store, doing)
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().find_map(|line| line.strip_prefix(VERSION));
    found.map(|found| found.trim().to_owned()).ok_or_else(|| {
        let first = text.lines().next().unwrap_or("nothing").to_owned();
        Why::Unusable(format!(
            "expected \"{VERSION}…\" of --version, found {:?}",
            cut(first)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Cancel;
    use crate::event::Silent;

    #[test]
    fn without_an_etcd_it_is_refused_and_of_several_the_backups_own_release_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context {
            observer: std::sync::Arc::new(Silent),
            now: jiff::Timestamp::UNIX_EPOCH,
            cancel: Cancel::default(),
        };
        let mut needed = Needed {
            sources: Vec::new(),
            member: None,
        };
        let programs = Programs {
            given: None,
            data_dir: dir.path().join("data"),
            search: vec![dir.path().to_owned()],
        };
        let none = find_in(&context, &programs, &needed, dir.path(), dir.path());
        assert_eq!(none.unwrap_err().refusal(), Some("no-etcd"));

        let of = |version: &str| {
            let program = Program {
                version: version.to_owned(),
                ..Program::file(Path::new("/x/etcd"), From::Node)
            };
            (program.release().unwrap(), program)
        };
        let several = || vec![of("3.5.16"), of("3.6.1"), of("3.5.30")];
        let best = |needed: &Needed| best(several(), needed).map(|program| program.version);
        assert_eq!(best(&needed).as_deref(), Some("3.6.1"));
        needed.member = Some("3.5.16".to_owned());
        assert_eq!(best(&needed).as_deref(), Some("3.5.16"));
        needed.member = Some("3.4.0".to_owned());
        assert_eq!(best(&needed).as_deref(), Some("3.6.1"));
    }
}
