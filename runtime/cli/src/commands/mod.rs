//! One file a command. To add one: a file here, and a line in [`Command`] and in [`run()`].

mod ask;
mod audit;
mod bundle;
mod completions;
mod cp;
mod create;
mod delete;
mod diff;
mod doctor;
mod engine;
mod events;
mod examples;
mod exec;
mod explain;
mod features;
mod gc;
mod image;
mod inspect;
mod kill;
mod lab;
mod leaks;
mod logging;
mod logs;
mod namespaces;
mod network;
mod observe;
mod pause;
mod port;
mod prune;
mod ps;
mod pull;
mod rename;
mod run;
mod selftest;
mod spec;
mod start;
mod state;
mod stats;
mod stop;
mod terminal;
mod top;
mod update;

pub use engine::parse as parse_engine;

use crate::exit::WithCode;
use crate::{Cli, Global};
use anyhow::Context;
use clap::{Args as _, FromArgMatches as _, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use terrarium_container::{ContainerId, State, Store};

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(display_order = 1, after_help = examples::RUN)]
    Run(Box<run::Args>),
    #[command(display_order = 2, after_help = examples::PS)]
    Ps(ps::Args),
    #[command(display_order = 3, after_help = examples::KILL)]
    Kill(kill::Args),
    #[command(display_order = 4, after_help = examples::DELETE)]
    Delete(delete::Args),
    #[command(display_order = 5, after_help = examples::GC)]
    Gc(gc::Args),
    #[command(display_order = 6, after_help = examples::OBSERVE)]
    Observe(Box<observe::Observe>),
    #[command(display_order = 7, after_help = examples::EVENTS)]
    Events(events::Events),
    #[command(display_order = 8)]
    Top(top::Args),
    #[command(display_order = 8, after_help = examples::LEAKS)]
    Leaks(leaks::Args),
    #[command(display_order = 8)]
    Diff(diff::Args),
    #[command(display_order = 8)]
    Lab(lab::Args),
    #[command(display_order = 9, after_help = examples::DOCTOR)]
    Doctor(doctor::Doctor),
    #[command(display_order = 8, after_help = examples::SELFTEST)]
    Selftest(selftest::Selftest),
    #[command(display_order = 20)]
    Exec(Box<exec::Args>),
    #[command(display_order = 21, after_help = examples::PAUSE)]
    Pause(pause::PauseArgs),
    #[command(display_order = 22, after_help = examples::RESUME)]
    Resume(pause::ResumeArgs),
    #[command(display_order = 23)]
    Update(update::Args),
    #[command(display_order = 24, after_help = examples::STOP)]
    Stop(stop::StopArgs),
    #[command(display_order = 24, after_help = examples::RESTART)]
    Restart(stop::RestartArgs),
    #[command(display_order = 27, after_help = examples::RENAME)]
    Rename(rename::Args),
    #[command(display_order = 25, after_help = examples::WAIT)]
    Wait(stop::WaitArgs),
    #[command(display_order = 26, after_help = examples::LOGS)]
    Logs(logs::Args),
    #[command(display_order = 26)]
    Cp(cp::Args),
    #[command(display_order = 27)]
    Port(port::Args),
    #[command(display_order = 27, after_help = examples::INSPECT)]
    Inspect(inspect::Args),
    #[command(display_order = 28, after_help = examples::PRUNE)]
    Prune(prune::Args),
    #[command(display_order = 27, after_help = examples::STATS)]
    Stats(stats::Args),
    #[command(display_order = 10, after_help = examples::NAMESPACES)]
    Namespaces(namespaces::Args),
    #[command(display_order = 29, after_help = examples::NETWORK)]
    Network(network::Args),
    #[command(display_order = 30, after_help = examples::IMAGE)]
    Image(image::Args),
    #[command(display_order = 31)]
    Pull(pull::Args),
    #[command(display_order = 50, after_help = examples::CREATE)]
    Create(create::Args),
    #[command(display_order = 51, after_help = examples::START)]
    Start(start::Args),
    #[command(display_order = 52, after_help = examples::STATE)]
    State(state::Args),
    #[command(display_order = 53, after_help = examples::LIST)]
    List(state::ListArgs),
    #[command(display_order = 54, after_help = examples::SPEC)]
    Spec(spec::Args),
    #[command(display_order = 55, after_help = examples::FEATURES)]
    Features(features::Args),
    #[command(display_order = 60, after_help = examples::COMPLETIONS)]
    Completions(completions::Args),
    #[command(display_order = 61, after_help = examples::MAN)]
    Man(completions::ManArgs),
}

