//! Runs any change of a node as one transaction: planned under the node's lock, confirmed, written
//! to a journal, carried out, and rolled back if it fails or on request.
//!
//! ```text
//! Transaction::begin ─> run ─> commit
//!             open ─┴─> resume │ rollback
//! ```

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::context::StepContext;
use super::info::{NodeFacts, OperationInfo};
use super::lock::Locked;
use super::steps::NodeStep;
use super::{bounds, commit, unsettled};
use crate::context::Context;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::event::Event;
use crate::journal::registry::{self, Found};
use crate::journal::{self, Begin, Known, Operation, Progress, State};
use crate::node::layout::NodeLayout;
use crate::sys::fs;

/// A kind of change that has a journal.
pub trait Journalled {
    /// What its journal keeps besides the steps.
    type Info: OperationInfo;
    /// Its name in journals.
    const KIND: &'static str;
    /// The command, for the message of other processes that find the node locked.
    const COMMAND: &'static str;

    /// What is true after a failed run was rolled back.
    fn rolled_back(known: &Known) -> String;

    /// Why a failed change must not be rolled back automatically, if so.
    fn stays(
        _node: &StepContext,
        _operation: &Operation<NodeStep>,
    ) -> impl Future<Output = Option<String>> {
        async { None }
    }

    /// Refuses to resume if that would do harm.
    fn check_resume(
        _node: &StepContext,
        _info: &Self::Info,
        _operation: &Operation<NodeStep>,
    ) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// Refuses a rollback if other members depend on the change; prepares it while everything still
    /// runs.
    fn check_rollback(
        _node: &StepContext,
        _operation: &Operation<NodeStep>,
    ) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }
}

/// A plan that can be carried out, before it is begun.
#[derive(Debug)]
pub struct Plan<J: Journalled> {
    /// The operation's name, which no folder has yet.
    pub id: String,
    /// What its journal keeps.
    pub info: J::Info,
    /// Its steps, in the order in which they run. Paths are the node's own.
    pub steps: Vec<NodeStep>,
}

/// What a change ended in.
#[derive(Debug, Clone)]
pub struct Done<I> {
    /// Its name.
    pub id: String,
    /// What it was about.
    pub info: I,
    /// What its steps found out.
    pub known: Known,
}

/// A change of a node with a journal, which holds the node's locks.
pub struct Transaction<J> {
    context: Context,
    layout: NodeLayout,
    operation: Operation<NodeStep>,
    change: PhantomData<J>,
    _locked: Locked,
}

/// Takes the node's locks for a new change.
///
/// # Errors
/// [`Kind::Busy`] while another operation is unfinished, or another process changes the node.
pub fn lock<J: Journalled>(context: &Context, layout: &NodeLayout) -> Result<Locked> {
    registry::refuse_while_unfinished(&layout.state())?;
    Locked::take(context, layout, J::COMMAND)
}

/// What a journal of this kind is about.
///
/// # Errors
/// [`Kind::Busy`] if another version wrote it.
pub fn info<I: DeserializeOwned>(progress: &Progress) -> Result<I> {
    serde_json::from_value(progress.begin.about.clone()).map_err(|cause| {
        let what = format!("reading the plan of {}", progress.begin.id);
        Failure::wrap(Kind::Busy, cause, what)
    })
}

/// The result of a change whose steps are done.
///
/// # Errors
/// As those of [`info`].
pub fn done<I: DeserializeOwned>(progress: &Progress) -> Result<Done<I>> {
    Ok(Done {
        id: progress.begin.id.clone(),
        info: info(progress)?,
        known: progress.known.clone(),
    })
}

