//! `terrarium spec`: a config.json to start from.

use anyhow::Context;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use terrarium_container::seccomp::default_profile;
use terrarium_container::template;

/// Write a config.json to start from into the bundle.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the bundle [default: the current folder]
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// For a user without privileges: a user namespace with that user's id as root
    #[arg(long)]
    rootless: bool,
    /// With the seccomp profile that `terrarium run` uses by default
    #[arg(long)]
    seccomp: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = args.bundle.clone().unwrap_or_else(|| ".".into()).join("config.json");
    let mut spec = template(args.rootless);
    if args.seccomp {
        spec["linux"]["seccomp"] =
            serde_json::to_value(default_profile(&[])).context("write JSON")?;
    }
    let text = serde_json::to_string_pretty(&spec).context("write JSON")?;
    let created = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = created.with_context(|| {
        format!("create {} (a file that is there is left alone: remove it first)", path.display())
    })?;
    writeln!(file, "{text}").with_context(|| format!("write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
