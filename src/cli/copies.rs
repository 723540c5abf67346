//! Where a backup is copied to, and what is to stay there.

use serde_json::{Value, json};

use super::args::BackupArgs;
use super::output::{backup as shown, prune};
use super::session::{Session, host_name};
use super::{remote, sign};
use crate::backup::retention::Rules;
use crate::error::{Failure, Kind, Result};
use crate::keep::copies::{Copies, Tried};
use crate::store::Address;

/// Where the backup is copied to after it is taken: checks the URLs and reads the named files
/// first.
pub(super) fn copies(session: &Session, args: &BackupArgs) -> Result<Copies> {
    let to = addresses(session, args)?;
    if to.is_empty() {
        remote::refuse_recipients(&args.form, "no copy is requested (--copy-to URL)")?;
    }
    Ok(Copies {
        to,
        settings: remote::settings(session, &args.remote)?,
        form: remote::form(session, &args.form, &args.sign)?,
        host: host_name(),
        keep: keep_copies(session, args)?,
        trust: sign::configured(session)?,
    })
}

/// The rules for the copies: those of the local store, if requested.
fn keep_copies(session: &Session, args: &BackupArgs) -> Result<Option<Rules>> {
    let rules = keep(session, args)?;
    if args.keep_copies && rules.is_none() {
        let what = "--keep-copies applies the --keep rules to the copies, but no rule is given: add one, such as --keep-last 20";
        return Err(Failure::new(Kind::Usage, what));
    }
    Ok(rules.filter(|_| args.keep_copies || session.config.copy.keep))
}

/// The URLs of the stores that are copied to, as records call them.
pub(super) fn copy_urls(session: &Session, args: &BackupArgs) -> Result<Vec<String>> {
    let to = addresses(session, args)?;
    Ok(to.iter().map(Address::to_string).collect())
}

fn addresses(session: &Session, args: &BackupArgs) -> Result<Vec<Address>> {
    let configured = &session.config.copy.to;
    let to = match (&args.flat, args.copy_to.is_empty()) {
        (None, true) => configured,
        _ => &args.copy_to,
    };
    to.iter().map(|url| Address::parse(url)).collect()
}

/// The rules for afterwards; options that are no rule by themselves are refused before anything is
/// taken.
pub(super) fn keep(session: &Session, args: &BackupArgs) -> Result<Option<Rules>> {
    let configured = &session.config.keep;
    if !args.keep.is_given() {
        let wanted = configured.after_backup && args.flat.is_none();
        let zone = args.keep.time_zone.as_ref();
        return Ok(wanted.then(|| configured.rules(zone)));
    }
    let rules = args.keep.rules();
    rules.check()?;
    if args.flat.is_some() {
        let what = "--flat writes plain files, which cannot be pruned";
        return Err(Failure::new(Kind::Usage, what));
    }
    Ok(Some(rules))
}

/// Copies for people, their failures, and all of them for programs.
pub(super) fn told(
    tried: Vec<Tried>,
    text: &mut String,
    problems: &mut Vec<Failure>,
    named: bool,
) -> Value {
    let mut documents = Vec::new();
    for Tried { set, came, pruned } in tried {
        let mut document = match came {
            Ok(copied) => {
                text.push_str(&shown::copied(&copied));
                let mut document = json!(copied);
                if let Some(pruned) = pruned {
                    text.push_str(&prune::summary(&pruned));
                    problems.extend(prune::problems(&pruned));
                    document["pruned"] = json!(pruned);
                }
                document
            }
            Err(failure) => {
                let document = json!({"error": failure.to_string()});
                problems.push(failure);
                document
            }
        };
        if named {
            document["set"] = set.into();
        }
        documents.push(document);
    }
    documents.into()
}