/// Whether `args` may be a command whose children execute what images bring: such a command's name is one of them.
pub fn may_execute_images(mut args: impl Iterator<Item = OsString>) -> bool {
    args.any(|arg| ["run", "create", "exec", "restart"].iter().any(|name| arg == *name))
}

/// Parses the commands that engines call a hundred times for each that a person types, without describing all the
/// others to clap first. `None`: it is another command, or help is asked for, or it is wrong.
///
/// What is parsed here is parsed alike by the whole command line, which knows these words and more.
pub fn parse_alone(args: impl Iterator<Item = OsString>) -> Option<Cli> {
    let args: Vec<OsString> = args.collect();
    let name = args.iter().skip(1).find_map(|arg| {
        ["run", "create", "start", "state", "kill", "delete", "exec"]
            .into_iter()
            .find(|name| arg == name)
    })?;
    match name {
        "run" => alone(name, args, |args| Command::Run(Box::new(args))),
        "create" => alone(name, args, Command::Create),
        "start" => alone(name, args, Command::Start),
        "state" => alone(name, args, Command::State),
        "kill" => alone(name, args, Command::Kill),
        "delete" => alone(name, args, Command::Delete),
        _ => alone(name, args, |args| Command::Exec(Box::new(args))),
    }
}

fn alone<A: clap::Args>(
    name: &'static str,
    args: Vec<OsString>,
    command: fn(A) -> Command,
) -> Option<Cli> {
    let parser = Global::augment_args(clap::Command::new("terrarium"))
        .subcommand(A::augment_args(clap::Command::new(name)));
    let matches = parser.try_get_matches_from(args).ok()?;
    let (_, of_command) = matches.subcommand()?;
    Some(Cli {
        global: Global::from_arg_matches(&matches).ok()?,
        command: command(A::from_arg_matches(of_command).ok()?),
    })
}

/// Runs `command`.
pub fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(&args, global),
        Command::Ps(args) => ps::run(&args, global),
        Command::Kill(args) => kill::run(&args, global),
        Command::Delete(args) => delete::run(&args, global),
        Command::Gc(args) => gc::run(&args, global),
        Command::Observe(args) => observe::run(*args, global),
        Command::Events(args) => events::run(&args, global),
        Command::Top(args) => top::run(&args),
        Command::Leaks(args) => leaks::run(&args, global),
        Command::Diff(args) => diff::run(&args, global),
        Command::Lab(args) => lab::run(&args, global),
        Command::Doctor(args) => doctor::run(&args, global),
        Command::Selftest(args) => selftest::run(&args, global),
        Command::Exec(args) => exec::run(&args, global),
        Command::Pause(args) => pause::pause(&args, global),
        Command::Resume(args) => pause::resume(&args, global),
        Command::Update(args) => update::run(&args, global),
        Command::Stop(args) => stop::stop(&args, global),
        Command::Restart(args) => stop::restart(&args, global),
        Command::Rename(args) => rename::run(&args, global),
        Command::Wait(args) => stop::wait(&args, global),
        Command::Logs(args) => logs::run(&args, global),
        Command::Cp(args) => cp::run(&args, global),
        Command::Port(args) => port::run(&args, global),
        Command::Inspect(args) => inspect::run(&args, global),
        Command::Prune(args) => prune::run(&args, global),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::man(&args),
        Command::Stats(args) => stats::run(&args, global),
        Command::Namespaces(args) => namespaces::run(&args, global),
        Command::Network(args) => network::run(&args, global),
        Command::Image(args) => image::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Create(args) => create::run(&args, global),
        Command::Start(args) => start::run(&args, global),
        Command::State(args) => state::run(&args, global),
        Command::List(args) => state::list(&args, global),
        Command::Spec(args) => spec::run(&args),
        Command::Features(_) => features::run(),
    }
}

