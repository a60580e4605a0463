//! One file a command. To add one: a file here, and a line in [`Command`] and in [`run()`].

mod delete;
mod doctor;
mod events;
mod gc;
mod kill;
mod logging;
mod observe;
mod ps;
mod run;
mod terminal;

use crate::Global;
use crate::exit::WithCode;
use clap::Subcommand;
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
}

/// Runs `command`.
pub fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(&args, global),
        Command::Ps(args) => ps::run(&args, global),
        Command::Kill(args) => kill::run(&args, global),
        Command::Delete(args) => delete::run(&args, global),
        Command::Gc(args) => gc::run(&args, global),
        Command::Observe(args) => observe::run(args, global),
        Command::Events(args) => events::run(&args, global),
        Command::Doctor(args) => doctor::run(&args, global),
    }
}

/// Gives wrong values the exit code of wrong usage.
fn usage<T>(result: terrarium_container::Result<T>) -> anyhow::Result<T> {
    result.map_err(|error| if error.is_usage() { WithCode::error(2, error) } else { error.into() })
}
