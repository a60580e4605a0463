//! `terrarium state` and `list`: what the OCI specification calls the state of a container.

use super::Format;
use crate::Global;
use anyhow::Context;
use serde_json::{Value, json};
use std::process::ExitCode;
use terrarium_container::{ContainerId, State, Store, oci_state};

/// Print the OCI state of a container as JSON.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container
    pub(super) id: String,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let id = super::usage(ContainerId::new(args.id.as_str()))?;
    let state = Store::open(&global.root)?.state(&id)?;
    super::print(&serde_json::to_string_pretty(&value(&state)?).context("write JSON")?)?;
    Ok(ExitCode::SUCCESS)
}

fn value(state: &State) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(oci_state(state)).context("write JSON")?;
    value["rootfs"] = json!(state.rootfs);
    value["created"] = json!(state.created);
    value["owner"] = json!("root");
    Ok(value)
}

/// List containers, as OCI engines read it (`ps` is for people).
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// How to print; as JSON an array of OCI states
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
}

/// Runs `list`.
pub fn list(args: &ListArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let states =
        if global.root.is_dir() { Store::open(&global.root)?.containers()?.0 } else { Vec::new() };
    let text = if args.quiet {
        states.iter().map(|state| state.id.as_str()).collect::<Vec<_>>().join("\n")
    } else if let Format::Json = args.format {
        let all = states.iter().map(value).collect::<anyhow::Result<Vec<_>>>()?;
        serde_json::to_string(&all).context("write JSON")?
    } else {
        table(&states)
    };
    if !text.is_empty() {
        super::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(states: &[State]) -> String {
    let head = format!("{:<32} {:<8} {:<10} {:<40} CREATED", "ID", "PID", "STATUS", "BUNDLE");
    let rows = states.iter().map(|state| {
        let oci = oci_state(state);
        let bundle = oci.bundle.display().to_string();
        format!("{:<32} {:<8} {:<10} {bundle:<40} {}", oci.id, oci.pid, oci.status, state.created)
    });
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}
