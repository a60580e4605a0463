//! `terrarium start`: starts the program of a container that was created.

use crate::Global;
use std::process::ExitCode;
use terrarium_container::{ContainerId, Status, Store};

/// Start the program of a created container, or once more one that `run` made and that has stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container
    pub(super) id: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    let store = Store::open(&global.root)?;
    let state = store.state(&id)?;
    if state.observed_status() == Status::Stopped && state.supervisor_pid > 0 && !state.remove {
        // From here on it does what `run` does, whose children execute what the image brings. An engine's `start`
        // executes nothing, and is spared this.
        crate::run_sealed()?;
        super::run::start_again(&store, &id)?;
        return Ok(ExitCode::SUCCESS);
    }
    terrarium_container::start(&store, &id)?;
    Ok(ExitCode::SUCCESS)
}
