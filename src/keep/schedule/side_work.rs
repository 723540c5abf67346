//! The work beside a backup: copies, then the verification of other sets, then a rehearsal.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::rehearsals::Rehearsals;
use super::rotation::next_to_verify;
use crate::context::Context;
use crate::error::{Failure, Kind, Result};
use crate::keep::catalog::{self, BackupSet};
use crate::keep::copies::{Copies, Place, Tried};
use crate::keep::ranges::{self, Proven};
use crate::store::LocalStore;

/// What verifies a set, and says whether it is good.
pub type Verify = fn(&Context, &BackupSet) -> Result<bool>;

/// The work beside a backup.
pub struct SideWork {
    /// Where copies go; what is wrong with that is a problem of the copies alone.
    pub copies: Result<Copies>,
    /// A set that is there already, which is to have copies too.
    pub ask: Option<String>,
    /// The set that was just taken, and how many others are verified.
    pub verify: Option<(String, u32)>,
    /// Which others they are.
    pub turns: Turns,
    /// What is rehearsed once that is due.
    pub rehearsals: Option<Rehearsals>,
    /// Where the recorded changes that lead to the new set are proven; none: they are not.
    pub prove_in: Option<PathBuf>,
    /// When the period ends: no further copy is begun then.
    pub until: Timestamp,
}

/// Which set is verified next, and how.
pub struct Turns {
    /// The node's store.
    pub store: LocalStore,
    /// What verifies one.
    pub verify: Verify,
    /// The set that is being verified.
    pub verifying: Arc<Mutex<Option<String>>>,
    /// Sets whose verification did not end: the others come first.
    pub passed_over: BTreeSet<String>,
}

/// What the work beside a backup came to.
#[derive(Debug, Default)]
pub struct SideReport {
    /// The copies.
    pub tried: Vec<Tried>,
    /// The sets that were verified, and whether each is good.
    pub verified: Vec<(String, Result<bool>)>,
    /// The set that was rehearsed, and whether etcd served it.
    pub rehearsed: Option<(String, Result<bool>)>,
    /// Whether recorded changes lead from the set before to this one.
    pub proven: Option<Proven>,
    /// What else went wrong.
    pub problems: Vec<Failure>,
    /// How the copies stand.
    pub places: Vec<Place>,
}

impl SideReport {
    /// Whether there is nothing to tell.
    pub fn is_nothing(&self) -> bool {
        let checked = !self.verified.is_empty() || self.rehearsed.is_some();
        self.tried.is_empty() && !checked && self.problems.is_empty()
    }

    /// Nothing but something that went wrong.
    pub fn trouble(what: Failure) -> Self {
        Self {
            problems: vec![what],
            ..Self::default()
        }
    }

    /// What was interrupted was so because nothing moved any more: it is a failure of the store.
    pub fn cut(&mut self) {
        for tried in &mut self.tried {
            let cut = |failure: &Failure| failure.kind() == Kind::Interrupted;
            if tried.came.as_ref().err().is_some_and(cut) {
                let what = format!(
                    "copying {}: nothing more was sent until the end of the period; it is retried",
                    tried.set
                );
                tried.came = Err(Failure::new(Kind::Store, what));
            }
        }
    }
}

impl SideWork {
    /// Makes the copies, then verifies, then rehearses.
    ///
    /// # Errors
    /// None of its own: what fails is in the report.
    pub async fn run(self, context: Context) -> Result<SideReport> {
        let mut report = SideReport::default();
        match self.copies {
            Ok(copies) => {
                let (store, until) = (&self.turns.store, Some(self.until));
                let ask = self.ask.as_deref();
                report.tried = copies.catch_up(&context, store, ask, until).await;
                report.places = copies.look(&context, store).await;
            }
            Err(failure) => report.problems.push(failure),
        }
        if let Some((own, sets)) = &self.verify {
            report.verified = self.turns.verify_others(&context, own, *sets);
        }
        if let Some(scratch) = &self.prove_in {
            match ranges::prove_newest(&context, &self.turns.store, scratch) {
                Ok(proven) => report.proven = proven,
                Err(failure) if failure.kind() == Kind::Interrupted => {}
                Err(failure) => report
                    .problems
                    .push(failure.doing("proving recorded changes")),
            }
        }
        if let Some(rehearsals) = self.rehearsals
            && !context.cancel.is_cancelled()
        {
            report.rehearsed = rehearsals.run(&context, &self.turns.store).await;
        }
        Ok(report)
    }
}

impl Turns {
    /// Verifies as many other sets as are asked for, those whose turn it is.
    fn verify_others(
        &self,
        context: &Context,
        but: &str,
        sets: u32,
    ) -> Vec<(String, Result<bool>)> {
        let mut verified: Vec<(String, Result<bool>)> = Vec::new();
        let tell = |set: Option<String>| {
            let verifying = self.verifying.lock();
            *verifying.unwrap_or_else(PoisonError::into_inner) = set;
        };
        for _ in 0..sets {
            if context.cancel.is_cancelled() {
                break;
            }
            let mut listed = match catalog::list(&self.store) {
                Ok(listed) => listed,
                Err(failure) => {
                    verified.push(("the store".to_owned(), Err(failure)));
                    break;
                }
            };
            listed.retain(|set| !self.passed_over.contains(&set.name));
            let next = next_to_verify(&listed, Some(but), Timestamp::now());
            // Where there are fewer than asked for, none is read twice.
            let next = next.filter(|set| verified.iter().all(|(name, _)| *name != set.name));
            let Some(set) = next else { break };
            tell(Some(set.name.clone()));
            verified.push((set.name.clone(), (self.verify)(context, set)));
            if context.cancel.is_cancelled() {
                // Who cancelled it passes it over.
                break;
            }
            tell(None);
        }
        verified
    }
}
