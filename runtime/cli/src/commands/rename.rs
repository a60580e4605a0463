//! `terrarium rename`: another name for a container.

use crate::Global;
use std::process::ExitCode;
use terrarium_container::Store;

/// Give a container another name. Its id stays, and with it its folder and its cgroups.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container, by name, id or the beginning of one
    id: String,
    /// Its new name
    name: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    let id = super::named(&store, &args.id)?;
    super::usage(terrarium_container::rename(&store, &id, &args.name))?;
    Ok(ExitCode::SUCCESS)
}
