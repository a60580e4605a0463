//! `terrarium delete`: removes a container.

use crate::Global;
use std::process::ExitCode;
use terrarium_container::{ContainerId, Store};

/// Remove a container that has stopped, or any with --force.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kill its processes first; a container that does not exist is no error
    #[arg(long, short)]
    pub(super) force: bool,
    /// The containers
    #[arg(required = true)]
    pub(super) id: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let ids = args.id.iter().map(|id| ContainerId::new(id.as_str())).collect::<Result<Vec<_>, _>>();
    let ids = super::usage(ids)?;
    let store = Store::open(&global.root)?;
    let mut first = None;
    for id in &ids {
        if let Err(error) = terrarium_container::delete(&store, id, args.force)
            && let Some(earlier) = first.replace(error)
        {
            eprintln!("terrarium: {earlier}");
        }
    }
    match first {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error.into()),
    }
}