impl<J: Journalled> Transaction<J> {
    /// Makes a plan's journal durable; nothing else has changed then. Removes and reports the
    /// leftovers of earlier changes that were interrupted before they had a journal.
    ///
    /// # Errors
    /// [`Kind::Store`].
    pub fn begin(
        context: &Context,
        layout: &NodeLayout,
        locked: Locked,
        plan: &Plan<J>,
        tool_version: &str,
    ) -> Result<Self> {
        let state = layout.state();
        fs::mkdir_all(&state)?;
        // Under the node's lock: no running process is about to write a journal there.
        for left in registry::sweep(&state, &format!("{}-", J::KIND))? {
            context.tell(Event::LeftoverRemoved(left));
        }
        let dir = state.join(&plan.id);
        fs::mkdir(&dir)?;
        // The journal is durable only if its folder's name is.
        fs::sync_dir(&state)?;
        let about = serde_json::to_value(&plan.info)
            .doing(Kind::Unexpected, || "writing the plan as JSON")?;
        let begin = Begin {
            schema: journal::SCHEMA,
            tool: tool_version.to_owned(),
            id: plan.id.clone(),
            kind: J::KIND.to_owned(),
            about,
            steps: Vec::new(),
        };
        let observer = Arc::clone(&context.observer);
        let steps = plan.steps.clone();
        let operation = Operation::begin(&dir, begin, steps, observer, Timestamp::now)?;
        Ok(Self::of(context, layout, locked, operation))
    }

    /// Opens an operation by its name, or the one that a flag such as `--rollback` means by
    /// default.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another process changes the node, or an operation of another kind is
    /// unfinished; [`Kind::Usage`] if there is no operation of this kind.
    pub fn open(
        context: &Context,
        layout: &NodeLayout,
        id: Option<&str>,
        flag: &str,
    ) -> Result<Self> {
        // The lock first: another process might settle what is found without it.
        let locked = Locked::take(context, layout, &format!("{} {flag}", J::COMMAND))?;
        let found = unsettled::current(layout, J::KIND, id)?;
        Self::open_found(context, layout, locked, &found)
    }

    /// Opens one that was found under the node's locks.
    ///
    /// # Errors
    /// [`Kind::Busy`] if its journal cannot be read.
    pub fn open_found(
        context: &Context,
        layout: &NodeLayout,
        locked: Locked,
        found: &Found,
    ) -> Result<Self> {
        let observer = Arc::clone(&context.observer);
        let operation = Operation::open(&found.dir, observer, Timestamp::now)?;
        Ok(Self::of(context, layout, locked, operation))
    }

    fn of(
        context: &Context,
        layout: &NodeLayout,
        locked: Locked,
        operation: Operation<NodeStep>,
    ) -> Self {
        Self {
            context: context.clone(),
            layout: layout.clone(),
            operation,
            change: PhantomData,
            _locked: locked,
        }
    }

    /// The operation's folder.
    pub fn dir(&self) -> &Path {
        self.operation.dir()
    }

    /// What the journal says.
    pub fn progress(&self) -> &Progress {
        self.operation.progress()
    }

    /// What it is about.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another version wrote the journal.
    pub fn info(&self) -> Result<J::Info> {
        info(self.progress())
    }

    fn done(&self) -> Result<Done<J::Info>> {
        done(self.progress())
    }

    /// What the steps act upon.
    fn node(&self, context: &Context) -> Result<StepContext> {
        bounds::check(&self.layout, self.progress())?;
        let facts: NodeFacts = self.info()?.facts();
        Ok(StepContext::new(context, &self.layout, facts))
    }

    /// Records that this process resumes an interrupted run.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it is settled; [`Kind::Busy`] if it is rolled back, or was; and those of
    /// [`Journalled::check_resume`].
    pub async fn resume(&mut self) -> Result<()> {
        let progress = self.progress();
        let id = &progress.begin.id;
        match progress.state {
            State::Running => {}
            State::RollingBack => {
                let what = format!("{id} is already being rolled back");
                return Err(Failure::new(Kind::Busy, what).with(self.operation.unfinished()));
            }
            state => {
                let what = format!("nothing to resume: {id} is {}", state.word());
                return Err(Failure::new(Kind::Usage, what));
            }
        }
        let node = self.node(&self.context)?;
        J::check_resume(&node, &self.info()?, &self.operation).await?;
        // After the checks: a refusal leaves the journal as it was.
        self.operation.resumed()
    }

