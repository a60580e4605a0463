//! `terrarium pause` and `terrarium resume`.

use crate::Global;
use std::process::ExitCode;
use terrarium_container::{ContainerId, Store};

/// Freeze all processes of a container.
#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    /// The container
    id: String,
}

/// Let a paused container go on.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// The container
    id: String,
}

/// Runs `pause`.
pub fn pause(args: &PauseArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    terrarium_container::pause(&Store::open(&global.root)?, &id)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `resume`.
pub fn resume(args: &ResumeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    terrarium_container::resume(&Store::open(&global.root)?, &id)?;
    Ok(ExitCode::SUCCESS)
}
