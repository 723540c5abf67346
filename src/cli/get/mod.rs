//! `get`: objects out of a backup.

mod history;
mod objects;
mod overview;
mod printer;

use std::io::ErrorKind;

use serde_json::Value;

use super::args::{GetArgs, OutputArg};
use super::brought::Reached;
use super::look::{self, Looked};
use super::session::{Session, Shown, scratch};
use super::sign;
use crate::error::{Failure, Kind, Result};
use crate::inspect::look::{Opened, Reader, Selection, Words};
use crate::objects::atrest::Keys;
use crate::objects::selector::Selector;

/// Shows what is asked for.
pub(super) fn run(session: &Session, args: &GetArgs) -> Result<Shown> {
    let selector = match &args.selector {
        Some(text) => {
            let selector = text.parse::<Selector>();
            selector.map_err(|what| Failure::new(Kind::Usage, what).doing("reading --selector"))?
        }
        None => Selector::default(),
    };
    let keys = look::keys(&args.shown.encryption_config)?;
    let trust = sign::trust_only(session, &args.source.trust)?;
    let reached = Reached::of(&args.source, &trust);
    let looked = look::find(session, &args.set, &reached)?;
    session.attended(|| read(session, args, &looked, keys, &selector))
}

/// Reads the database.
fn read(
    session: &Session,
    args: &GetArgs,
    looked: &Looked,
    keys: Keys,
    selector: &Selector,
) -> Result<Shown> {
    let opened = Opened::open(looked.source.clone(), &session.context.cancel)?;
    let mut reader = Reader::new(&opened, keys)?;
    let words = Words {
        objects: &args.objects,
        namespace: args.shown.namespace.as_deref(),
    };
    if words.need_definitions(&reader.kinds) {
        reader.learn_kinds()?;
    }
    let selection = Selection::parse(&words, &reader.kinds)?;
    if args.history {
        return history::run(session, args, &reader, &selection);
    }
    let counted = args.objects.is_empty() && args.selector.is_none() && !args.for_apply;
    if counted && matches!(session.global.output, OutputArg::Text | OutputArg::Json) {
        let scratch = scratch(args.source.scratch.as_deref());
        return overview::run(&mut reader, &selection, args.revision, &scratch);
    }
    match objects::run(session, args, &reader, &selection, selector) {
        // The reader has gone; nobody is left to tell.
        Err(failure) if failure.io_kind() == Some(ErrorKind::BrokenPipe) => {
            Ok(Shown::done(String::new(), Value::Null))
        }
        shown => shown,
    }
}