    /// Runs the steps that are not done. If one fails, rolls back, unless `keep_failed` or
    /// [`Journalled::stays`] prevents it.
    ///
    /// # Errors
    /// [`Kind::RolledBack`] if it failed and everything is as before; [`Kind::Interrupted`] if the
    /// operator interrupted it; [`Kind::RollbackFailed`] if the rollback failed too; [`Kind::Busy`]
    /// if it was not rolled back.
    pub async fn run(&mut self, keep_failed: bool) -> Result<Done<J::Info>> {
        let node = self.node(&self.context)?;
        self.refuse_if_undone()?;
        let cancel = self.context.cancel.clone();
        let stop = move || cancel.check();
        let failed = match self.operation.run(&node, &stop).await {
            Ok(()) => return self.done(),
            Err(failure) => failure,
        };
        let unfinished = self.operation.unfinished();
        if keep_failed && failed.kind() != Kind::Interrupted {
            return Err(failed.as_kind(Kind::Busy).with(unfinished));
        }
        if let Some(why) = J::stays(&node, &self.operation).await {
            return Err(failed.as_kind(Kind::Busy).doing(why).with(unfinished));
        }
        // A request to stop may be what ended the run; it must not stop the rollback, too.
        let unstopped = self.node(&self.context.unstopped())?;
        Err(self.fail_and_roll_back(&unstopped, failed).await)
    }

    /// Refuses to resume what was undone without a record: its steps would be taken for done.
    fn refuse_if_undone(&self) -> Result<()> {
        let progress = self.progress();
        if unsettled::is_undone(&self.layout, progress)? {
            let what = format!(
                "{} cannot be resumed: it was rolled back, but its journal could not record that",
                progress.begin.id
            );
            return Err(Failure::new(Kind::Busy, what).with(self.operation.unfinished()));
        }
        Ok(())
    }

    /// Rolls back after a failure, and returns the failure to report: [`Kind::Interrupted`] if the
    /// operator interrupted the change, [`Kind::RolledBack`] otherwise; [`Kind::RollbackFailed`] if
    /// the rollback failed too.
    async fn fail_and_roll_back(&mut self, unstopped: &StepContext, failed: Failure) -> Failure {
        self.context.warn("rolling-back", failed.to_string());
        if let Err(second) = self.undo(unstopped, &failed.to_string()).await {
            return second.doing(format!("rolling back after: {failed}"));
        }
        let kind = match failed.kind() {
            Kind::Interrupted => Kind::Interrupted,
            _ => Kind::RolledBack,
        };
        failed
            .as_kind(kind)
            .doing(J::rolled_back(&self.progress().known))
    }

    /// Undoes everything, in a context that a request to stop does not reach.
    async fn undo(&mut self, unstopped: &StepContext, why: &str) -> Result<()> {
        let undone = self.operation.roll_back(unstopped, why).await;
        undone.map_err(|failure| {
            let unfinished: Fact = self.operation.unfinished();
            failure.as_kind(Kind::RollbackFailed).with(unfinished)
        })
    }

    /// Rolls back on request: an unfinished change, or a completed one that nothing depends on.
    ///
    /// # Errors
    /// [`Kind::Refused`] if it is committed, or others depend on it; [`Kind::Busy`] if a later
    /// operation goes first; [`Kind::RollbackFailed`].
    pub async fn rollback(&mut self) -> Result<Done<J::Info>> {
        unsettled::refuse_without_rollback(self.progress())?;
        unsettled::refuse_under_later(&self.layout, self.progress())?;
        let node = self.node(&self.context)?;
        J::check_rollback(&node, &self.operation).await?;
        let unstopped = self.node(&self.context.unstopped())?;
        if unsettled::is_undone(&self.layout, self.progress())? {
            self.operation
                .settle_undone("already undone, but not recorded")?;
            return self.done();
        }
        self.undo(&unstopped, "asked for").await?;
        self.done()
    }

    /// Removes what was kept for the rollback, and commits the disablings that this change has
    /// superseded. Returns the removed paths.
    ///
    /// # Errors
    /// [`Kind::Busy`] if it is unfinished; [`Kind::Store`].
    pub fn commit(&mut self) -> Result<Vec<PathBuf>> {
        let removed = commit::commit(&self.layout, &mut self.operation)?;
        commit::settle_disablings(&self.context, &self.layout)?;
        Ok(removed)
    }
}
