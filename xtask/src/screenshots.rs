//! `cargo xtask screenshots`: the pictures of the documentation, from a live system.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build;
use crate::setup::{self, Needs};
use crate::shell;
use crate::workspace::Workspace;

/// Make the pictures of the documentation: containers are started, watched, and looked at in a browser and a terminal.
#[derive(clap::Args)]
pub struct Args {
    /// Folder for the pictures [default: docs/images]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Take the machine as it is.
    #[arg(long)]
    no_setup: bool,
    /// Install missing tools without asking.
    #[arg(long, short)]
    yes: bool,
}

/// Builds the programs and lets `terrarium-screenshots` of the tests do it.
pub fn run(args: &Args) -> Result<()> {
    if !args.no_setup {
        setup::ensure(&[Needs::Build, Needs::Run, Needs::Peers], args.yes)?;
    }
    let workspace = Workspace::find()?;
    let folder = args.to.clone().unwrap_or_else(|| workspace.root.join("docs/images"));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("create the folder {}", folder.display()))?;
    let terrarium = build::binary(&workspace, false)?;
    let workload =
        build::static_binary(&workspace, "terrarium-tests", "terrarium-workload", false)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "-p", "terrarium-tests", "--bin", "terrarium-screenshots"]);
    shell::run(&mut cargo)?;
    let mut screenshots = Command::new(terrarium.with_file_name("terrarium-screenshots"));
    screenshots.arg(&folder).env("TERRARIUM_BIN", &terrarium).env("TERRARIUM_WORKLOAD", &workload);
    shell::run(&mut screenshots)?;
    shell::note(
        "the dashboards are not among them: Grafana is not in Debian (dashboards/README.md says how to bring one up)",
    );
    Ok(())
}
