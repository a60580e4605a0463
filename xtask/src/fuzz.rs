//! `cargo xtask fuzz`: libFuzzer against what terrarium reads, for a bounded time.
//!
//! The targets of `tests/fuzz` are as cargo-fuzz wants them; here they are built with the same flags, by the one stable
//! compiler and without a sanitizer, for there is little unsafe code in what they run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::workspace::{Workspace, host_triple};

/// Coverage for libFuzzer, as cargo-fuzz asks for it.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The targets.
const TARGETS: [&str; 5] = ["config", "state", "lease", "network", "text"];

/// Feed what terrarium reads (config.json, state, leases, networks, options) with what breaks it.
#[derive(clap::Args)]
pub struct Args {
    /// The targets: config, state, lease, network, text; all if none is given.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u32,
}

/// Builds the targets and runs one after the other.
pub fn run(args: &Args) -> Result<()> {
    if let Some(unknown) = args.targets.iter().find(|name| !TARGETS.contains(&name.as_str())) {
        bail!("no target {unknown:?}; there are {}", TARGETS.join(", "));
    }
    if shell::program("c++").is_none() {
        bail!("libFuzzer is C++: install a C++ compiler (Debian's package g++)");
    }
    let workspace = Workspace::find()?;
    let folder = workspace.target.join("fuzz");
    let mut cargo = workspace.cargo();
    // With --target the flags are not those of build scripts.
    cargo.env("RUSTFLAGS", FLAGS).args(["build", "--release", "--target", &host_triple()]);
    cargo.args(["--manifest-path", "tests/fuzz/Cargo.toml", "--target-dir"]).arg(&folder);
    shell::run(&mut cargo)?;
    let mut failed = Vec::new();
    for target in TARGETS {
        if !args.targets.is_empty() && !args.targets.iter().any(|name| name == target) {
            continue;
        }
        let binary = folder.join(host_triple()).join("release").join(target);
        let seeds = workspace.root.join("tests/fuzz/seeds").join(target);
        match fuzz(&binary, &seeds, &folder, target, args.seconds) {
            Ok(summary) => println!("{target}: {summary}"),
            Err(error) => {
                println!("{target}: {error:#}");
                failed.push(target);
            }
        }
    }
    if !failed.is_empty() {
        bail!("found something in: {}", failed.join(", "));
    }
    Ok(())
}

fn fuzz(binary: &Path, seeds: &Path, folder: &Path, target: &str, seconds: u32) -> Result<String> {
    let sub = |name: &str| -> Result<PathBuf> {
        let path = folder.join(name).join(target);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    };
    // What was learnt in earlier runs is kept.
    let (corpus, found) = (sub("corpus")?, sub("found")?);
    let log = folder.join(format!("{target}.log"));
    let output = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let mut command = Command::new(binary);
    command.arg(&corpus).arg(seeds);
    command.arg(format!("-max_total_time={seconds}"));
    command.args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=16384", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}/", found.display()));
    shell::announce(&command);
    command.stdout(output.try_clone().context("duplicate the log")?).stderr(output);
    let start = Instant::now();
    let status = command.status().with_context(|| format!("start {}", binary.display()))?;
    let text = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    if !status.success() {
        bail!(
            "{}; the input is in {}; libFuzzer said in {}: {}",
            panic_of(&text).unwrap_or("it failed"),
            found.display(),
            log.display(),
            status
        );
    }
    let runs = runs_of(&text).context("libFuzzer did not say how often it ran")?;
    Ok(format!("{runs} inputs in {:.0} s, none broke it", start.elapsed().as_secs_f64()))
}

/// The line after the one that says where a thread panicked.
fn panic_of(log: &str) -> Option<&str> {
    let mut lines = log.lines();
    lines.find(|line| line.contains("panicked at"))?;
    lines.next()
}

fn runs_of(log: &str) -> Option<u64> {
    let line = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libfuzzers_words_are_read() {
        let log = "#2 INITED\nthread '<unnamed>' panicked at src/a.rs:1:2:\nindex out of bounds\n\
                   stat::number_of_executed_units: 1234\n";
        assert_eq!(panic_of(log), Some("index out of bounds"));
        assert_eq!(runs_of(log), Some(1234));
        assert_eq!((panic_of(""), runs_of("")), (None, None));
    }
}
