//! `terrarium observe`: attaches the probes and serves metrics and events until it is told to stop.

use crate::Global;
use crate::exit::WithCode;
use anyhow::anyhow;
use clap::Args;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use terrarium_observatory::event::store::Keep;
use terrarium_observatory::metrics::Shown;
use terrarium_observatory::observe::{self, Options};
use terrarium_observatory::privileges;
use terrarium_observatory::probe::plan::{probe_by_name, probe_name};
use terrarium_observatory::probe::{
    Choice, HookReport, Mechanism, NO_TYPES, Probe, Settings, Watch,
};

/// The names of all probes.
pub const PROBES: [&str; 6] = ["task", "namespace", "mount", "memory", "cgroup", "guard"];

/// Watch containers and serve metrics and events
#[derive(Debug, Args)]
pub struct Observe {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9750")]
    listen: SocketAddr,
    /// File that says who may ask, by TLS and by name and password, in the form of Prometheus' exporters
    #[arg(long, value_name = "FILE")]
    web_config: Option<PathBuf>,
    /// Folder that holds the state of containers
    #[arg(long = "root", id = "observe_root", value_name = "DIR")]
    root: Option<PathBuf>,
    /// Probes to attach: task, namespace, mount, memory, cgroup, guard; or single hooks of one, as guard.ptrace
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = PROBES)]
    probes: Vec<String>,
    /// Ways to attach that are allowed, of those that doctor names; else the best one that works
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    attach: Vec<String>,
    /// Probes whose events are written; the others only count
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = PROBES)]
    events: Vec<String>,
    /// Only count, write no events
    #[arg(long)]
    no_events: bool,
    /// Events that one cgroup may write in a second; 0 sets no limit
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    event_rate: u32,
    /// Tell the arguments of programs, which can hold secrets
    #[arg(long)]
    argv: bool,
    /// Have the kernel count how often the probes run and how long that takes, which makes each run a little slower
    #[arg(long)]
    probe_stats: bool,
    /// What to count and report: all, or a list of terrarium and paths of cgroups
    #[arg(long, value_name = "LIST", default_value = "all")]
    watch: Watch,
    /// Tell the log of the eBPF programs themselves on stderr
    #[arg(long)]
    ebpf_log: bool,
    /// How long the series of a removed container stay, as 90s, 5m or 1h
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    grace: Duration,
    /// Show what containers use, under cAdvisor's names; that is the default
    #[arg(long, overrides_with = "no_cadvisor_names")]
    cadvisor_names: bool,
    /// Leave that out
    #[arg(long, overrides_with = "cadvisor_names")]
    no_cadvisor_names: bool,
    /// Labels of containers to show with what is known of them, prefixed by `label_`
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    label_allow: Vec<String>,
    /// The most series about containers in one answer; 0 is no bound
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    max_series: usize,
    /// Folder in which the last events of every container are kept, where `terrarium events` finds them
    #[arg(long, value_name = "DIR", conflicts_with = "no_history")]
    history: Option<PathBuf>,
    /// Keep no events on disk
    #[arg(long)]
    no_history: bool,
    /// How long the events of a container that is gone are kept
    #[arg(long, value_name = "TIME", default_value = "168h", value_parser = duration)]
    history_age: Duration,
    /// How much is kept in all, MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    history_size: u64,
    /// File to write events to as JSON lines, `-` for stdout
    #[arg(long, value_name = "FILE")]
    events_file: Option<PathBuf>,
    /// Size at which that file is renamed to FILE.1, MiB
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    events_file_max: u64,
    /// `OpenTelemetry` collector to send events to, by OTLP over HTTP
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
}

/// What an observatory without a probe can tell.
pub const REMAINS: &str = "names, usage and limits of containers, and findings about their state; no events, and no counts of probes";

/// Where events are kept unless told otherwise.
pub const HISTORY: &str = "/var/lib/terrarium/history";

