//! `diff`: what differs between two backups, or between a backup and the running cluster.

mod page;
mod text;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{DiffArgs, OutputArg};
use super::brought::Reached;
use super::look::{self, Looked};
use super::output::json;
use super::session::{Session, Shown, scratch};
use super::sign;
use crate::backup::manifest::HashKv;
use crate::error::{Kind, Result, exit};
use crate::inspect::look::{
    Differing, Loss, Opened, Reader, Rules, Selection, Source, Summary, Words, diff as compare,
};
use crate::objects::atrest::Keys;

/// The word for this node's running etcd.
const LIVE: &str = "live";

/// A side of the comparison in the result.
struct Side<'a> {
    name: &'a str,
    revision: i64,
}

/// Compares.
pub(super) fn run(session: &Session, args: &DiffArgs) -> Result<Shown> {
    let trust = sign::trust_only(session, &args.source.trust)?;
    let reached = Reached::of(&args.source, &trust);
    let keys = look::keys(&args.shown.encryption_config)?;
    let first = side(session, &args.first, &reached)?;
    let (second, objects) = second(session, args, &reached)?;
    let plain = objects.is_empty() && args.shown.namespace.is_none();
    if let Some(hash) = equal(&first, &second).filter(|_| plain) {
        return Ok(same_at_once(&first, &second, hash));
    }
    session.attended(|| {
        read(
            session,
            args,
            (&first.source, &second.source),
            objects,
            keys,
        )
    })
}

/// Reads both databases.
fn read(
    session: &Session,
    args: &DiffArgs,
    (first, second): (&Source, &Source),
    objects: &[String],
    keys: Keys,
) -> Result<Shown> {
    let cancel = &session.context.cancel;
    let opened = (
        Opened::open(first.clone(), cancel)?,
        Opened::open(second.clone(), cancel)?,
    );
    let mut readers = (
        Reader::new(&opened.0, keys.clone())?,
        Reader::new(&opened.1, keys)?,
    );
    // A live snapshot has no archives: the keys of the backup it is compared with decrypt it too.
    readers.0.search_also(second);
    readers.1.search_also(first);
    let words = Words {
        objects,
        namespace: args.shown.namespace.as_deref(),
    };
    if words.need_definitions(&readers.0.kinds) {
        readers.0.learn_kinds()?;
        readers.1.learn_kinds()?;
    }
    let selection = Selection::parse(&words, &readers.1.kinds)
        .or_else(|failure| Selection::parse(&words, &readers.0.kinds).map_err(|_| failure))?;
    let sides = [
        Side {
            name: &first.name,
            revision: readers.0.database.revision()?,
        },
        Side {
            name: &second.name,
            revision: readers.1.database.revision()?,
        },
    ];
    let rules = Rules {
        all: args.all,
        objects: args.objects,
        revision: None,
        scratch: &scratch(args.source.scratch.as_deref()),
    };
    let (mut listed, mut loss) = (Vec::new(), Loss::default());
    let mut take = |differing: &Differing<'_>| {
        cancel.check()?;
        loss.take(differing);
        if args.names || args.objects {
            listed.push(entry(differing, args));
        }
        Ok(())
    };
    let (first, second) = (&mut readers.0, &mut readers.1);
    let summary = compare(first, second, &selection, rules, &mut take)?;
    Ok(shown(session, &sides, &summary, &loss, &listed))
}

