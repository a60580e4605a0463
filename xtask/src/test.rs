//! `cargo xtask test`: unit tests, end-to-end tests, the guests, and a look at what is left behind.
//!
//! The last line is `N passed, N failed, N skipped`; before it stands what was skipped and why.

use std::fs;
use std::io::{BufRead, BufReader};

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::dist;
use crate::kernels;
use crate::leftovers::Leftovers;
use crate::setup::{self, Needs};
use crate::shell;
use crate::workspace::Workspace;

/// Run the unit tests, the end-to-end tests and the guests.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// Take the machine as it is.
    #[arg(long)]
    no_setup: bool,
    /// A skipped test is a failed one.
    #[arg(long)]
    no_skips: bool,
    /// Boot no other kernel.
    #[arg(long)]
    no_kernels: bool,
    /// Install missing tools without asking.
    #[arg(long, short)]
    yes: bool,
    /// Only tests whose name contains one of these; boots no other kernel.
    filters: Vec<String>,
}

/// What all runners together counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs everything to its end, then says how it went.
pub fn run(args: &Args) -> Result<()> {
    if !args.no_setup {
        setup::ensure(&[Needs::Build, Needs::Run, Needs::Peers, Needs::Machine], args.yes)?;
    }
    let workspace = Workspace::find()?;
    let mut programs = vec![
        ("TERRARIUM_BIN", build::binary(&workspace, false)?),
        (
            "TERRARIUM_WORKLOAD",
            build::static_binary(&workspace, "terrarium-tests", "terrarium-workload", false)?,
        ),
    ];
    let wanted = |word: &str| {
        args.filters.is_empty() || args.filters.iter().any(|filter| filter.contains(word))
    };
    if wanted("package") || wanted("compose") {
        programs.extend(packages(&workspace)?);
    }
    if wanted("compose") {
        let program = podman_compose(&workspace);
        programs.extend(program.map(|program| ("TERRARIUM_PODMAN_COMPOSE", program)));
    }
    if wanted("systemd") {
        let booted = dist::booted(&workspace)
            .inspect_err(|error| shell::note(&format!("no Debian for systemd: {error:#}")));
        programs.extend(booted.map(|root| ("TERRARIUM_DIST_BOOTED", root)));
    }
    if wanted("dashboards") {
        programs.extend(grafana_schema(&workspace).map(|folder| ("TERRARIUM_GRAFANA", folder)));
    }
    let skips = tempfile::NamedTempFile::new().context("create the file for skipped tests")?;
    let prepare = |cargo: &mut Command| {
        cargo.env("TERRARIUM_SKIP_LOG", skips.path()).envs(programs.iter().cloned());
        if args.no_skips {
            cargo.env("TERRARIUM_NO_SKIP", "1");
        }
    };

    let before = Leftovers::now(&workspace.target);
    let mut count = if shell::program("cargo-nextest").is_some() {
        nextest(&workspace, &args.filters, prepare)?
    } else {
        harness(&workspace, &["--tests", "--bins", "--lib"], &args.filters, prepare)?
    };
    // nextest does not run the examples in the documentation.
    count += harness(&workspace, &["--doc"], &args.filters, prepare)?;
    let mut problems = Vec::new();
    if let Err(error) = before.compare(&workspace.target) {
        problems.push(format!("failed  leftovers: {error:#}"));
    }

    let mut skipped: Vec<String> = fs::read_to_string(skips.path())
        .context("read the file of skipped tests")?
        .lines()
        .map(|line| format!("skipped {}", line.replacen('\t', ": ", 1)))
        .collect();
    if !args.no_skips {
        // A test that skips itself passes in the eyes of its runner.
        count.passed = count.passed.saturating_sub(skipped.len());
    }
    guests(args, &workspace, &mut count, &mut problems, &mut skipped);

    count.failed += problems.len();
    conclude(&workspace, args, &count, &problems, &skipped)
}

