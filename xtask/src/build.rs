//! `cargo xtask build`: the terrarium binary, for this machine or static for any.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::setup::{self, Needs};
use crate::shell;
use crate::workspace::{Workspace, host_triple};

/// Build the terrarium binary with its eBPF programs inside.
#[derive(clap::Args)]
pub struct Args {
    /// Optimise.
    #[arg(long)]
    release: bool,
    /// Link the C library in, so that the binary runs in any root filesystem.
    #[arg(long = "static")]
    static_: bool,
    /// Install missing tools without asking.
    #[arg(long, short)]
    yes: bool,
}

/// Builds and says where the programs are.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Needs::Build], args.yes)?;
    let workspace = Workspace::find()?;
    let binary = if args.static_ {
        static_programs(&workspace, args.release)?.whole
    } else {
        binary(&workspace, args.release)?
    };
    println!("{}", binary.display());
    println!("{}", binary.with_file_name("terrarium-runtime").display());
    Ok(())
}

/// The programs, which lie side by side.
#[derive(Debug)]
pub struct Programs {
    /// `terrarium`
    pub whole: PathBuf,
    /// `terrarium-runtime`
    pub runtime: PathBuf,
}

/// The terrarium binary for this machine, with terrarium-runtime beside it.
pub fn binary(workspace: &Workspace, release: bool) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package", "terrarium"]);
    cargo.args(release.then_some("--release"));
    shell::run(&mut cargo)?;
    Ok(workspace.target.join(profile(release)).join("terrarium"))
}

/// A binary of the workspace with the C library linked in.
///
/// Its target folder is one of its own, so that its compiler flags and those of the usual build do
/// not throw each other's products away. Without debug information: it is copied into root
/// filesystems that live in memory.
pub fn static_binary(
    workspace: &Workspace,
    package: &str,
    bin: &str,
    release: bool,
) -> Result<PathBuf> {
    let mut cargo = static_cargo(workspace, "build");
    cargo.args(["--package", package, "--bin", bin]);
    cargo.args(release.then_some("--release"));
    shell::run(&mut cargo)?;
    Ok(static_folder(workspace).join(host_triple()).join(profile(release)).join(bin))
}

/// The programs with the C library linked in. Optimised, they are as they are meant to be installed: without a dynamic
/// linker and without relocations, for a runtime is executed, twice, for every container.
pub fn static_programs(workspace: &Workspace, release: bool) -> Result<Programs> {
    let whole = static_binary(workspace, "terrarium", "terrarium", release)?;
    let runtime = static_binary(workspace, "terrarium", "terrarium-runtime", release)?;
    Ok(Programs { whole, runtime })
}

/// Position-independent code would be relocated at each start: 300 KB of pointers. Names of version 0 tell the instances of a
/// generic function apart, so that of each only those are laid out first that a start executes (`bench hot`).
const STATIC_FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static \
                            -C symbol-mangling-version=v0 -C strip=debuginfo";

/// A cargo command that compiles statically.
pub fn static_cargo(workspace: &Workspace, subcommand: &str) -> std::process::Command {
    let mut cargo = workspace.cargo();
    cargo.env("RUSTFLAGS", STATIC_FLAGS);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    // Emulated guests run these programs; without any optimisation they take three times as long.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    cargo.arg(subcommand).args(["--target", &host_triple(), "--target-dir"]);
    cargo.arg(static_folder(workspace));
    cargo
}

/// An integration test of the workspace with the C library linked in: the executable's path.
pub fn static_test(workspace: &Workspace, package: &str, test: &str) -> Result<PathBuf> {
    let mut cargo = static_cargo(workspace, "test");
    cargo.args(["--package", package, "--test", test, "--no-run"]);
    shell::run(&mut cargo)?;
    // Only cargo knows the hash in the name; the second call compiles nothing.
    cargo.args(["--message-format", "json"]);
    let messages = shell::output(&mut cargo)?;
    executable_of(&messages, test)
        .with_context(|| format!("cargo named no executable for the test {test}"))
}

/// The last `executable` of a target with this name among cargo's messages.
fn executable_of(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

fn static_folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("static")
}

fn profile(release: bool) -> &'static str {
    if release { "release" } else { "debug" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_a_test_is_told_from_its_librarys() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"a"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"t"},"executable":"/x/t-1"}
            not json
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable_of(messages, "t"), Some(PathBuf::from("/x/t-1")));
        assert_eq!(executable_of(messages, "a"), None);
    }
}