/// Runs the command.
pub fn run(args: Observe, global: &Global) -> anyhow::Result<ExitCode> {
    super::logging::start();
    let settings = Settings {
        probes: probes(&args.probes)?,
        mechanisms: mechanisms(&args.attach)?,
        events: if args.no_events { Vec::new() } else { event_probes(&args.events)? },
        event_rate: args.event_rate,
        argv: args.argv,
        run_stats: args.probe_stats,
        watch: args.watch,
        log: args.ebpf_log,
        bare: true,
        ..Settings::default()
    };
    let root = args.root.unwrap_or_else(|| global.root.clone());
    // One folder belongs to one observatory: another root has none unless told.
    let usual = (root == Path::new("/run/terrarium") && !args.no_history).then(|| HISTORY.into());
    let keep = Keep { age: args.history_age, bytes: args.history_size << 20 };
    let options = Options {
        listen: args.listen,
        root,
        events_file: args.events_file.map(|file| (file, args.events_file_max << 20)),
        collector: args.otlp,
        web_config: args.web_config,
        drop_capabilities: true,
        history: args.history.or(usual).map(|folder| (folder, keep)),
        settings,
        grace: args.grace,
        shown: Shown {
            cadvisor_names: args.cadvisor_names || !args.no_cadvisor_names,
            labels: args.label_allow,
            max_series: args.max_series,
        },
    };
    observe::run(&options, started)?;
    Ok(ExitCode::SUCCESS)
}

/// The probes and hooks with these names.
pub fn probes(names: &[String]) -> anyhow::Result<Vec<Choice>> {
    let choice = |name: &String| {
        name.parse().map_err(|e| WithCode::error(2, anyhow!("--probes {name}: {e}")))
    };
    names.iter().map(choice).collect()
}

/// The probes with these names, whose events are written.
fn event_probes(names: &[String]) -> anyhow::Result<Vec<Probe>> {
    let probe = |name: &String| {
        probe_by_name(name).map_err(|e| WithCode::error(2, anyhow!("--events {name}: {e}")))
    };
    names.iter().map(probe).collect()
}

/// The ways to attach with these names.
pub fn mechanisms(names: &[String]) -> anyhow::Result<Vec<Mechanism>> {
    let mechanism = |name: &String| {
        name.parse().map_err(|e| WithCode::error(2, anyhow!("--attach {name}: {e}")))
    };
    names.iter().map(mechanism).collect()
}

/// Tells what could not be attached, then, as the last line, where to look.
fn started(url: &str, reports: &[HookReport]) {
    let is_bare = |report: &HookReport| report.attempts.iter().any(|one| one.reason == NO_TYPES);
    if reports.iter().any(is_bare) {
        eprintln!("terrarium: no probe is attached: {NO_TYPES}; what remains: {REMAINS}");
    }
    for report in reports.iter().filter(|one| one.mechanism.is_none() && !is_bare(one)) {
        let reason = report.attempts.last().map_or("no way is allowed", |a| a.reason.as_str());
        eprintln!(
            "terrarium: {} of probe {} is not attached: {reason}",
            report.hook.name,
            probe_name(report.hook.probe)
        );
    }
    if reports.iter().any(|report| report.mechanism == Some(Mechanism::Tracepoint)) {
        eprintln!(
            "terrarium: system call tracepoints are in use; they slow every system call of the host a little \
             (see `terrarium doctor`)"
        );
    }
    let kept: Vec<String> =
        privileges::kept().iter().map(|(name, why)| format!("{name} ({why})")).collect();
    eprintln!("terrarium: keeps of its capabilities {}", kept.join(", "));
    let mut out = std::io::stdout();
    // Whoever waits for this line may have gone; that is no reason to stop observing.
    let _ = writeln!(out, "listening on {url}");
    let _ = out.flush();
}

/// A duration as `90s`, `5m`, `1h`; plain numbers are seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let number: u64 = number.parse().map_err(|_| "not a time such as 90s, 5m or 1h".to_owned())?;
    let seconds = match unit {
        "h" => number.checked_mul(3600),
        "m" => number.checked_mul(60),
        _ => Some(number),
    };
    seconds.map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [("90s", 90), ("5m", 300), ("1h", 3600), ("7", 7), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(expected)), "{text}");
        }
        for text in ["", "m", "5d", "-1s", "99999999999999999999h", "5124095576030432h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