/// The packages of npm that describe Grafana's dashboards, and the compiler that reads them.
const GRAFANA: [&str; 2] = ["@grafana/schema@13.2.3", "typescript@5.9.3"];

/// A folder in which they are installed, where this machine has npm.
fn grafana_schema(workspace: &Workspace) -> Option<PathBuf> {
    let npm = shell::program("npm")?;
    installed(workspace, "grafana", &GRAFANA, |folder| {
        let mut command = Command::new(npm);
        command.args(["install", "--no-save", "--no-package-lock", "--ignore-scripts"]);
        command.args(["--no-audit", "--no-fund", "--prefix"]).arg(folder).args(GRAFANA);
        shell::run(&mut command)
    })
}

/// A folder in which these packages were installed by `install`, once. Tests that want one say that they skipped where a
/// registry does not answer.
fn installed(
    workspace: &Workspace,
    name: &str,
    packages: &[&str],
    install: impl FnOnce(&Path) -> Result<()>,
) -> Option<PathBuf> {
    let ready = || {
        let folder = workspace.cache(name)?;
        let stamp = folder.join("installed");
        let wanted = packages.join(" ");
        if !fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
            install(&folder)?;
            fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))?;
        }
        Ok::<_, anyhow::Error>(folder)
    };
    ready().inspect_err(|error| shell::note(&format!("no {name} for the tests: {error:#}"))).ok()
}

/// The Python package that reads compose files for Podman: Debian's knows neither host networks nor volumes' options.
const PODMAN_COMPOSE: &str = "podman-compose==1.6.0";

/// It, in a virtual environment, where this machine has Python.
fn podman_compose(workspace: &Workspace) -> Option<PathBuf> {
    let python = shell::program("python3")?;
    let folder = installed(workspace, "podman-compose", &[PODMAN_COMPOSE], |folder| {
        shell::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        shell::run(pip.args(["install", "--quiet", "--disable-pip-version-check", PODMAN_COMPOSE]))
    })?;
    Some(folder.join("bin/podman-compose"))
}

/// What the tests of the packages look at, where this machine can make it.
fn packages(workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    if shell::program("mmdebstrap").is_none() {
        return Ok(Vec::new());
    }
    let dist = dist::make(workspace, true)?;
    let debians =
        dist::clean_debian(workspace).and_then(|clean| Ok((clean, dist::workshop(workspace)?)));
    let (debian, workshop) = match debians {
        Ok(roots) => roots,
        Err(error) => {
            // A mirror that does not answer is no fault of the packages'; the tests say that they skipped.
            shell::note(&format!("no Debian to install in: {error:#}"));
            return Ok(Vec::new());
        }
    };
    let mut found = vec![
        ("TERRARIUM_DIST_TARBALL", dist.tarball),
        ("TERRARIUM_DIST_IMAGE", dist.image),
        ("TERRARIUM_DIST_DEBIAN", debian),
        ("TERRARIUM_DIST_WORKSHOP", workshop),
    ];
    found.extend(dist.deb.map(|deb| ("TERRARIUM_DIST_DEB", deb)));
    Ok(found)
}

/// The other kernels, as far as this run boots them. A guest that does not boot is one failure.
fn guests(
    args: &Args,
    workspace: &Workspace,
    count: &mut Count,
    problems: &mut Vec<String>,
    skipped: &mut Vec<String>,
) {
    if args.no_kernels || !args.filters.is_empty() {
        return;
    }
    match kernels::run_default(workspace) {
        Ok(tally) => {
            count.passed += tally.passed;
            problems.extend(tally.failed);
            skipped.extend(tally.skipped);
        }
        Err(error) => problems.push(format!("failed  kernels: {error:#}")),
    }
}

