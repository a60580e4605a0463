//! `terrarium stats`: what containers use, for people.

use super::Format;
use super::terminal::harmless;
use crate::Global;
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use terrarium_container::{ContainerId, Error, State, Status, Store};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between the two looks of `--no-stream`: a share of the CPU is one of a time.
const SHORT_INTERVAL: Duration = Duration::from_millis(250);

/// Show what containers use: CPU, memory, network, processes.
///
/// All that run, unless some are named; again every second until it is interrupted. Memory and processes are counted
/// where a container has a limit of them, or the host has cgroup v2.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// How to print; as JSON an array a line, sizes in bytes, CPU in percent of one
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The containers, by id or the beginning of one
    id: Vec<String>,
}

/// What a container has used by one moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    name: String,
    /// Nanoseconds of CPU time.
    cpu: u64,
    memory: Option<u64>,
    memory_limit: Option<u64>,
    pids: Option<u64>,
    /// Bytes received and sent by its interface.
    network: Option<(u64, u64)>,
}

type Samples = BTreeMap<String, Sample>;

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let store = Store::open(&global.root)?;
    let named: Vec<ContainerId> =
        args.id.iter().map(|id| super::named(&store, id)).collect::<anyhow::Result<_>>()?;
    // One that was named must be there, at first.
    for id in &named {
        terrarium_container::stats(&store, id)?;
    }
    let mut before = samples(&store, &named)?;
    loop {
        std::thread::sleep(if args.no_stream { SHORT_INTERVAL } else { INTERVAL });
        let now = samples(&store, &named)?;
        match args.format {
            Format::Json => super::print(&json(&before, &now).to_string())?,
            Format::Table => {
                let clear = if !args.no_stream && std::io::stdout().is_terminal() {
                    "\x1b[H\x1b[2J"
                } else {
                    ""
                };
                super::print(&format!("{clear}{}", table(&before, &now)))?;
            }
        }
        if args.no_stream || !named.is_empty() && now.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

/// What the running ones of `named` have used, or of all; those that have ended meanwhile are left out.
fn samples(store: &Store, named: &[ContainerId]) -> anyhow::Result<Samples> {
    let (states, _) = store.containers()?;
    let wanted = |state: &State| named.is_empty() || named.iter().any(|id| id.as_str() == state.id);
    let mut all = Samples::new();
    for state in states.iter().filter(|state| wanted(state)) {
        if !matches!(state.observed_status(), Status::Running | Status::Paused) {
            continue;
        }
        let id = ContainerId::new(state.id.as_str())?;
        match terrarium_container::stats(store, &id) {
            Ok(told) => {
                all.insert(state.id.clone(), sample(state, &told["data"]));
            }
            Err(Error::NotRunning { .. } | Error::DoesNotExist { .. }) => {}
            Err(error) => return Err(error).context("read what containers use"),
        }
    }
    Ok(all)
}

fn sample(state: &State, data: &Value) -> Sample {
    let memory = &data["memory"]["usage"];
    let bridged = state.network.as_ref().is_some_and(|network| network.mode == "bridge");
    // As the container's namespace has it: /sys/class/net is that of whoever mounted it.
    let interfaces =
        bridged.then(|| std::fs::read_to_string(format!("/proc/{}/net/dev", state.pid)));
    Sample {
        at: Instant::now(),
        name: state.name.clone(),
        cpu: data["cpu"]["usage"]["total"].as_u64().unwrap_or(0),
        memory: memory["usage"].as_u64(),
        // Without a limit v1 tells the largest number of pages, v2 `max`: more than any machine has.
        memory_limit: memory["limit"].as_u64().filter(|limit| *limit < 1 << 60),
        pids: data["pids"]["current"].as_u64(),
        network: interfaces.and_then(Result::ok).map(|text| traffic(&text)),
    }
}

/// Bytes received and sent by all interfaces but `lo`, of /proc/PID/net/dev (`proc_pid_net(5)`).
fn traffic(text: &str) -> (u64, u64) {
    let rows = text.lines().filter_map(|line| line.split_once(':'));
    rows.filter(|(name, _)| name.trim() != "lo").fold((0, 0), |(received, sent), (_, counts)| {
        let mut counts = counts.split_whitespace().map(|count| count.parse().unwrap_or(0));
        // Eight columns of what was received, then what was sent.
        let row: (u64, u64) = (counts.next().unwrap_or(0), counts.nth(7).unwrap_or(0));
        (received.saturating_add(row.0), sent.saturating_add(row.1))
    })
}

/// Percent of one CPU between two looks.
fn cpu_percent(before: Option<&Sample>, now: &Sample) -> f64 {
    let Some(before) = before else { return 0.0 };
    let used = Duration::from_nanos(now.cpu.saturating_sub(before.cpu));
    let passed = now.at.saturating_duration_since(before.at);
    if passed.is_zero() { 0.0 } else { 100.0 * used.as_secs_f64() / passed.as_secs_f64() }
}

fn json(before: &Samples, now: &Samples) -> Value {
    now.iter()
        .map(|(id, sample)| {
            json!({
                "id": id,
                "name": sample.name,
                "cpu_percent": cpu_percent(before.get(id), sample),
                "memory_usage": sample.memory,
                "memory_limit": sample.memory_limit,
                "pids": sample.pids,
                "network_received": sample.network.map(|(received, _)| received),
                "network_sent": sample.network.map(|(_, sent)| sent),
            })
        })
        .collect()
}

fn table(before: &Samples, now: &Samples) -> String {
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), human);
    let mut text = format!(
        "{:<14}  {:<16}  {:>7}  {:>21}  {:>6}  {:>21}  {:>5}",
        "ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "PIDS"
    );
    for (id, sample) in now {
        let memory = format!("{} / {}", size(sample.memory), size(sample.memory_limit));
        let share =
            sample.memory.zip(sample.memory_limit).map_or("-".to_owned(), |(used, limit)| {
                format!("{:.1}%", 100.0 * as_float(used) / as_float(limit.max(1)))
            });
        let network = sample.network.map_or("-".to_owned(), |(received, sent)| {
            format!("{} / {}", human(received), human(sent))
        });
        let pids = sample.pids.map_or("-".to_owned(), |pids| pids.to_string());
        text.push('\n');
        text.push_str(
            format!(
                "{id:<14}  {:<16}  {:>6.1}%  {memory:>21}  {share:>6}  {network:>21}  {pids:>5}",
                harmless(&sample.name),
                cpu_percent(before.get(id), sample),
            )
            .trim_end(),
        );
    }
    text
}

