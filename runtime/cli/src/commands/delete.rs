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
    /// ID is a regular expression, and every container whose id it matches is removed
    #[arg(long, short)]
    pub(super) regex: bool,
    /// The containers
    #[arg(required = true)]
    pub(super) id: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    let mut ids = Vec::new();
    for text in &args.id {
        if args.regex {
            ids.extend(super::matching(&store, text)?);
        } else {
            ids.push(super::usage(ContainerId::new(text.as_str()))?);
        }
    }
    super::each(&ids, |id| Ok(terrarium_container::delete(&store, id, args.force)?))
}
