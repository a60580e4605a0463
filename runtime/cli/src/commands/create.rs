//! `terrarium create`: a container from a bundle, whose program waits for `start`.

use super::bundle::BundleArgs;
use crate::Global;
use std::process::ExitCode;
use terrarium_container::{Container, ContainerId, CreateOptions, Store};

/// Create a container from an OCI bundle; `terrarium start` starts its program.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) bundle: BundleArgs,
    /// Id of the new container
    pub(super) id: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    let (bundle, spec) = args.bundle.spec()?;
    let options = CreateOptions { leave: true, ..args.bundle.options(bundle, global)? };
    let store = Store::open(&global.root)?;
    Container::create(&store, &id, spec, &options)?.leave(options.pid_file.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
