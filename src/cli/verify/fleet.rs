//! `verify --fleet --sample N`: proves the backups whose proof is the oldest, by restoring them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::SignedDuration;
use serde::Serialize;
use serde_json::json;

use super::super::args::VerifyArgs;
use super::super::fleet as stores;
use super::super::output::json;
use super::super::session::{Session, Shown, scratch};
use super::super::{remote, sign};
use crate::change::proof::{self, Restored};
use crate::error::{Kind, Result, exit};
use crate::event::Event;
use crate::inspect::verify;
use crate::keep::catalog::{self, BackupSet};
use crate::keep::fleet::{Line, Newest, Rules};
use crate::keep::remote::{self as sets, Identities, Part};
use crate::keep::trust::Trust;
use crate::store::{Address, LocalStore, Settings, objects};
use crate::sys::quote::printable;
use crate::sys::scratch::Scratch;

/// The result for one backup.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Proven {
    cluster: String,
    node: Option<String>,
    store: String,
    set: String,
    /// Whether it was restored and has what it was taken with; absent: that could not be found out.
    good: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<Restored>,
    /// What is wrong with it, or why it could not be found out.
    problems: Vec<String>,
}

/// Proves so many.
pub(super) fn run(session: &Session, args: &VerifyArgs) -> Result<Shown> {
    let trust = sign::trust_only(session, &args.source.trust)?;
    let settings = remote::settings(session, &args.source.remote)?;
    let identities = remote::identities(&args.source.identity)?;
    let named: Vec<&Path> = args.sets.iter().map(Path::new).collect();
    let (fleet, seen) = stores::look(session, &named, &trust, &settings)?;
    let rules = Rules {
        expected: None,
        stale_after: SignedDuration::MAX,
        now: session.context.now,
    };
    let mut lines: Vec<Line> = fleet.lines(&rules);
    // Those that were never proven first.
    lines.sort_by_key(|line| line.verified.as_ref().map(|proof| proof.time));
    let (mut proven, mut left) = (Vec::new(), 0usize);
    for line in &lines {
        let Some(newest) = &line.newest else { continue };
        if proven.len() >= args.sample.unwrap_or(1) as usize {
            left += 1;
            continue;
        }
        let one = Prover {
            session,
            args,
            trust: &trust,
            settings: &settings,
            identities: &identities,
        };
        proven.push(one.prove(line, newest)?);
    }
    let unread: Vec<String> = seen.into_iter().flat_map(|seen| seen.problems).collect();
    Ok(shown(&proven, left, unread))
}

/// What backups are proven with.
struct Prover<'a> {
    session: &'a Session,
    args: &'a VerifyArgs,
    trust: &'a Trust,
    settings: &'a Settings,
    identities: &'a Arc<Identities>,
}

impl Prover<'_> {
    /// Proves a node's newest good backup. What is wrong with it, or with its store, is in the result.
    ///
    /// # Errors
    /// [`Kind::Interrupted`].
    fn prove(&self, line: &Line, newest: &Newest) -> Result<Proven> {
        let done = match Address::is_url(&newest.store) {
            true => self.away(newest),
            false => self.here(newest),
        };
        let (good, restored, problems) = match done {
            Ok((restored, problems)) => (Some(problems.is_empty()), restored, problems),
            Err(failure) if failure.kind() == Kind::Interrupted => return Err(failure),
            Err(failure) if failure.kind() == Kind::BadBackup => {
                (Some(false), None, vec![failure.to_string()])
            }
            Err(failure) => (None, None, vec![failure.to_string()]),
        };
        Ok(Proven {
            cluster: line.cluster.clone(),
            node: line.node.clone(),
            store: newest.store.clone(),
            set: newest.name.clone(),
            good,
            restored,
            problems,
        })
    }

    /// In a directory of this host.
    fn here(&self, newest: &Newest) -> Result<(Option<Restored>, Vec<String>)> {
        let store = LocalStore::at(Path::new(&newest.store));
        self.check(catalog::resolve(&store, &newest.name)?)
    }

    /// Fetches it, and records the result beside it.
    fn away(&self, newest: &Newest) -> Result<(Option<Restored>, Vec<String>)> {
        let address = Address::parse(&newest.store)?;
        let here = Scratch::make(&self.scratch(), "verify")?;
        let context = &self.session.context;
        let store = self.session.block_on(async {
            let store = objects::open(&address, self.settings).await?;
            let identities = Arc::clone(self.identities);
            let (name, into) = (&newest.name, here.path());
            sets::fetch(
                context,
                store.as_ref(),
                name,
                into,
                identities,
                self.trust,
                Part::Whole,
            )
            .await?;
            Ok(store)
        })?;
        let word = here.path().display().to_string();
        let set = catalog::resolve(&LocalStore::at(here.path()), &word)?;
        let proven = self.check(BackupSet {
            name: newest.name.clone(),
            ..set
        });
        let recorded = self.session.block_on(sets::record(
            store.as_ref(),
            &newest.name,
            here.path(),
            context.now,
        ));
        if let Err(failure) = recorded {
            context.tell(Event::Note(format!(
                "the result is not recorded: {failure}"
            )));
        }
        proven
    }

    /// Checks every layer, and then restores it.
    fn check(&self, set: BackupSet) -> Result<(Option<Restored>, Vec<String>)> {
        let scratch = self.scratch();
        self.session.blocking(move |context| {
            let report = verify::run(&context, &set)?;
            if !report.good {
                let errors = report.findings.iter().map(ToString::to_string);
                return Ok((None, errors.collect()));
            }
            let database = report.database.as_deref();
            let restored = proof::run(&context, &set, database, &scratch)?;
            Ok((Some(restored), Vec::new()))
        })
    }

    fn scratch(&self) -> PathBuf {
        scratch(self.args.source.scratch.as_deref())
    }
}

fn shown(proven: &[Proven], left: usize, unread: Vec<String>) -> Shown {
    let bad = proven.iter().any(|one| one.good == Some(false));
    let unknown = proven.iter().any(|one| one.good.is_none()) || !unread.is_empty();
    let mut text = String::new();
    for one in proven {
        let state = match (one.good, one.restored) {
            (Some(true), Some(restored)) => {
                format!(
                    "proven  restored, HashKV {} at revision {}",
                    restored.hash_kv, restored.revision
                )
            }
            (Some(true), None) => "proven".to_owned(),
            (Some(false), _) => format!("BAD  {}", one.problems.join("; ")),
            (None, _) => format!("not checked  {}", one.problems.join("; ")),
        };
        let _ = writeln!(
            text,
            "{}",
            printable(format!("{}/{}: {state}", one.store, one.set))
        );
    }
    let _ = writeln!(text, "{} nodes not in this sample", left);
    let document =
        json!({"good": !bad && !unknown, "proven": proven, "left": left, "unread": unread});
    Shown {
        remark: (!unread.is_empty()).then(|| unread.join("\n")),
        status: match (bad, unknown) {
            (true, _) => exit::BAD_BACKUP,
            (false, true) => exit::NOT_CHECKED,
            (false, false) => exit::DONE,
        },
        ..Shown::done(text, json::document("verify", &document))
    }
}
