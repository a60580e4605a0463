//! `terrarium network`: networks that are created by name and stay.

use super::Format;
use crate::Global;
use anyhow::Context;
use clap::Subcommand;
use std::fmt::Write as _;
use std::process::ExitCode;
use terrarium_container::{
    NetworkInfo, NewNetwork, Store, create_network, networks, prune_networks, remove_network,
};

/// Create, list, inspect and remove networks.
///
/// `run --net bridge:NAME` uses one; a name that nobody has created is a network as well, which goes with its last
/// container.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a network; its bridge is there while it has containers
    Create(Create),
    /// List networks
    #[command(alias = "ls")]
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print all that is kept about networks, as a JSON array
    Inspect {
        /// The networks
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// Remove networks that no container uses
    #[command(alias = "rm")]
    Remove {
        /// The networks
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// Remove all networks that somebody has created and no container uses
    Prune {
        /// Only those with this label, or with this value of it
        #[arg(long, value_name = "KEY[=VALUE]")]
        label: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its name, and the bridge's
    name: String,
    /// Its addresses, given once or for IPv4 and IPv6 [default: a free one of 10.78.0.0/16 to 10.127.0.0/16]
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// The bridge's address, for each subnet [default: the first of it]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// IPv6 as well; without a --subnet for it, a random unique local one
    #[arg(long)]
    ipv6: bool,
    /// Label for people
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Without a way out: no default route, nothing leaves it
    #[arg(long)]
    internal: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    match &args.command {
        Command::Create(args) => {
            let new = NewNetwork {
                name: args.name.clone(),
                subnets: args.subnet.clone(),
                gateways: args.gateway.clone(),
                ipv6: args.ipv6,
                labels: args
                    .label
                    .iter()
                    .map(|text| text.split_once('=').unwrap_or((text, "")))
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
                internal: args.internal,
            };
            let network = super::usage(create_network(&store, &new))?;
            super::print(&network.name)?;
        }
        Command::List { format } => {
            let all = networks(&store)?;
            super::print(&match format {
                Format::Json => serde_json::to_string_pretty(&all).context("write JSON")?,
                Format::Table => table(&all),
            })?;
        }
        Command::Inspect { name } => {
            let all = networks(&store)?;
            let found: Vec<&NetworkInfo> = name
                .iter()
                .map(|name| {
                    all.iter().find(|network| network.name == *name).with_context(|| {
                        format!(
                            "network {name:?}: there is none (`terrarium network list` shows them)"
                        )
                    })
                })
                .collect::<anyhow::Result<_>>()?;
            super::print(&serde_json::to_string_pretty(&found).context("write JSON")?)?;
        }
        Command::Remove { name } => {
            for name in name {
                remove_network(&store, name)?;
                super::print(name)?;
            }
        }
        Command::Prune { label } => {
            for name in prune_networks(&store, label)? {
                super::print(&name)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(all: &[NetworkInfo]) -> String {
    let mut text = format!(
        "{:<15}  {:<18}  {:<15}  {:<8}  CONTAINERS",
        "NAME", "SUBNET", "GATEWAY", "INTERNAL"
    );
    for network in all {
        let internal = if network.internal { "yes" } else { "no" };
        let _ = write!(
            text,
            "\n{:<15}  {:<18}  {:<15}  {internal:<8}  {}",
            network.name,
            network.subnet.to_string(),
            network.gateway.to_string(),
            network.containers.len()
        );
        if let (Some(subnet), Some(gateway)) = (network.subnet6, network.gateway6) {
            let _ = write!(text, "\n{:<15}  {subnet:<18}  {gateway}", "");
        }
    }
    text
}
