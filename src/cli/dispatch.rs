//! Runs the command that was typed, and turns its result into output and exit status.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::FromArgMatches;
use serde_json::{Value, json};

use super::args::{Cli, ColorArg, Command, OutputArg};
use super::output::{error, error_json, hints, json, terminal};
use super::session::{Session, Shown};
use super::{
    backup, complete, copy, diff, disable, enable, environment, fleet, get, list, log, man, member,
    prune, record, restore, schedule, verify,
};
use crate::error::{Doing, Failure, Kind, Result, exit};
use crate::sys::{bound, limits};

/// Runs the command line; what is returned is the process's exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(error) = bound::become_program(&arguments) {
        terminal::tell_line(format_args!("error: {error}"));
        return ExitCode::from(exit::UNEXPECTED);
    }
    if complete::answer(&arguments) {
        return ExitCode::from(exit::DONE);
    }
    let mut command = environment::command();
    let parsed = command
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| {
            Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
        });
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                exit::USAGE
            } else {
                exit::DONE
            });
        }
    };
    hints::keep(&arguments);
    colours(cli.global.color);
    let output = cli.global.output;
    let name = command_name(&cli.command);
    match dispatch(cli) {
        Ok(shown) => show(output, name, shown),
        Err(failure) => {
            error::print(name, &failure);
            if output == OutputArg::Json {
                let _ = write_json(&error_json::render(name, &failure));
            }
            ExitCode::from(failure.kind().exit_code())
        }
    }
}

fn show(output: OutputArg, command: &str, mut shown: Shown) -> ExitCode {
    if !shown.problems.is_empty() && !shown.json.is_null() {
        let kind = match shown.status {
            exit::STORE => Kind::Store,
            _ => Kind::Partial,
        };
        shown.json["error"] = error_json::of_problems(command, kind, &shown.problems);
    }
    let written = match output {
        // The forms of objects are written by their command.
        OutputArg::Text | OutputArg::Yaml | OutputArg::Name | OutputArg::Raw | OutputArg::Html => {
            write_out(&shown.text)
        }
        // The command has reported everything already, or has written its document itself.
        OutputArg::Json if shown.json.is_null() => write_out(&shown.text),
        OutputArg::Json => write_json(&shown.json),
    };
    if let Some(remark) = &shown.remark {
        terminal::tell_line(remark);
    }
    for problem in &shown.problems {
        terminal::tell_line(error::render(command, problem));
    }
    match written {
        // The reader has gone; what was done is done.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(shown.status),
        Err(e) => {
            terminal::tell_line(format_args!("error: writing the result: {e}"));
            ExitCode::from(if shown.status == exit::DONE {
                exit::UNEXPECTED
            } else {
                shown.status
            })
        }
        Ok(()) => ExitCode::from(shown.status),
    }
}

fn write_json(document: &Value) -> std::io::Result<()> {
    write_out(&json::text(document)?)
}

fn write_out(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Honours `--color` and `NO_COLOR`; no colours for what is not a terminal, unless asked for.
fn colours(when: ColorArg) {
    let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (out, err) = match when {
        ColorArg::Always => (true, true),
        ColorArg::Never => (false, false),
        ColorArg::Auto => (
            allowed && std::io::stdout().is_terminal(),
            allowed && std::io::stderr().is_terminal(),
        ),
    };
    console::set_colors_enabled(out);
    console::set_colors_enabled_stderr(err);
}

fn command_name(command: &Command) -> &'static str {
    match command {
        Command::Backup(_) => "backup",
        Command::Schedule(_) => "schedule",
        Command::List(_) => "list",
        Command::Log(_) => "log",
        Command::Verify(_) => "verify",
        Command::Get(_) => "get",
        Command::Diff(_) => "diff",
        Command::Prune(_) => "prune",
        Command::Record(_) => "record",
        Command::Copy(_) => "copy",
        Command::Restore(_) => "restore",
        Command::Disable(_) => "disable",
        Command::Enable(_) => "enable",
        // What hints are made from.
        Command::MemberAdd(args) if args.join => "member-add --join",
        Command::MemberAdd(_) => "member-add",
        Command::MemberRemove(_) => "member-remove",
        Command::MemberUpdate(_) => "member-update",
        Command::Completions { .. } => "completions",
        Command::Man { .. } => "man",
    }
}

