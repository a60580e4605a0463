//! One file a command. To add one: a file here, and a line in [`Command`] and in [`run()`].

mod bundle;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod features;
mod gc;
mod kill;
mod logging;
mod observe;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod terminal;
mod update;

use crate::Global;
use crate::exit::WithCode;
use anyhow::Context;
use clap::Subcommand;
use std::io::Write;
use std::process::ExitCode;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(display_order = 1)]
    Run(Box<run::Args>),
    #[command(display_order = 2)]
    Ps(ps::Args),
    #[command(display_order = 3)]
    Kill(kill::Args),
    #[command(display_order = 4)]
    Delete(delete::Args),
    #[command(display_order = 5)]
    Gc(gc::Args),
    #[command(display_order = 6)]
    Observe(observe::Observe),
    #[command(display_order = 7)]
    Events(events::Events),
    #[command(display_order = 8)]
    Doctor(doctor::Doctor),
    #[command(display_order = 20)]
    Exec(Box<exec::Args>),
    #[command(display_order = 21)]
    Pause(pause::PauseArgs),
    #[command(display_order = 22)]
    Resume(pause::ResumeArgs),
    #[command(display_order = 23)]
    Update(update::Args),
    #[command(display_order = 50)]
    Create(create::Args),
    #[command(display_order = 51)]
    Start(start::Args),
    #[command(display_order = 52)]
    State(state::Args),
    #[command(display_order = 53)]
    List(state::ListArgs),
    #[command(display_order = 54)]
    Spec(spec::Args),
    #[command(display_order = 55)]
    Features(features::Args),
}

/// Runs `command`.
pub fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    if matches!(command, Command::Run(_) | Command::Create(_) | Command::Exec(_)) {
        // Their children execute what images bring.
        terrarium_container::run_sealed()
            .context("protect the executable from containers: execute it from a read-only mount")?;
    }
    match command {
        Command::Run(args) => run::run(&args, global),
        Command::Ps(args) => ps::run(&args, global),
        Command::Kill(args) => kill::run(&args, global),
        Command::Delete(args) => delete::run(&args, global),
        Command::Gc(args) => gc::run(&args, global),
        Command::Observe(args) => observe::run(args, global),
        Command::Events(args) => events::run(&args, global),
        Command::Doctor(args) => doctor::run(&args, global),
        Command::Exec(args) => exec::run(&args, global),
        Command::Pause(args) => pause::pause(&args, global),
        Command::Resume(args) => pause::resume(&args, global),
        Command::Update(args) => update::run(&args, global),
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
