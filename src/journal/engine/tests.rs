use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use serde::Deserialize;

use super::*;
use crate::event::Silent;

/// What the steps change: a list, and where the next act fails.
#[derive(Default)]
struct Toy {
    there: RefCell<Vec<u32>>,
    fail_at: RefCell<Option<(u32, bool)>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Put(u32);

impl Toy {
    /// Fails once, before or after the act.
    fn trip(&self, number: u32, after: bool) -> Result<()> {
        let mut fail_at = self.fail_at.borrow_mut();
        if *fail_at == Some((number, after)) {
            *fail_at = None;
            return Err(Failure::new(Kind::Store, "tripped"));
        }
        Ok(())
    }
}

impl Step for Put {
    type World = Toy;

    fn name(&self) -> &'static str {
        "put"
    }

    fn describe(&self) -> String {
        format!("put {}", self.0)
    }

    async fn apply(&self, world: &Toy, known: &Known) -> Result<Option<Value>> {
        world.trip(self.0, false)?;
        if !world.there.borrow().contains(&self.0) {
            world.there.borrow_mut().push(self.0);
        }
        world.trip(self.0, true)?;
        let sum: u64 = known.read("sum").unwrap_or(0) + u64::from(self.0);
        Ok(Some(serde_json::json!({ "sum": sum })))
    }

    async fn undo(&self, world: &Toy, _known: &Known) -> Result<Option<Value>> {
        world.trip(self.0 + 100, false)?;
        world.there.borrow_mut().retain(|there| *there != self.0);
        world.trip(self.0 + 100, true)?;
        Ok(None)
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn go<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("the toy never waits"),
    }
}

fn begin(dir: &Path) -> Operation<Put> {
    let begin = Begin {
        schema: file::SCHEMA,
        tool: "test".to_owned(),
        id: "toy".to_owned(),
        kind: "toy".to_owned(),
        about: Value::Null,
        steps: Vec::new(),
    };
    let steps = vec![Put(1), Put(2), Put(3)];
    Operation::begin(dir, begin, steps, Arc::new(Silent), now).unwrap()
}

fn reopen(dir: &Path) -> Operation<Put> {
    Operation::open(dir, Arc::new(Silent), now).unwrap()
}

const GO_ON: &dyn Fn() -> Result<()> = &|| Ok(());

#[test]
fn interrupted_anywhere_it_resumes_or_rolls_back() {
    for number in 1..=3 {
        for after in [false, true] {
            for back in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let world = Toy::default();
                *world.fail_at.borrow_mut() = Some((number, after));
                let mut operation = begin(dir.path());
                assert!(go(operation.run(&world, GO_ON)).is_err());
                drop(operation);
                let mut operation = reopen(dir.path());
                assert_eq!(operation.progress().state, State::Running);
                if back {
                    // The rollback is interrupted too, once.
                    *world.fail_at.borrow_mut() = Some((number + 100, after));
                    assert!(go(operation.roll_back(&world, "asked")).is_err());
                    drop(operation);
                    let mut operation = reopen(dir.path());
                    assert_eq!(operation.progress().state, State::RollingBack);
                    assert!(go(operation.run(&world, GO_ON)).is_err());
                    go(operation.roll_back(&world, "asked")).unwrap();
                    assert!(world.there.borrow().is_empty());
                    assert_eq!(Progress::read(dir.path()).unwrap().state, State::RolledBack);
                } else {
                    operation.resumed().unwrap();
                    go(operation.run(&world, GO_ON)).unwrap();
                    assert_eq!(*world.there.borrow(), [1, 2, 3]);
                    let progress = Progress::read(dir.path()).unwrap();
                    assert_eq!(progress.state, State::Completed);
                    assert_eq!(progress.known.read::<u64>("sum").unwrap(), 6);
                }
            }
        }
    }
}

#[test]
fn what_is_complete_can_go_back_until_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let world = Toy::default();
    let mut operation = begin(dir.path());
    go(operation.run(&world, GO_ON)).unwrap();
    go(operation.roll_back(&world, "asked")).unwrap();
    assert!(world.there.borrow().is_empty() && operation.progress().known.completed);

    let dir = tempfile::tempdir().unwrap();
    let mut operation = begin(dir.path());
    go(operation.run(&world, GO_ON)).unwrap();
    let fails = || Err(Failure::new(Kind::Store, "tripped"));
    assert!(operation.commit(fails).is_err());
    let mut operation = reopen(dir.path());
    assert_eq!(operation.progress().state, State::Committing);
    operation.commit(|| Ok(())).unwrap();
    assert_eq!(Progress::read(dir.path()).unwrap().state, State::Committed);
}

#[test]
fn the_wish_to_stop_is_heard_between_steps() {
    let dir = tempfile::tempdir().unwrap();
    let world = Toy::default();
    let mut operation = begin(dir.path());
    let stop = || match world.there.borrow().len() {
        2 => Err(Failure::new(Kind::Interrupted, "interrupted")),
        _ => Ok(()),
    };
    assert!(go(operation.run(&world, &stop)).is_err());
    assert_eq!(
        operation.progress().steps,
        [StepState::Done, StepState::Done, StepState::Pending]
    );
}

#[test]
fn a_journal_of_another_plan_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = {
        drop(begin(dir.path()));
        Journal::open(dir.path()).unwrap().0
    };
    journal.append(Record::Doing { step: 3 }, now()).unwrap();
    let failure = Progress::read(dir.path()).unwrap_err();
    assert!(
        failure.to_string().contains("line 2: expected a step"),
        "{failure}"
    );
    assert_eq!(failure.kind(), Kind::Busy);
}

#[test]
fn unfinished_ones_block_and_leftovers_go() {
    use crate::journal::registry;
    let state = tempfile::tempdir().unwrap();
    registry::refuse_while_unfinished(&state.path().join("absent")).unwrap();
    let folder = |name: &str| {
        let path = state
            .path()
            .join(registry::free_id(state.path(), "restore-x"));
        assert!(path.ends_with(name), "{}", path.display());
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (dir, empty) = (folder("restore-x"), folder("restore-x-2"));
    let mut operation = begin(&dir);
    let failure = registry::refuse_while_unfinished(state.path()).unwrap_err();
    assert_eq!(failure.kind(), Kind::Busy);
    go(operation.run(&Toy::default(), GO_ON)).unwrap();
    registry::refuse_while_unfinished(state.path()).unwrap();
    // What holds data has lost its journal: that is shown, and never removed.
    let stray = folder("restore-x-3");
    std::fs::create_dir(stray.join("data")).unwrap();
    assert_eq!(registry::sweep(state.path(), "restore-").unwrap(), [empty]);
    assert_eq!(
        registry::strays(state.path(), &["restore-"]).unwrap(),
        [stray]
    );
    assert_eq!(registry::list(state.path()).unwrap().len(), 1);
    std::fs::write(dir.join(file::FILE), "x\n").unwrap();
    assert!(registry::refuse_while_unfinished(state.path()).is_err());
}
