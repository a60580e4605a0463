//! `terrarium start`: starts the program of a container that was created.

use crate::Global;
use std::process::ExitCode;
use terrarium_container::{ContainerId, Store};

/// Start the program of a created container.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container
    id: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    terrarium_container::start(&Store::open(&global.root)?, &id)?;
    Ok(ExitCode::SUCCESS)
}