/// Writes `text` to standard output; that nobody reads it (`terrarium list | head -1`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("write to standard output")
        }
        _ => Ok(()),
    }
}

/// Gives wrong values the exit code of wrong usage.
fn usage<T>(result: terrarium_container::Result<T>) -> anyhow::Result<T> {
    result.map_err(|error| if error.is_usage() { WithCode::error(2, error) } else { error.into() })
}

/// The container with the name `name`.
fn with_name(store: &Store, name: &str) -> anyhow::Result<Option<State>> {
    Ok(store.containers()?.0.into_iter().find(|state| state.name == name))
}

/// The container that a person means: by its id, its name, or the beginning of an id that only one container has.
///
/// Engines' commands take whole ids alone: what is gone must not be mistaken for another.
fn named(store: &Store, text: &str) -> anyhow::Result<ContainerId> {
    let id = usage(ContainerId::new(text))?;
    if store.state(&id).is_ok() {
        return Ok(id);
    }
    let (states, _) = store.containers()?;
    if let Some(state) = states.iter().find(|state| state.name == text) {
        return Ok(ContainerId::new(state.id.as_str())?);
    }
    let mut matching = states.iter().filter(|state| state.id.starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(ContainerId::new(one.id.as_str())?),
        (Some(one), Some(other)) => anyhow::bail!(
            "container {text:?}: that is the beginning of {} and of {} (give more of the id)",
            one.id,
            other.id
        ),
        // The error for one that does not exist.
        (None, _) => Ok(id),
    }
}

/// The containers whose id the regular expression `text` matches, anywhere in it.
fn matching(store: &Store, text: &str) -> anyhow::Result<Vec<ContainerId>> {
    let expression = regex_lite::Regex::new(text).map_err(|error| {
        WithCode::error(
            2,
            anyhow::anyhow!("--regex {text:?}: it is no regular expression: {error}"),
        )
    })?;
    let (states, _) = store.containers()?;
    let ids = states.iter().filter(|state| expression.is_match(&state.id));
    ids.map(|state| Ok(ContainerId::new(state.id.as_str())?)).collect()
}

/// Does `act` for each of `ids`; the failure of one does not keep the others from it.
fn each(
    ids: &[ContainerId],
    mut act: impl FnMut(&ContainerId) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut first = None;
    for id in ids {
        if let Err(error) = act(id)
            && let Some(earlier) = first.replace(error)
        {
            eprintln!("terrarium: {earlier:#}");
        }
    }
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Does `act` for each container of `names`; the failure of one does not keep the others from it.
fn for_each(
    store: &Store,
    names: &[String],
    mut act: impl FnMut(&ContainerId) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut first = None;
    for name in names {
        if let Err(error) = named(store, name).and_then(|id| act(&id))
            && let Some(earlier) = first.replace(error)
        {
            eprintln!("terrarium: {earlier:#}");
        }
    }
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_command_parsed_alone_is_what_the_whole_command_line_makes_of_it() {
        for line in [
            "terrarium run --rm --net none -m 64m rootfs sh -c exit",
            "terrarium --root /r --log run --log-format json run --bundle b x",
            "terrarium --systemd-cgroup create -b b --pid-file p x",
            "terrarium --root=/r start x",
            "terrarium state run",
            "terrarium kill --all x KILL",
            "terrarium delete -f x",
            "terrarium kill --regex ^x KILL",
            "terrarium exec -t x create",
        ] {
            let alone = parse_alone(words(line).into_iter()).unwrap_or_else(|| panic!("{line}"));
            let whole = Cli::try_parse_from(words(line)).unwrap();
            assert_eq!(format!("{alone:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn what_is_another_command_or_wrong_is_left_to_the_whole_command_line() {
        for line in
            ["terrarium ps run", "terrarium run --help", "terrarium run --no-such x", "terrarium"]
        {
            assert!(parse_alone(words(line).into_iter()).is_none(), "{line}");
        }
    }
}