fn conclude(
    workspace: &Workspace,
    args: &Args,
    count: &Count,
    problems: &[String],
    skipped: &[String],
) -> Result<()> {
    println!();
    for line in skipped.iter().chain(problems) {
        println!("{line}");
    }
    let skips = if args.no_skips { 0 } else { skipped.len() };
    let summary = format!("{} passed, {} failed, {skips} skipped", count.passed, count.failed);
    let file = workspace.cache("test")?.join("summary");
    fs::write(&file, format!("{summary}\n"))
        .with_context(|| format!("write {}", file.display()))?;
    println!("{summary}");
    if count.failed > 0 {
        let words = if args.filters.is_empty() {
            "to repeat one: cargo xtask test NAME".to_owned()
        } else {
            format!("to repeat them: cargo xtask test {}", args.filters.join(" "))
        };
        bail!("{} failed; {words}", count.failed);
    }
    if count.passed == 0 {
        bail!("no test was run");
    }
    Ok(())
}

fn nextest(
    workspace: &Workspace,
    filters: &[String],
    prepare: impl Fn(&mut Command),
) -> Result<Count> {
    let report = workspace.target.join("nextest/default/junit.xml");
    // A report of an earlier run must not speak for this one.
    let _ = fs::remove_file(&report);
    let mut cargo = workspace.cargo();
    cargo.args(["nextest", "run", "--no-tests", "pass"]).args(filters);
    prepare(&mut cargo);
    let outcome = shell::run(&mut cargo);
    match (fs::read_to_string(&report), outcome) {
        (Ok(text), outcome) => {
            let count = junit_count(&text)
                .with_context(|| format!("{} is not a JUnit report", report.display()))?;
            match outcome {
                Err(error) if count.failed == 0 => Err(error),
                _ => Ok(count),
            }
        }
        (Err(_), Err(error)) => Err(error),
        (Err(_), Ok(())) => Ok(Count::default()),
    }
}

/// The numbers in the attributes of the root element.
fn junit_count(report: &str) -> Option<Count> {
    let root = report.split_once("<testsuites ")?.1.split_once('>')?.0;
    let number = |name: &str| -> Option<usize> {
        root.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0.parse().ok()
    };
    let failed = number("failures")? + number("errors")?;
    Some(Count { passed: number("tests")?.checked_sub(failed)?, failed })
}

/// Rust's own test harness, shown as it runs and counted.
fn harness(
    workspace: &Workspace,
    kinds: &[&str],
    filters: &[String],
    prepare: impl Fn(&mut Command),
) -> Result<Count> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--no-fail-fast"]).args(kinds).arg("--").args(filters);
    prepare(&mut cargo);
    shell::announce(&cargo);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{}`", shell::line(&cargo)))?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut count = Count::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read what the tests print")?;
        println!("{line}");
        count += harness_count(&line).unwrap_or_default();
    }
    let status = child.wait().context("wait for the tests")?;
    if !status.success() && count.failed == 0 {
        bail!("{status}; to repeat it: {}", shell::line(&cargo));
    }
    Ok(count)
}

/// `test result: ok. 3 passed; 0 failed; …`
fn harness_count(line: &str) -> Option<Count> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |unit: &str| {
        rest.split("; ").find_map(|part| part.strip_suffix(unit)?.trim().parse::<usize>().ok())
    };
    Some(Count { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_counted() {
        let report = "<?xml version=\"1.0\"?>\n<testsuites name=\"nextest-run\" tests=\"15\" \
                      failures=\"2\" errors=\"1\" uuid=\"x\"><testsuite tests=\"9\"/></testsuites>";
        assert_eq!(junit_count(report), Some(Count { passed: 12, failed: 3 }));
        assert_eq!(junit_count("<html>"), None);
        for (line, expected) in [
            (
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
                 finished in 0.01s",
                Some(Count { passed: 3, failed: 0 }),
            ),
            (
                "test result: FAILED. 0 passed; 2 failed; 0 ignored",
                Some(Count { passed: 0, failed: 2 }),
            ),
            ("test a::b ... ok", None),
        ] {
            assert_eq!(harness_count(line), expected, "{line}");
        }
    }
}
