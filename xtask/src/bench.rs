//! `cargo xtask bench`: what a container costs, as a ratio to what it costs with the peers, in the same run.
//!
//! The contenders take turns, in an order that is reversed every other round, so that what disturbs the machine
//! disturbs them alike. Commands are started and timed by `bench/measure.c`.

mod contender;
mod hot;
mod leaks;
mod observatory;
mod running;
mod scenario;
mod scrape;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use contender::{Contender, Place};
use scenario::{EXITS, SCENARIOS, Scenario};

use crate::progress::Progress;
use crate::setup::{self, Needs};
use crate::workspace::{Workspace, host_triple};
use crate::{build, shell};

/// Measure terrarium against crun, runc, youki and the floor, those that are installed.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure: runtime; observatory: what being observed costs; scrape: what an answer of /metrics costs; leaks: what a look
    /// at all containers takes; hot: which functions a start executes, for the linker.
    #[arg(value_parser = ["runtime", "observatory", "scrape", "leaks", "hot"], default_value = "runtime")]
    what: String,
    /// How often each contender runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Only scenarios whose name contains one of these.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Write the table into docs/PERFORMANCE.md.
    #[arg(long)]
    write: bool,
    /// Install missing tools without asking.
    #[arg(long, short)]
    yes: bool,
}

/// What one contender cost in one scenario.
#[derive(Debug, Default)]
struct Series {
    /// Wall time of each round, in microseconds.
    times: Vec<u64>,
    /// Largest resident set of any round, in KiB.
    peak: u64,
}

impl Series {
    /// The value below which `part` of a hundred lie.
    fn percentile(&self, part: usize) -> u64 {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * part / 100).copied().unwrap_or_default()
    }
}

/// Measures, and prints one table.
pub fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("containers with cgroups are made by root: sudo cargo xtask bench");
    }
    if args.what == "leaks" {
        setup::ensure(&[Needs::Build], args.yes)?;
        return leaks::run(args.write);
    }
    if args.what == "hot" {
        setup::ensure(&[Needs::Build], args.yes)?;
        return hot::run(args.write);
    }
    if args.what == "scrape" {
        setup::ensure(&[Needs::Build], args.yes)?;
        return scrape::run(args.write);
    }
    if args.what == "observatory" {
        setup::ensure(&[Needs::Build, Needs::Peers], args.yes)?;
        return observatory::run(args.rounds, args.write);
    }
    setup::ensure(&[Needs::Build, Needs::Peers], args.yes)?;
    let workspace = Workspace::find()?;
    let terrarium = build::static_programs(&workspace, true)?;
    let place = Place::make(&workspace, terrarium)?;
    // The bridge and its rules are those of a network namespace that goes with this process.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("make a network namespace for the benchmark")?;
    let _parents = contender::Parents::make()?;
    let contenders = contender::present();
    let mut table = String::from(HEAD);
    for scenario in SCENARIOS {
        if !args.only.is_empty() && !args.only.iter().any(|text| scenario.name.contains(text)) {
            continue;
        }
        shell::note(&format!("{}: {} rounds", scenario.name, scenario.rounds(args.rounds)));
        let results = measure(&place, scenario, &contenders, scenario.rounds(args.rounds))?;
        table.push_str(&rows(scenario, &contenders, &results));
    }
    if args.only.is_empty() || args.only.iter().any(|text| EXITS.name.contains(text)) {
        shell::note(&format!("{}: {EXIT_RUNS} runs", EXITS.name));
        table.push_str(&exits(&place)?);
    }
    print!("{table}");
    if args.write {
        write(&workspace.root.join("docs/PERFORMANCE.md"), &table)?;
    }
    Ok(())
}

/// How often terrarium runs a program that exits at once, to see whether it ever misses that.
const EXIT_RUNS: u32 = 1000;

/// Runs [`EXITS`] until there were [`EXIT_RUNS`]; an error where one does not end.
fn exits(place: &Place) -> Result<String> {
    let terrarium = &contender::RUNTIME;
    let progress = Progress::new("exits", u64::from(EXIT_RUNS / EXITS.containers));
    for round in 0..EXIT_RUNS / EXITS.containers {
        // A minute for what takes a second.
        once(place, &EXITS, terrarium, round).context("one of them hung, or failed")?;
        progress.step();
    }
    Ok(format!("\nOf {EXIT_RUNS} runs of a program that exits at once none hung.\n"))
}

const HEAD: &str = "| scenario | contender | median ms | p95 ms | to crun | to runc | to the floor | peak KiB |\n\
                    |---|---|--:|--:|--:|--:|--:|--:|\n";

type Results = BTreeMap<&'static str, Series>;

