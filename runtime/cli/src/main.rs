//! The command line: arguments, output and exit codes; no mechanism.
//!
//! Containers are made by `terrarium-container`, probes and metrics by `terrarium-observatory`;
//! this crate is the only one that knows both.

mod commands;
mod exit;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Builds containers and observes them from the kernel.
#[derive(Debug, Parser)]
#[command(name = "terrarium", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: commands::Command,
}

/// Options that stand before the command, as OCI engines pass them.
#[derive(Debug, clap::Args)]
struct Global {
    /// Folder that holds the state of containers
    #[arg(long, value_name = "DIR", env = "TERRARIUM_ROOT", default_value = "/run/terrarium")]
    root: PathBuf,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    match commands::run(cli.command, &cli.global) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