/// What differs between a backup and this node's running etcd: the counts, and what a restore of the backup, to a revision of
/// it if one is given, would lose. Reading ends at a moment if one is given.
pub(super) fn with_live(
    session: &Session,
    source: &Source,
    revision: Option<i64>,
    scratch: &Path,
    limit: Option<Duration>,
) -> Result<Value> {
    let end = limit.map(|limit| Instant::now() + limit);
    let live = look::live(session, scratch, limit)?;
    let work = || {
        let open = |source: &Source| {
            let opened = Opened::open(source.clone(), &session.context.cancel)?;
            Ok(match end {
                Some(end) => opened.until(end),
                None => opened,
            })
        };
        let opened = (open(source)?, open(&live.source)?);
        let mut backup = Reader::new(&opened.0, Keys::default())?;
        let mut running = Reader::new(&opened.1, Keys::default())?;
        running.search_also(source);
        let mut loss = Loss::default();
        let mut take = |differing: &Differing<'_>| {
            loss.take(differing);
            Ok(())
        };
        let rules = Rules {
            all: false,
            objects: false,
            revision,
            scratch,
        };
        let all = Selection::default();
        let summary = compare(&mut backup, &mut running, &all, rules, &mut take)?;
        Ok(json!({
            "revision": running.database.revision()?,
            "counts": summary.counts,
            "kinds": summary.kinds,
            "namespaces": summary.namespaces,
            "unread": summary.unread,
            "named": loss,
        }))
    };
    let late = || end.is_some_and(|end| Instant::now() > end);
    session
        .attended(work)
        .map_err(|failure| match failure.kind() {
            Kind::NotChecked if late() => look::too_slow(),
            _ => failure,
        })
}

/// What a restore would lose or leave behind, a sentence each.
pub(super) fn losses(named: &Value) -> Vec<String> {
    text::losses(named)
}

/// The second side, and the kinds and names after it. A word that names a kind is not a backup.
fn second<'a>(
    session: &Session,
    args: &'a DiffArgs,
    reached: &Reached<'_>,
) -> Result<(Looked, &'a [String])> {
    let Some((word, rest)) = args.words.split_first() else {
        return Ok((side(session, LIVE, reached)?, &[]));
    };
    if look::is_kind(word) {
        return Ok((side(session, LIVE, reached)?, &args.words));
    }
    Ok((side(session, word, reached)?, rest))
}

fn side(session: &Session, word: &str, reached: &Reached<'_>) -> Result<Looked> {
    match word {
        LIVE => look::live(session, &scratch(reached.scratch), None),
        word => look::find(session, word, reached),
    }
}

/// The HashKV that both backups recorded, if it is the same at the same revision.
fn equal(first: &Looked, second: &Looked) -> Option<HashKv> {
    let (a, b) = (first.hash_kv.as_ref()?, second.hash_kv.as_ref()?);
    let of = |hash: &HashKv| (hash.hash, hash.revision, hash.compact_revision);
    (of(a) == of(b)).then_some(*a)
}

fn same_at_once(first: &Looked, second: &Looked, hash: HashKv) -> Shown {
    let text = format!(
        "same: {} and {} have HashKV {} at revision {}\n",
        first.source.name, second.source.name, hash.hash, hash.revision
    );
    let side = |looked: &Looked| json!({"name": looked.source.name, "revision": hash.revision});
    let document = json!({
        "same": true,
        "first": side(first),
        "second": side(second),
        "hashKv": hash.hash,
    });
    Shown::done(text, json::document("diff", &document))
}

/// An object that differs, as the result lists it.
fn entry(differing: &Differing<'_>, args: &DiffArgs) -> Value {
    let mut entry = json!({
        "difference": differing.difference,
        "kind": differing.kind,
        "namespace": differing.place.namespace,
        "name": differing.place.name,
        "revisions": [differing.revisions.0, differing.revisions.1],
    });
    if args.objects {
        entry["diff"] = text::unified(differing, args.shown.show_secrets).into();
    }
    entry
}

fn shown(
    session: &Session,
    sides: &[Side<'_>; 2],
    summary: &Summary,
    loss: &Loss,
    listed: &[Value],
) -> Shown {
    let [first, second] = sides;
    let side = |side: &Side<'_>| json!({"name": side.name, "revision": side.revision});
    let same = summary.counts.all() == 0;
    let mut document = json!(summary);
    // `same` alone says whether anything differs; the number of equal objects is another field.
    document["sameObjects"] = document["same"].take();
    document["same"] = same.into();
    document["first"] = side(first);
    document["second"] = side(second);
    document["loss"] = json!(loss);
    if !listed.is_empty() {
        document["objects"] = listed.into();
    }
    let text = match session.global.output {
        OutputArg::Html => page::of(&document),
        _ => text::text(&document),
    };
    Shown {
        text,
        status: if same { exit::DONE } else { exit::DIFFERS },
        ..Shown::done(String::new(), json::document("diff", &document))
    }
}
