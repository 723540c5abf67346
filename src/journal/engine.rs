//! Runs a plan step by step, so that it can be resumed or rolled back at any point.
//!
//! ```text
//! begin ─> running ─> completed ─> committed
//!             └────────────┴─> rolling back ─> rolled back
//! ```
//!
//! # Invariants
//!
//! - The intent of a step is durable before it acts, and its completion afterwards. A step without
//!   either record has not acted.
//! - [`Step::apply`] and [`Step::undo`] can be repeated, and each may find the other half done,
//!   since a process can be killed anywhere.
//! - A rollback undoes the steps that started, last first, and nothing else.
//! - Once a rollback has started, the plan is never resumed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::file::{self, Begin, Journal, Line, Record};
use super::trust;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::event::{Event, Observer};

/// Tells the time.
pub type Clock = fn() -> Timestamp;

/// One act of a plan.
pub trait Step: Serialize + DeserializeOwned {
    /// What the acts need of the world.
    type World;

    /// Its stable name, lower case with hyphens.
    fn name(&self) -> &'static str;

    /// What it does, in a sentence for people.
    fn describe(&self) -> String;

    /// Acts, and returns what it found out. Can be repeated: what is done already stays.
    fn apply(
        &self,
        world: &Self::World,
        known: &Known,
    ) -> impl Future<Output = Result<Option<Value>>>;

    /// Undoes the step, however much of it was done, and returns what it found out. Can be
    /// repeated.
    fn undo(
        &self,
        world: &Self::World,
        known: &Known,
    ) -> impl Future<Output = Result<Option<Value>>>;
}

/// What the steps so far found out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    facts: BTreeMap<usize, Value>,
    /// Whether all steps were done: then a rollback loses what has happened since.
    pub completed: bool,
}

impl Known {
    /// A field that a step found out; of several steps the last.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.facts.values().rev().find_map(|facts| facts.get(name))
    }

    /// All values of a field, whichever steps found them out.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.facts.values().filter_map(move |facts| facts.get(name))
    }

    /// Adds the facts that a step found out.
    fn learn(&mut self, step: usize, facts: Option<&Value>) {
        let Some(facts) = facts else { return };
        match (self.facts.get_mut(&step), facts) {
            (Some(Value::Object(known)), Value::Object(more)) => {
                known.extend(
                    more.iter()
                        .map(|(name, value)| (name.clone(), value.clone())),
                );
            }
            _ => {
                self.facts.insert(step, facts.clone());
            }
        }
    }

    /// A field read as a type of its own.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.field(name).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value).doing(Kind::Unexpected, || {
            format!("reading {name:?} in the journal")
        })
    }
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Steps are being done, or a process that did them is gone.
    Running,
    /// All are done; what a rollback needs is kept.
    Completed,
    /// Steps are being undone, or were when the process ended.
    RollingBack,
    /// All are undone.
    RolledBack,
    /// What was kept is being removed.
    Committing,
    /// It is removed: a rollback is impossible.
    Committed,
}

impl State {
    /// Whether the node is neither as before nor as after.
    pub const fn is_unfinished(self) -> bool {
        matches!(self, Self::Running | Self::RollingBack)
    }

    /// Whether it is done, and what it replaced is still kept.
    pub const fn is_uncommitted(self) -> bool {
        matches!(self, Self::Completed | Self::Committing)
    }

    /// Whether what a rollback needs is kept.
    pub const fn can_roll_back(self) -> bool {
        matches!(self, Self::Running | Self::RollingBack | Self::Completed)
    }

    /// The word for it in results.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::Committing => "committing",
            Self::Committed => "committed",
        }
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Begun, and not known to be done.
    Doing,
    /// Done.
    Done,
    /// Being undone.
    Undoing,
    /// Undone.
    Undone,
}

/// What a journal tells of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The plan.
    pub begin: Begin,
    /// When it began.
    pub began: Timestamp,
    /// When the last record was written.
    pub last: Timestamp,
    /// How far it is.
    pub state: State,
    /// How far each step is.
    pub steps: Vec<StepState>,
    /// What they found out.
    pub known: Known,
    /// Why it goes or went back.
    pub why: Option<String>,
}

impl Progress {
    /// Reads the journal in an operation's folder.
    pub fn read(dir: &Path) -> Result<Self> {
        Self::of(&dir.join(file::FILE), &file::read(dir)?)
    }

