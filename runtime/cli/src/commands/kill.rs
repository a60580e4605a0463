//! `terrarium kill`: a signal to a container's first process.

use crate::Global;
use std::process::ExitCode;
use terrarium_container::{ContainerId, SignalNumber, Store};

/// Send a signal to a container's first process.
///
/// The kernel shields the first process of a pid namespace from signals that it does not catch, other than KILL and
/// STOP: a program that does not handle TERM goes on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every process of the container, not the first one alone
    #[arg(long, short)]
    pub(super) all: bool,
    /// The container
    pub(super) id: String,
    /// Name or number, such as TERM, SIGUSR1, 9, RTMIN+3
    #[arg(default_value = "TERM")]
    pub(super) signal: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let signal = super::usage(SignalNumber::parse(&args.signal))?;
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    let store = Store::open(&global.root)?;
    if args.all {
        terrarium_container::kill_all(&store, &id, signal)?;
    } else {
        terrarium_container::kill(&store, &id, signal)?;
    }
    Ok(ExitCode::SUCCESS)
}
