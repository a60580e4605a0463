//! `terrarium port`: which ports of the host lead to a container.

use crate::Global;
use anyhow::bail;
use std::process::ExitCode;
use terrarium_container::Store;

/// Print the published ports of a container: its own, and the address of the host that leads there.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  terrarium port web          80/tcp -> 0.0.0.0:8080\n  terrarium port web 80       0.0.0.0:8080"
)]
pub struct Args {
    /// The container, by name, id or the beginning of one
    id: String,
    /// Print the host's address of this port alone
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    let state = store.state(&super::named(&store, &args.id)?)?;
    let ports = state.network.map(|network| network.ports).unwrap_or_default();
    let pairs = ports.iter().filter_map(|port| port.split_once("->"));
    let Some(wanted) = &args.port else {
        let lines: Vec<_> = pairs.map(|(host, own)| format!("{own} -> {host}")).collect();
        if !lines.is_empty() {
            super::print(&lines.join("\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let hosts: Vec<_> = pairs.filter(|(_, own)| *own == wanted).map(|(host, _)| host).collect();
    if hosts.is_empty() {
        bail!(
            "port {wanted} of {}: it is not published (run --publish HOST:CONTAINER does that)",
            args.id
        );
    }
    super::print(&hosts.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