    fn of(path: &Path, lines: &[Line]) -> Result<Self> {
        let bad = |what: String| {
            Failure::new(Kind::Busy, what)
                .doing(format!("reading the journal {}", path.display()))
                .with(Fact::Path(path.to_owned()))
        };
        let Some((
            Line {
                time,
                record: Record::Begin(begin),
            },
            rest,
        )) = lines.split_first()
        else {
            return Err(bad("expected a plan in line 1, found none".to_owned()));
        };
        let mut progress = Self {
            steps: vec![StepState::Pending; begin.steps.len()],
            begin: begin.clone(),
            began: *time,
            last: *time,
            state: State::Running,
            known: Known::default(),
            why: None,
        };
        for (number, line) in rest.iter().enumerate() {
            progress
                .take(line)
                .map_err(|what| bad(format!("line {}: {what}", number + 2)))?;
        }
        Ok(progress)
    }

    /// Follows one record.
    fn take(&mut self, line: &Line) -> Result<(), String> {
        self.last = line.time;
        let mut step = |step: usize, to: StepState| match self.steps.get_mut(step) {
            Some(state) => {
                *state = to;
                Ok(())
            }
            None => Err(format!("expected a step of the plan, found number {step}")),
        };
        match &line.record {
            Record::Begin(_) => return Err("expected one plan, found a second".to_owned()),
            Record::Doing { step: at } => step(*at, StepState::Doing)?,
            Record::Done { step: at, facts } => {
                step(*at, StepState::Done)?;
                self.known.learn(*at, facts.as_ref());
            }
            Record::Undoing { step: at } => step(*at, StepState::Undoing)?,
            Record::Undone { step: at, facts } => {
                step(*at, StepState::Undone)?;
                self.known.learn(*at, facts.as_ref());
            }
            Record::Resumed => {}
            Record::Completed => {
                self.state = State::Completed;
                self.known.completed = true;
            }
            Record::RollingBack { why } => {
                self.state = State::RollingBack;
                self.why = Some(why.clone());
            }
            Record::RolledBack => self.state = State::RolledBack,
            Record::Committing => self.state = State::Committing,
            Record::Committed => self.state = State::Committed,
        }
        Ok(())
    }
}

/// A plan with its journal.
pub struct Operation<S> {
    journal: Journal,
    dir: PathBuf,
    steps: Vec<S>,
    progress: Progress,
    observer: Arc<dyn Observer>,
    clock: Clock,
    /// Why a record of the rollback could not be written, if so.
    unrecorded: Option<Failure>,
}

impl<S: Step> Operation<S> {
    /// Makes the plan durable in an empty folder; nothing is done yet.
    pub fn begin(
        dir: &Path,
        begin: Begin,
        steps: Vec<S>,
        observer: Arc<dyn Observer>,
        clock: Clock,
    ) -> Result<Self> {
        trust::check_folder(dir)?;
        let encoded: Vec<Value> = steps
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()
            .doing(Kind::Unexpected, || "writing the plan as JSON")?;
        let begin = Begin {
            steps: encoded,
            ..begin
        };
        let time = clock();
        let journal = Journal::create(dir, begin.clone(), time)?;
        let line = Line {
            time,
            record: Record::Begin(begin),
        };
        Ok(Self {
            progress: Progress::of(journal.path(), std::slice::from_ref(&line))?,
            journal,
            dir: dir.to_owned(),
            steps,
            observer,
            clock,
            unrecorded: None,
        })
    }

    /// Takes up an operation from its journal.
    pub fn open(dir: &Path, observer: Arc<dyn Observer>, clock: Clock) -> Result<Self> {
        let (journal, lines) = Journal::open(dir)?;
        let progress = Progress::of(journal.path(), &lines)?;
        let step = |(number, value): (usize, &Value)| {
            serde_json::from_value(value.clone()).map_err(|cause| {
                Failure::wrap(
                    Kind::Busy,
                    cause,
                    format!(
                        "reading step {} of the journal {}, written by version {}",
                        number + 1,
                        journal.path().display(),
                        progress.begin.tool
                    ),
                )
                .with(Fact::Path(journal.path().to_owned()))
            })
        };
        let steps = progress
            .begin
            .steps
            .iter()
            .enumerate()
            .map(step)
            .collect::<Result<_>>()?;
        Ok(Self {
            journal,
            dir: dir.to_owned(),
            steps,
            progress,
            observer,
            clock,
            unrecorded: None,
        })
    }

    /// What the journal tells.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The fact that it waits for a resume or a rollback.
    pub fn unfinished(&self) -> Fact {
        Fact::Unfinished {
            id: self.progress.begin.id.clone(),
            journal: self.dir.join(file::FILE),
            goes_back: self.progress.state == State::RollingBack,
        }
    }

    /// The operation's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The steps.
    pub fn steps(&self) -> &[S] {
        &self.steps
    }

    fn record(&mut self, record: Record) -> Result<()> {
        let line = self.journal.append(record, (self.clock)())?;
        self.follow(&line)
    }

