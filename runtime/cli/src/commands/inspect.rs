//! `terrarium inspect`: all that is kept about containers.

use crate::Global;
use anyhow::Context;
use serde_json::Value;
use std::process::ExitCode;
use terrarium_container::Store;

/// Print all that is kept about containers, as a JSON array: state.json, and the OCI spec as `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The containers, by id or the beginning of one
    #[arg(required = true)]
    id: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    let mut all: Vec<Value> = Vec::new();
    let code = super::for_each(&store, &args.id, |id| {
        let mut state = store.state(id)?;
        state.status = state.observed_status();
        let mut value = serde_json::to_value(&state).context("write JSON")?;
        let spec = terrarium_container::spec_of(&store, id)?;
        value["config"] = serde_json::to_value(&spec).context("write JSON")?;
        all.push(value);
        Ok(())
    })?;
    super::print(&serde_json::to_string_pretty(&all).context("write JSON")?)?;
    Ok(code)
}
