//! `terrarium kill`: a signal to a container's first process.

use crate::Global;
use std::process::ExitCode;
use terrarium_container::{ContainerId, Error, SignalNumber, Store};

/// Send a signal to a container's first process.
///
/// The kernel shields the first process of a pid namespace from signals that it does not catch, other than KILL and
/// STOP: a program that does not handle TERM goes on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every process of the container, not the first one alone
    #[arg(long, short)]
    pub(super) all: bool,
    /// ID is a regular expression, and every running container whose id it matches gets the signal
    #[arg(long, short)]
    pub(super) regex: bool,
    /// The container
    pub(super) id: String,
    /// Name or number, such as TERM, SIGUSR1, 9, RTMIN+3; 0 asks whether it runs
    #[arg(default_value = "TERM")]
    pub(super) signal: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let signal = match args.signal.as_str() {
        "0" => SignalNumber::NONE,
        text => super::usage(SignalNumber::parse(text))?,
    };
    let store = Store::open(&global.root)?;
    let kill = |id: &ContainerId| {
        if args.all {
            terrarium_container::kill_all(&store, id, signal)
        } else {
            terrarium_container::kill(&store, id, signal)
        }
    };
    if !args.regex {
        kill(&super::usage(ContainerId::new(args.id.as_str()))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ids = super::matching(&store, &args.id)?;
    super::each(&ids, |id| match kill(id) {
        // It has stopped, or went meanwhile: there is nobody to signal.
        Err(Error::NotRunning { .. } | Error::DoesNotExist { .. }) => Ok(()),
        result => Ok(result?),
    })
}