    fn follow(&mut self, line: &Line) -> Result<()> {
        self.progress.take(line).map_err(|what| {
            Failure::new(Kind::Unexpected, what).doing("following the plan's own journal")
        })
    }

    /// Records a step of the rollback. A journal that cannot be written, on a full or read-only
    /// file system, does not stop the rollback: undoing needs only renames, and can be repeated.
    fn record_back(&mut self, record: Record) -> Result<()> {
        let time = (self.clock)();
        let line = match self.journal.append(record.clone(), time) {
            Ok(line) => line,
            Err(failure) if failure.io_kind().is_some_and(cannot_be_written) => {
                self.unrecorded.get_or_insert(failure);
                Line { time, record }
            }
            Err(failure) => return Err(failure),
        };
        self.follow(&line)
    }

    /// Records that another process continues it.
    pub fn resumed(&mut self) -> Result<()> {
        self.record(Record::Resumed)
    }

    /// Runs the steps that are not done. Calls `stop` before each.
    ///
    /// # Errors
    /// Those of the failed step and of `stop`. Nothing is undone then.
    pub async fn run(&mut self, world: &S::World, stop: &dyn Fn() -> Result<()>) -> Result<()> {
        if self.progress.state != State::Running {
            return Err(Failure::new(
                Kind::Unexpected,
                format!(
                    "{} cannot be resumed: it is {}",
                    self.progress.begin.id,
                    self.progress.state.word()
                ),
            ));
        }
        for at in 0..self.steps.len() {
            if self.progress.steps.get(at) == Some(&StepState::Done) {
                continue;
            }
            stop()?;
            self.record(Record::Doing { step: at })?;
            self.tell(at, false, false);
            let Some(step) = self.steps.get(at) else {
                break;
            };
            let facts = step
                .apply(world, &self.progress.known)
                .await
                .map_err(|failure| failure.doing(format!("step {}, {}", at + 1, step.name())))?;
            self.record(Record::Done { step: at, facts })?;
            self.tell(at, false, true);
        }
        self.record(Record::Completed)
    }

    /// Undoes all steps that started, last first.
    ///
    /// # Errors
    /// Those of the step that could not be undone; the next call continues there.
    pub async fn roll_back(&mut self, world: &S::World, why: &str) -> Result<()> {
        let begins = Record::RollingBack {
            why: why.to_owned(),
        };
        match self.progress.state {
            State::RollingBack => {}
            // Nothing is broken yet: better not to begin than to undo without any record.
            State::Completed => self.record(begins)?,
            _ => self.record_back(begins)?,
        }
        for at in (0..self.steps.len()).rev() {
            match self.progress.steps.get(at) {
                None | Some(StepState::Pending | StepState::Undone) => continue,
                Some(_) => {}
            }
            self.record_back(Record::Undoing { step: at })?;
            self.tell(at, true, false);
            let Some(step) = self.steps.get(at) else {
                break;
            };
            let facts = step
                .undo(world, &self.progress.known)
                .await
                .map_err(|failure| {
                    failure.doing(format!("undoing step {}, {}", at + 1, step.name()))
                })?;
            self.record_back(Record::Undone { step: at, facts })?;
            self.tell(at, true, true);
        }
        self.record_back(Record::RolledBack)?;
        self.warn_unrecorded();
        Ok(())
    }

    /// Commits: `remove` deletes what was kept for a rollback.
    pub fn commit(&mut self, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        // Recorded before anything is removed: from here on a rollback is refused.
        if self.progress.state != State::Committing {
            self.record(Record::Committing)?;
        }
        remove()?;
        self.record(Record::Committed)
    }

    /// Records that everything is undone, after a rollback whose journal could not be written.
    pub fn settle_undone(&mut self, why: &str) -> Result<()> {
        if self.progress.state != State::RollingBack {
            self.record(Record::RollingBack {
                why: why.to_owned(),
            })?;
        }
        self.record(Record::RolledBack)
    }

    /// Reports that everything is undone although the journal lacks the record.
    fn warn_unrecorded(&mut self) {
        let Some(failure) = self.unrecorded.take() else {
            return;
        };
        self.observer.event(Event::Warning {
            name: "rollback-not-recorded",
            message: format!(
                "every step is undone, but the journal could not record it ({failure}); once {} is writable, run the rollback again before any other change of this node",
                self.journal.path().display()
            ),
        });
    }

    fn tell(&self, at: usize, undo: bool, done: bool) {
        let Some(step) = self.steps.get(at) else {
            return;
        };
        self.observer.event(Event::Step {
            number: at + 1,
            of: self.steps.len(),
            name: step.name(),
            about: step.describe(),
            undo,
            done,
        });
    }
}

/// Whether a write failed because the file system is full or read-only.
fn cannot_be_written(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests;
