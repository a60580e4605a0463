//! `terrarium prune`: removes the containers that have stopped.

use crate::Global;
use crate::exit::WithCode;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use terrarium_container::{ContainerId, Error, Status, Store};

/// Remove all containers that have stopped, with their logs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    let (states, _) = store.containers()?;
    let stopped: Vec<_> =
        states.into_iter().filter(|state| state.observed_status() == Status::Stopped).collect();
    if stopped.is_empty() || !(args.force || is_agreed(stopped.len())?) {
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = false;
    for state in stopped {
        let id = ContainerId::new(state.id.as_str())?;
        match terrarium_container::delete(&store, &id, false) {
            Ok(()) => super::print(&state.id)?,
            // Somebody else was quicker, or has started it again.
            Err(Error::DoesNotExist { .. } | Error::StillRunning { .. }) => {}
            Err(error) => {
                eprintln!("terrarium: {error}");
                failed = true;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn is_agreed(number: usize) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        let error = anyhow::anyhow!("prune: nobody to ask on standard input (add --force)");
        return Err(WithCode::error(2, error));
    }
    eprint!("Remove {number} stopped containers and their logs? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
