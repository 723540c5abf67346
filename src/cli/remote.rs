//! Stores away from the node, as arguments and environment mean them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::User;

use super::args::{FormArgs, IdentityArgs, RemoteArgs, SignArgs};
use super::given::file;
use super::session::Session;
use super::{environment, sign};
use crate::backup::foreign;
use crate::backup::names::{self, FileKind};
use crate::error::{Failure, Kind, Result};
use crate::keep::catalog::BackupSet;
use crate::keep::remote::{self, Form, Identities};
use crate::keep::trust::Trust;
use crate::store::{Address, Settings, Store, objects};

/// The variable of `--recipients-file`.
const RECIPIENTS_FILE: &str = "ETCD_DR_RECIPIENTS_FILE";

/// The variables that belong to the services' credentials and places.
const PREFIXES: [&str; 6] = [
    "AWS_",
    "GOOGLE_",
    "AZURE_",
    "ETCD_DR_SFTP_",
    "SSH_AUTH_SOCK",
    "USER",
];

/// The URL among an argument, the environment and the configuration, if it is one.
pub(super) fn url(session: &Session, named: Option<&Path>) -> Result<Option<Address>> {
    let named = named.or(session.config.store.as_deref());
    match named.map(Path::to_string_lossy) {
        Some(text) if Address::is_url(&text) => Address::parse(&text).map(Some),
        _ => Ok(None),
    }
}

/// How stores are reached.
pub(super) fn settings(session: &Session, args: &RemoteArgs) -> Result<Settings> {
    let config = &session.config;
    let mut variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value): &(String, String)| !value.is_empty())
        .filter(|(name, _)| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    for (name, value) in config.store_variables() {
        let set = variables.entry(name.to_owned());
        set.or_insert_with(|| value.to_owned());
    }
    // Services have neither variable.
    let user = own_user();
    if let Some(user) = &user {
        let set = variables.entry("USER".to_owned());
        set.or_insert_with(|| user.name.clone());
    }
    let home = environment::variable("HOME");
    let ca = match args.store_ca.as_ref().or(config.store_ca.as_ref()) {
        Some(path) => Some(file(path)?.into_bytes()),
        None => None,
    };
    let mut settings = Settings {
        variables,
        ca,
        home: home.map(Into::into).or(user.map(|user| user.dir)),
        ..Settings::default()
    };
    if let Some(patience) = args.store_patience.or(config.store_patience) {
        settings.patience = patience;
    }
    Ok(settings)
}

/// Whose process this is, where the users' list says it.
fn own_user() -> Option<User> {
    User::from_uid(nix::unistd::geteuid()).ok().flatten()
}

/// How copies are stored. The configuration's recipients count only if the command line has none.
pub(super) fn form(session: &Session, args: &FormArgs, signing: &SignArgs) -> Result<Form> {
    let config = &session.config.copy;
    let mut form = Form::default();
    form.sign = sign::key(
        session,
        signing.sign_key.as_deref(),
        signing.sign_passphrase_file.as_deref(),
    )?;
    form.compress = args.compress || config.compress;
    // A script whose variable is empty means to encrypt, so nothing may be sent in the clear.
    let variable = std::env::var_os(RECIPIENTS_FILE);
    if variable.is_some_and(|path| path.is_empty()) && args.recipient.is_empty() {
        let what =
            format!("{RECIPIENTS_FILE} is empty: set it to a file of recipients, or unset it");
        return Err(Failure::new(Kind::Usage, what));
    }
    let told = !args.recipient.is_empty() || args.recipients_file.is_some();
    let (recipients, list, where_from) = if told {
        (&args.recipient, &args.recipients_file, "--recipient")
    } else {
        let from = "recipients in [copy]";
        (&config.recipients, &config.recipients_file, from)
    };
    for recipient in recipients {
        form.encrypt_to(recipient)
            .map_err(|failure| failure.doing(format!("reading {where_from}")))?;
    }
    if let Some(path) = list {
        form.encrypt_to(&file(path)?)
            .map_err(|failure| failure.doing(format!("reading {}", path.display())))?;
    }
    secrets(session, args, &mut form)?;
    if form.has_secrets_only() {
        let what = "recipients of secrets are given, but none for the rest: add --recipient";
        return Err(Failure::new(Kind::Usage, what));
    }
    Ok(form)
}

/// The recipients of the archives, if they differ from the rest's.
fn secrets(session: &Session, args: &FormArgs, form: &mut Form) -> Result<()> {
    let (recipients, from) = match args.secrets_recipient.is_empty() {
        false => (&args.secrets_recipient, "--secrets-recipient"),
        true => (
            &session.config.copy.secrets_recipients,
            "secrets-recipients in [copy]",
        ),
    };
    for recipient in recipients {
        form.encrypt_secrets_to(recipient)
            .map_err(|failure| failure.doing(format!("reading {from}")))?;
    }
    Ok(())
}

/// Refuses recipients where no copy is made that could be encrypted to them. The variable alone is
/// the environment's and no request.
pub(super) fn refuse_recipients(args: &FormArgs, why: &str) -> Result<()> {
    let by_variable = std::env::var_os(RECIPIENTS_FILE).is_some();
    let none = args.recipient.is_empty() && args.secrets_recipient.is_empty();
    if none && (args.recipients_file.is_none() || by_variable) {
        return Ok(());
    }
    let what = format!("{why}: recipients apply only to copies to a URL");
    Err(Failure::new(Kind::Usage, what))
}

/// What encrypted copies are read with.
pub(super) fn identities(args: &IdentityArgs) -> Result<Arc<Identities>> {
    let mut identities = Identities::default();
    for path in &args.identity {
        identities
            .add(&file(path)?)
            .map_err(|failure| failure.doing(format!("reading {}", path.display())))?;
    }
    Ok(Arc::new(identities))
}

/// Every set of the store at a URL.
pub(super) fn list(
    session: &Session,
    address: &Address,
    args: &RemoteArgs,
) -> Result<Vec<BackupSet>> {
    let settings = settings(session, args)?;
    session.block_on(async {
        let store = objects::open(address, &settings).await?;
        session
            .context
            .cancel
            .guard(remote::list(store.as_ref(), ""))
            .await
    })
}

/// The one set that a URL means, and its store.
pub(super) async fn resolve(
    session: &Session,
    address: &Address,
    settings: &Settings,
    trust: &Trust,
) -> Result<(Arc<dyn Store>, BackupSet)> {
    let is_foreign = |name: &str| {
        let snapshot = |(kind, _)| kind == FileKind::Snapshot;
        foreign::recognise(name).is_some() || names::recognise(name).is_some_and(snapshot)
    };
    let (store, name) = address.split_set(is_foreign)?;
    let store = objects::open(&store, settings).await?;
    let found = remote::resolve(store.as_ref(), &name, trust);
    let set = session.context.cancel.guard(found).await?;
    Ok((store, set))
}
