//! The environment: a variable that is empty counts as one that is not set, as etcdctl and the
//! cloud providers' programs have it. A script's `VAR=$UNSET` must not mean the value "".
//!
//! `ETCD_DR_RECIPIENTS_FILE` is the exception: a script that sets it means to encrypt, so an empty
//! one is refused (`remote::form`).

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory};

use super::args::Cli;

/// A variable's value, unless it is empty.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The command line, without the variables that are empty.
pub(super) fn command() -> Command {
    without_empty(Cli::command())
}

fn without_empty(command: Command) -> Command {
    command.mut_args(filled).mut_subcommands(without_empty)
}

fn filled(arg: Arg) -> Arg {
    match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            arg.env(Resettable::Reset)
        }
        _ => arg,
    }
}