/// A size with a unit, to three digits or so.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = as_float(bytes);
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", UNITS[unit]) }
}

/// For shares and sizes that people read; more digits than an f64 has are not shown.
#[expect(clippy::cast_precision_loss, reason = "it is rounded to one digit behind the point")]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0KiB"),
            (1536, "1.5KiB"),
            (33_554_432, "32.0MiB"),
            (u64::MAX, "16777216.0TiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn traffic_is_that_of_all_interfaces_but_the_loopback() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n    \
                    lo:  10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n  eth0: 500 5 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n eth1:1 1\n";
        assert_eq!(traffic(text), (501, 70));
        assert_eq!(traffic(""), (0, 0));
    }

    #[test]
    fn a_share_of_the_cpu_is_one_of_the_time_between_two_looks() {
        let start = Instant::now();
        let sample = |cpu, after| Sample {
            at: start + after,
            name: "a".into(),
            cpu,
            memory: Some(16 << 20),
            memory_limit: Some(64 << 20),
            pids: None,
            network: None,
        };
        let (first, second) = (sample(0, Duration::ZERO), sample(500_000_000, INTERVAL));
        assert!((cpu_percent(Some(&first), &second) - 50.0).abs() < 1e-9);
        assert!(cpu_percent(None, &second) < 1e-9 && cpu_percent(Some(&second), &second) < 1e-9);
        let before = Samples::from([("id".to_owned(), first)]);
        let now = Samples::from([("id".to_owned(), second)]);
        let text = table(&before, &now);
        let row = text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row, ["id", "a", "50.0%", "16.0MiB", "/", "64.0MiB", "25.0%", "-", "-"]);
        assert_eq!(json(&before, &now)[0]["memory_limit"], 64 << 20);
    }
}
