//! One file a command. To add one: a file here, and a line in [`Command`] and in [`run`].

use crate::Global;
use clap::Subcommand;
use std::process::ExitCode;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {}

/// Runs `command`.
pub fn run(command: Command, _global: &Global) -> anyhow::Result<ExitCode> {
    match command {}
}
