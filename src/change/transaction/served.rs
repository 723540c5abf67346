//! The revisions that clients of this node's etcd can have seen. Every new history starts above
//! them.
//!
//! A revision has one meaning only as long as one history serves it. So the revisions that
//! operations of this node have served count, even if those were rolled back or committed: their
//! journals stay after everything else is deleted, and until then the data itself tells.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::change::datadir;
use crate::context::Context;
use crate::etcd::datadir::{self as files, Layout};
use crate::etcd::restore::Evidence;
use crate::journal::registry;
use crate::node::layout::NodeLayout;

/// The fields of a journal that hold revisions that were served, or were about to be.
const FIELDS: [&str; 4] = ["revision", "revisionNow", SERVED, BUMPED_TO];
/// The highest revision that the data which an operation put in place can have served.
pub(crate) const SERVED: &str = "served";
/// The revision that the data from before was bumped to, so that clients notice.
pub(crate) const BUMPED_TO: &str = "bumpedTo";
/// The last WAL entry of data that was built and has never run.
pub(crate) const LOG_INDEX: &str = "logIndex";
/// The names of kept data in operations' folders.
pub(crate) const KEPT: [&str; 4] = ["data", "data-new", "data-bumped", "data-joined"];

/// The revisions in the journals of this node's operations, settled or not, and in the data that
/// they keep. Warns of what cannot be read: it may hide a higher revision.
pub fn of_operations(context: &Context, layout: &NodeLayout) -> Vec<Evidence> {
    let found = match registry::list(&layout.state()) {
        Ok(found) => found,
        Err(failure) => {
            context.warn("revision-unknown", failure.to_string());
            return Vec::new();
        }
    };
    let mut known = Vec::new();
    for operation in found {
        let progress = match &operation.progress {
            Ok(progress) => progress,
            Err(failure) => {
                let what = format!("cannot tell what {} has served: {failure}", operation.id);
                context.warn("revision-unknown", what);
                continue;
            }
        };
        let fields = FIELDS.iter();
        let highest = fields.flat_map(|name| progress.known.all(name).filter_map(Value::as_i64));
        known.extend(highest.max().map(|revision| Evidence {
            source: format!("the journal of {}", operation.id),
            revision,
        }));
        for dir in kept(layout, &progress.begin.about, &operation.dir) {
            known.extend(of_data(context, &dir));
        }
    }
    known
}

/// Where an operation keeps data: next to its journal, and in the folders of its plan.
fn kept(layout: &NodeLayout, about: &Value, own: &Path) -> BTreeSet<PathBuf> {
    let safety = about.get("safety").and_then(Value::as_array);
    let told = safety.into_iter().flatten().filter_map(Value::as_str);
    let told = told.map(|path| layout.host(Path::new(path)));
    let beside = KEPT.iter().map(|name| own.join(name));
    beside.chain(told).collect()
}

/// What a data directory says, if it holds a member's.
pub(crate) fn of_data(context: &Context, dir: &Path) -> Option<Evidence> {
    match datadir::evidence_of_data(dir) {
        Ok(evidence) => evidence,
        Err(failure) => {
            let what = format!(
                "reading the last revision of the data in {}: {failure}",
                dir.display()
            );
            context.warn("revision-unknown", what);
            None
        }
    }
}

/// What data that was put in place has served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// Nothing: no etcd has led with this data, and one that does not lead answers no client.
    Nothing,
    /// Revisions up to this one.
    UpTo(i64),
}

/// What the data in `dir` has served since it was built with a WAL up to entry `built`. If that is
/// not known, it counts as having served. `told` are the revisions known from the journal.
///
/// An etcd serves once it leads, and a leader's first act is a WAL entry, which is durable before
/// any client gets an answer.
pub(crate) fn by(context: &Context, dir: &Path, built: Option<u64>, told: Option<i64>) -> Served {
    let last = files::check(&Layout::new(dir, None), None).map(|report| report.wal.last_entry());
    match last {
        // Not every journal has it; a WAL that was founded here ends in term 1.
        Ok(last) if told.is_none() && built.map_or(last.term <= 1, |built| last.index <= built) => {
            Served::Nothing
        }
        Ok(_) => up_to(context, dir, told),
        Err(failure) => {
            let what = format!(
                "cannot read whether the data in {} was served ({failure}); it counts as served",
                dir.display()
            );
            context.warn("revision-unknown", what);
            up_to(context, dir, told)
        }
    }
}

