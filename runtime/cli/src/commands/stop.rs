//! `terrarium stop` and `wait`: the end of containers, asked for and waited for.

use crate::Global;
use anyhow::Context;
use std::process::ExitCode;
use std::time::Duration;
use terrarium_container::{ContainerId, Error, SignalNumber, Store};

/// The annotation of `run --stop-signal`.
pub const ANNOTATION_SIGNAL: &str = "io.terrarium.stop.signal";
/// The annotation of `run --stop-timeout`, in seconds.
pub const ANNOTATION_TIMEOUT: &str = "io.terrarium.stop.timeout";

const DEFAULT_TIMEOUT: u32 = 10;

/// How long the kernel may take to end what was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Ask containers to end, and kill those that do not.
///
/// The signal is TERM or what `run --stop-signal` said. A program that does not handle it is not ended by it, for it is
/// the first of its pid namespace; it is killed when the time is over.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Seconds to wait before KILL [default: 10, or as run --stop-timeout said]
    #[arg(long, short, alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// The containers, by id or the beginning of one
    #[arg(required = true)]
    id: Vec<String>,
}

/// Stop containers that `run` made, and start each again, in the background; one that has stopped is only started.
#[derive(Debug, clap::Args)]
pub struct RestartArgs {
    /// Seconds to wait before KILL [default: 10, or as run --stop-timeout said]
    #[arg(long, short, alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// The containers, by name, id or the beginning of one
    #[arg(required = true)]
    id: Vec<String>,
}

/// Wait until containers have ended, and print the exit code of each.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// The containers, by id or the beginning of one
    #[arg(required = true)]
    id: Vec<String>,
}

/// Runs `stop`.
pub fn stop(args: &StopArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    super::for_each(&store, &args.id, |id| stop_one(&store, id, args.time))
}

/// Runs `restart`.
pub fn restart(args: &RestartArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    super::for_each(&store, &args.id, |id| {
        let state = store.state(id)?;
        if state.remove || state.supervisor_pid == 0 {
            anyhow::bail!(
                "restart container {id}: {} (delete it, and make a new one)",
                if state.remove {
                    "run --rm forgets it at its end"
                } else {
                    "`run` did not make it"
                }
            );
        }
        stop_one(&store, id, args.time)?;
        super::run::start_again(&store, id)?;
        super::print(id.as_str())
    })
}

fn stop_one(store: &Store, id: &ContainerId, time: Option<u32>) -> anyhow::Result<()> {
    let annotations = store.state(id)?.annotations;
    let signal = match annotations.get(ANNOTATION_SIGNAL) {
        Some(text) => SignalNumber::parse(text)?,
        None => SignalNumber::TERM,
    };
    let told = annotations.get(ANNOTATION_TIMEOUT).and_then(|text| text.parse().ok());
    let time = time.or(told).unwrap_or(DEFAULT_TIMEOUT);
    terrarium_container::request_stop(store, id)?;
    match terrarium_container::kill(store, id, signal) {
        // Ended already: as asked for.
        Err(Error::NotRunning { .. }) => return Ok(()),
        result => result?,
    }
    if terrarium_container::wait(store, id, Some(Duration::from_secs(time.into())))? {
        return Ok(());
    }
    match terrarium_container::kill(store, id, SignalNumber::KILL) {
        Err(Error::NotRunning { .. } | Error::DoesNotExist { .. }) => return Ok(()),
        result => result?,
    }
    if terrarium_container::wait(store, id, Some(KILL_TIMEOUT))? {
        Ok(())
    } else {
        anyhow::bail!(
            "stop container {id}: it still exists {} s after KILL (a process may wait for a device or a network \
             filesystem: see field 3 of /proc/PID/stat)",
            KILL_TIMEOUT.as_secs()
        )
    }
}

/// Runs `wait`.
pub fn wait(args: &WaitArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    super::for_each(&store, &args.id, |id| {
        terrarium_container::wait(&store, id, None)?;
        let code = store.state(id).ok().and_then(|state| state.exit_code).with_context(|| {
            format!(
                "read the exit code of container {id}: nobody kept it (run --rm removes it, and after create and \
                 start only the engine's monitor learns it)"
            )
        })?;
        super::print(&code.to_string())
    })
}
