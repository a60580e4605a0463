//! `terrarium completions` and `man`: what shells and `man` know of the command line, made from its definition.

use anyhow::Context;
use clap::CommandFactory;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print a shell's completion script.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Write the man pages, one for each command.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Folder to write them into
    folder: PathBuf,
}

/// Runs `completions`.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "terrarium", &mut script);
    super::terminal::print(std::str::from_utf8(&script).context("read the script")?)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `man`.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(crate::Cli::command(), folder))
        .with_context(|| format!("write man pages into {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