fn measure(
    place: &Place,
    scenario: &Scenario,
    contenders: &[&'static Contender],
    rounds: u32,
) -> Result<Results> {
    let _bridge = scenario.wants_bridge().then(|| place.keep_bridge()).transpose()?;
    let mut results = Results::new();
    let mut order: Vec<_> =
        contenders.iter().filter(|contender| scenario.takes(contender)).collect();
    // One that is not counted: files come into memory, folders are made.
    let progress = Progress::new(scenario.name, u64::from(rounds) + 1);
    for round in 0..=rounds {
        let mut failed = Vec::new();
        for contender in &order {
            std::thread::sleep(Duration::from_millis(scenario.idle_ms));
            let (time, peak) = match once(place, scenario, contender, round) {
                Ok(measured) => measured,
                // A peer that fails, or hangs, is no reason to lose what was measured of the others. It may have been built
                // without what this host needs, as youki without cgroup v1.
                Err(error) if !contender.name.starts_with("terrarium") => {
                    let on = scenario.name;
                    shell::note(&format!("{} is left out of {on}: {error:#}", contender.name));
                    failed.push(contender.name);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if round > 0 {
                let series = results.entry(contender.name).or_default();
                series.times.push(time);
                series.peak = series.peak.max(peak);
            }
        }
        order.retain(|contender| !failed.contains(&contender.name));
        results.retain(|name, _| !failed.contains(name));
        order.reverse();
        progress.step();
    }
    Ok(results)
}

/// Wall time in microseconds and peak resident set in KiB of one round.
fn once(
    place: &Place,
    scenario: &Scenario,
    contender: &Contender,
    round: u32,
) -> Result<(u64, u64)> {
    let mut command = Command::new(&place.measure);
    command.args(contender.covers_unified.then_some("-c"));
    command.args(scenario.at_once.then_some("-p"));
    command.args(["-t", "60"]);
    command.args(scenario.commands(place, contender, round));
    let said = shell::output(&mut command)
        .with_context(|| format!("{} with {}", scenario.name, contender.name))?;
    let last = said.lines().last().unwrap_or_default();
    let (time, peak) = last.split_once(' ').context("read what measure printed")?;
    Ok((time.parse()?, peak.parse()?))
}

fn rows(scenario: &Scenario, contenders: &[&'static Contender], results: &Results) -> String {
    let mut text = String::new();
    let median = |name: &str| results.get(name).map(|series| series.percentile(50));
    for contender in contenders {
        let Some(series) = results.get(contender.name) else { continue };
        let ratio = |to: &str| {
            median(to).filter(|_| to != contender.name).map_or("–".to_owned(), |other| {
                format!("{:.2}", as_float(series.percentile(50)) / as_float(other))
            })
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {} | {} | {} | {} |",
            scenario.name,
            contender.name,
            as_float(series.percentile(50)) / 1000.0,
            as_float(series.percentile(95)) / 1000.0,
            ratio("crun"),
            ratio("runc"),
            ratio("floor"),
            series.peak,
        );
    }
    text
}

/// Microseconds and KiB are far below what an f64 holds exactly.
#[expect(clippy::cast_precision_loss, reason = "the numbers are below 2^52")]
fn as_float(number: u64) -> f64 {
    number as f64
}

/// Puts the table between its two marks.
fn write(page: &Path, table: &str) -> Result<()> {
    write_between(page, "runtime", &format!("{}\n\n{table}", machine(&host_triple())))
}

/// Puts `text` between the mark `<!-- bench NAME -->` and the `<!-- end -->` that follows.
fn write_between(page: &Path, name: &str, text: &str) -> Result<()> {
    const LAST: &str = "<!-- end -->\n";
    let first = format!("<!-- bench {name} -->\n");
    let old = std::fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let (before, rest) = old.split_once(&first).context("find the table's first mark")?;
    let (_, after) = rest.split_once(LAST).context("find the table's last mark")?;
    let new = format!("{before}{first}\n{text}\n{LAST}{after}");
    std::fs::write(page, new).with_context(|| format!("write {}", page.display()))
}

/// What a reader needs to know of the machine that the numbers are of.
fn machine(triple: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let cgroups = if unified { "cgroup v2" } else { "cgroup v1 or hybrid" };
    format!("{triple}, Linux {}, {cpus} CPUs, {cgroups}.", release.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_ratios() {
        let of = |times: &[u64]| Series { times: times.to_vec(), peak: 1 };
        let results = Results::from([("terrarium", of(&[5, 1, 2])), ("crun", of(&[8, 4, 4]))]);
        let contenders: Vec<_> = contender::ALL.iter().collect();
        let text = rows(&SCENARIOS[0], &contenders, &results);
        assert!(text.contains("| terrarium | 0.00 | 0.01 | 0.50 | – |"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }
}