/// The store, which some commands take by its place and others as an option: `--store` is taken by
/// all. The positional one may be the environment's.
fn one_store(store: &mut Option<PathBuf>, option: &mut Option<PathBuf>) -> Result<()> {
    let Some(named) = option.take() else {
        return Ok(());
    };
    let by_variable = environment::variable("ETCD_DR_STORE").map(PathBuf::from);
    if let Some(other) = store
        .as_ref()
        .filter(|other| Some(*other) != by_variable.as_ref())
    {
        let what = format!(
            "STORE is given twice: {} and --store {}",
            other.display(),
            named.display()
        );
        return Err(Failure::new(Kind::Usage, what));
    }
    *store = Some(named);
    Ok(())
}

fn dispatch(mut cli: Cli) -> Result<Shown> {
    match &mut cli.command {
        Command::Backup(args) => one_store(&mut args.store, &mut args.store_option)?,
        Command::Schedule(args) => {
            one_store(&mut args.backup.store, &mut args.backup.store_option)?;
        }
        Command::List(args) => one_store(&mut args.store, &mut args.store_option)?,
        Command::Prune(args) => one_store(&mut args.store, &mut args.store_option)?,
        Command::Record(args) => one_store(&mut args.store, &mut args.store_option)?,
        _ => {}
    }
    match &cli.command {
        Command::Completions { shell } => {
            return text_only(complete::script(*shell)?);
        }
        Command::Man { command } => return text_only(man::page(command.as_deref())?),
        _ => {}
    }
    check_output(&cli)?;
    limits::forbid_core_dumps().doing(Kind::Unexpected, || "disabling core dumps")?;
    limits::raise_descriptors()?;
    let session = Session::open(cli.global)?;
    // New files are private whatever the caller's umask is; explicit modes stay.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    arm_failpoints()?;
    match &cli.command {
        Command::Backup(args) => backup::run(&session, args),
        Command::Schedule(args) => schedule::run(&session, args),
        Command::List(args) if args.fleet => fleet::run(&session, args),
        Command::List(args) => list::run(&session, args),
        Command::Log(args) => log::run(&session, args),
        Command::Verify(args) => verify::run(&session, args),
        Command::Get(args) => get::run(&session, args),
        Command::Diff(args) => diff::run(&session, args),
        Command::Prune(args) => prune::run(&session, args),
        Command::Record(args) => record::run(&session, args),
        Command::Copy(args) => copy::run(&session, args),
        Command::Restore(args) => restore::run(&session, args),
        Command::Disable(args) => disable::run(&session, args),
        Command::Enable(args) => enable::run(&session, args),
        Command::MemberAdd(args) => member::add::run(&session, args),
        Command::MemberRemove(args) => member::remove::run(&session, args),
        Command::MemberUpdate(args) => member::update::run(&session, args),
        Command::Completions { .. } | Command::Man { .. } => {
            Ok(Shown::done(String::new(), Value::Null))
        }
    }
}

/// Requires that the command has the form of output that is asked for.
fn check_output(cli: &Cli) -> Result<()> {
    let output = cli.global.output;
    let has = match (&cli.command, output) {
        (_, OutputArg::Text | OutputArg::Json) => true,
        (Command::Diff(_), OutputArg::Html) => true,
        (Command::List(args), OutputArg::Html) => args.fleet,
        (Command::Get(args), output) => !args.history && output != OutputArg::Html,
        _ => false,
    };
    if has {
        return Ok(());
    }
    let what = format!(
        "{} has no such output: expected -o text or -o json",
        command_name(&cli.command)
    );
    Err(Failure::new(Kind::Usage, what))
}

fn text_only(bytes: Vec<u8>) -> Result<Shown> {
    let text = String::from_utf8(bytes).doing(Kind::Unexpected, || "generating text")?;
    let json = json!({"schemaVersion": json::SCHEMA_VERSION, "text": text});
    Ok(Shown::done(text, json))
}

/// Arms the failpoints from `ETCD_DR_SEAM`, in builds for the suites only.
fn arm_failpoints() -> Result<()> {
    #[cfg(feature = "faults")]
    if let Ok(text) = std::env::var("ETCD_DR_SEAM") {
        use crate::sys::failpoints;
        let mode = failpoints::Mode::parse(&text).ok_or_else(|| {
            Failure::new(
                Kind::Usage,
                format!("reading ETCD_DR_SEAM: {text:?} is not a mode"),
            )
        })?;
        failpoints::arm(mode).doing(Kind::Unexpected, || "arming the failpoints")?;
    }
    Ok(())
}
