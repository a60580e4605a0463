//! `terrarium gc`: takes away what crashed runtimes left.

use super::Format;
use super::leaks::paragraph;
use crate::Global;
use anyhow::Context;
use std::process::ExitCode;
use terrarium_container::Store;
use terrarium_observatory::leaks::{Places, json_line, residue};

/// Remove what crashed terrarium processes left: containers, cgroups, network interfaces, addresses, rules.
///
/// Containers that run, that have stopped in an orderly way, or that somebody is working on are left alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what is left, and what holds it; nothing is changed
    #[arg(long)]
    dry_run: bool,
    /// How to print with --dry-run; as JSON a finding a line
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", requires = "dry_run")]
    format: Format,
}

fn dry_run(format: Format, global: &Global) -> anyhow::Result<ExitCode> {
    let root = std::path::absolute(&global.root).context("find state folder")?;
    let findings = residue::all(&Places::live(&root))?;
    let lines: Vec<String> = match format {
        Format::Table => findings.iter().map(paragraph).collect(),
        Format::Json => findings.iter().map(json_line).collect(),
    };
    if !lines.is_empty() {
        super::print(&lines.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    if args.dry_run {
        return dry_run(args.format, global);
    }
    let report = terrarium_container::gc(&Store::open(&global.root)?)?;
    for id in &report.removed {
        println!("removed container {id}");
    }
    for what in &report.other {
        println!("removed {what}");
    }
    for error in &report.errors {
        eprintln!("terrarium: {error}");
    }
    Ok(if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