fn up_to(context: &Context, dir: &Path, told: Option<i64>) -> Served {
    let read = of_data(context, dir).map(|evidence| evidence.revision);
    Served::UpTo(read.max(told).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;
    use crate::context::Cancel;
    use crate::error::Result;
    use crate::etcd::restore::{Bump, Question, SLACK, decide};
    use crate::event::Silent;
    use crate::journal::{self, Begin, Known, Operation, Step};

    /// A step that says what a real one finds out.
    #[derive(Debug, Clone, Serialize, Deserialize)]
    struct Says {
        done: i64,
    }

    impl Step for Says {
        /// What the restored data has served by the time it is moved out.
        type World = Option<(i64, i64)>;

        fn name(&self) -> &'static str {
            "says"
        }

        fn describe(&self) -> String {
            String::new()
        }

        async fn apply(&self, _: &Self::World, _: &Known) -> Result<Option<Value>> {
            Ok(Some(json!({ "revision": self.done })))
        }

        async fn undo(&self, node: &Self::World, _: &Known) -> Result<Option<Value>> {
            Ok(node.map(|(served, bumped)| json!({ SERVED: served, BUMPED_TO: bumped })))
        }
    }

    /// Numbers that look random and are the same each time (SplitMix64).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % limit
        }
    }

    /// A node, its store and its clients, with nothing but revisions.
    struct Model {
        layout: NodeLayout,
        context: Context,
        now: i64,
        /// The data's revision; none if it is lost.
        live: Option<i64>,
        backups: Vec<i64>,
        /// The highest revision that any client has seen.
        seen: i64,
        /// A completed restore, and the revision of the data that it keeps.
        open: Option<(PathBuf, i64)>,
        count: u32,
    }

    impl Model {
        fn new(root: &Path) -> Self {
            let context = Context {
                observer: Arc::new(Silent),
                cancel: Cancel::default(),
                now: Timestamp::UNIX_EPOCH,
            };
            let layout = NodeLayout::new(root);
            std::fs::create_dir_all(layout.state()).unwrap();
            Self {
                layout,
                context,
                now: 0,
                live: Some(100),
                backups: vec![50],
                seen: 100,
                open: None,
                count: 0,
            }
        }

        /// Where a new history of data at this revision begins; it must be above all that was seen.
        fn begin(&self, own: i64, served: Option<i64>) -> i64 {
            let mut evidence = of_operations(&self.context, &self.layout);
            let more = self.backups.iter().chain(&self.live).chain(&served);
            evidence.extend(more.map(|revision| Evidence {
                source: "known".to_owned(),
                revision: *revision,
            }));
            let decision = decide(&Question {
                bump: Bump::Auto { slack: SLACK },
                mark_compacted: true,
                snapshot: own,
                evidence: &evidence,
                allow_low: false,
            });
            let begins = decision.unwrap().revision.unwrap();
            assert!(begins > self.seen, "{begins} has been seen: {}", self.seen);
            begins
        }

        fn serve(&mut self, writes: u64) {
            let Some(live) = &mut self.live else { return };
            *live += i64::try_from(writes).unwrap();
            self.seen = self.seen.max(*live);
        }

        fn operation(&mut self, begins: i64) -> Operation<Says> {
            self.count += 1;
            let id = format!("restore-{}", self.count);
            let dir = self.layout.state().join(&id);
            std::fs::create_dir(&dir).unwrap();
            let begin = Begin {
                schema: journal::SCHEMA,
                tool: "test".to_owned(),
                id,
                kind: "restore".to_owned(),
                about: json!({}),
                steps: Vec::new(),
            };
            let steps = vec![Says { done: begins }];
            Operation::begin(&dir, begin, steps, Arc::new(Silent), || {
                Timestamp::UNIX_EPOCH
            })
            .unwrap()
        }

        fn restore(&mut self, dice: &mut Dice) {
            if self.open.is_some() || self.backups.is_empty() {
                return;
            }
            let at = dice.below(self.backups.len() as u64) as usize;
            let begins = self.begin(self.backups[at], None);
            let old = self.live.unwrap_or(0);
            let mut operation = self.operation(begins);
            go(operation.run(&None, &|| Ok(()))).unwrap();
            // Killed before anybody was served it goes back to the byte.
            if dice.below(4) == 0 {
                go(operation.roll_back(&None, "asked")).unwrap();
                return;
            }
            self.live = Some(begins);
            self.serve(dice.below(1_000));
            self.open = Some((operation.dir().to_owned(), old));
        }

        fn roll_back(&mut self, dice: &mut Dice) {
            let Some((dir, old)) = self.open.take() else {
                return;
            };
            let served = self.live.unwrap_or_default();
            let bumped = self.begin(old, Some(served));
            let clock = || Timestamp::UNIX_EPOCH;
            let mut operation = Operation::<Says>::open(&dir, Arc::new(Silent), clock).unwrap();
            go(operation.roll_back(&Some((served, bumped)), "asked")).unwrap();
            if dice.below(2) == 0 {
                operation.commit(|| Ok(())).unwrap();
            }
            self.live = Some(bumped);
            self.serve(dice.below(1_000));
        }

        fn step(&mut self, dice: &mut Dice) {
            self.now += 1;
            match dice.below(8) {
                0 | 1 => self.serve(dice.below(10_000)),
                2 => self.backups.extend(self.live),
                3 => {
                    // Old backups go, and with them what they say.
                    self.backups.truncate(1 + dice.below(2) as usize);
                }
                4 if self.open.is_none() => self.live = None,
                5 | 6 => self.restore(dice),
                _ => self.roll_back(dice),
            }
        }
    }

    fn go<T>(work: impl Future<Output = T>) -> T {
        let waker = std::task::Waker::noop();
        match std::pin::pin!(work).poll(&mut std::task::Context::from_waker(waker)) {
            std::task::Poll::Ready(done) => done,
            std::task::Poll::Pending => panic!("nothing here waits"),
        }
    }

    #[test]
    fn no_revision_is_ever_served_with_two_meanings() {
        for seed in 0..60 {
            let root = tempfile::tempdir().unwrap();
            let mut model = Model::new(root.path());
            let mut dice = Dice(seed);
            for _ in 0..30 {
                model.step(&mut dice);
            }
        }
    }
}
