//! `cargo xtask`: everything one does with the repository, by one entry.
//!
//! Continuous integration calls nothing else. A command is one file with its arguments and a
//! `run`; it prints each program it starts, and when one fails, the line that repeats it.

mod bench;
mod build;
mod demo;
mod dist;
mod fuzz;
mod kernels;
mod leftovers;
mod lint;
mod qemu;
mod screenshots;
mod setup;
mod shell;
mod test;
mod workspace;

#[expect(dead_code, reason = "shared with the build script, which is the one that builds")]
#[path = "../../runtime/observatory/build/ebpf_toolchain.rs"]
mod ebpf_toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, build, demo, test, kernels, bench and lint of terrarium.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Build(build::Args),
    Demo(demo::Args),
    Test(test::Args),
    Kernels(kernels::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Lint(lint::Args),
    Screenshots(screenshots::Args),
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Screenshots(args) => screenshots::run(&args),
        Command::Dist(args) => dist::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
