//! `terrarium gc`: takes away what crashed runtimes left.

use crate::Global;
use std::process::ExitCode;
use terrarium_container::Store;

/// Remove what crashed terrarium processes left: containers, cgroups, network interfaces, addresses, rules.
///
/// Containers that run, that have stopped in an orderly way, or that somebody is working on are left alone.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let report = terrarium_container::gc(&Store::open(&global.root)?)?;
    for id in &report.removed {
        println!("removed container {id}");
    }
    for what in &report.other {
        println!("removed {what}");
    }
    for error in &report.errors {
        eprintln!("terrarium: {error}");
    }
    Ok(if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
