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
mod progress;
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

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::Parser;
    use clap::error::ErrorKind;

    #[test]
    fn every_task_that_the_pages_name_is_one() {
        let root = crate::workspace::Workspace::find().unwrap().root;
        let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let pages = docs.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
        let mut tried = 0;
        for page in pages.chain(["README.md", "CHANGELOG.md"].map(|name| root.join(name))) {
            let text = std::fs::read_to_string(&page).unwrap();
            for (at, _) in text.match_indices("cargo xtask ") {
                // To the end of the span or of the line, without an explanation, and `a|b` stands for either.
                let command = text[at..].split(['`', '\n', '#', '(', ',', '…']).next().unwrap();
                let command = command.split("  ").next().unwrap().trim_end_matches(" -->");
                let words = command.split_whitespace().skip(2);
                let words = words.map(|word| word.split(['|', ':', ';']).next().unwrap());
                let words: Vec<&str> =
                    words.map(|word| word.trim_matches(['[', ']', '.'])).collect();
                tried += 1;
                let taken = Cli::try_parse_from(["cargo xtask"].iter().chain(&words));
                let error = taken.err().map(|error| (error.kind(), error.to_string()));
                let is_fault = |kind: &ErrorKind| {
                    matches!(kind, ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument)
                };
                assert!(
                    !error.as_ref().is_some_and(|(kind, _)| is_fault(kind)),
                    "{}: {command}: {error:?}",
                    page.display()
                );
            }
        }
        assert!(tried > 20, "{tried} commands");
    }
}
