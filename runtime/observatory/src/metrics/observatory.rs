//! The observatory about itself.

use super::builder::Builder;
use super::family::{Family, counter, gauge, histogram};
use crate::attribution::Outcome;
use crate::leaks::residue::RESIDUE_CHECKS;
use crate::probe::plan::{Mechanism, probe_name};
use crate::shared::Shared;
use foldhash::HashMap;
use std::sync::atomic::Ordering;
use terrarium_abi::Probe;

const BUILD_INFO: Family = gauge("terrarium_build_info", "The program's version; always 1.")
    .with(&["version", "revision"]);
const PROBE_ATTACHED: Family =
    gauge("terrarium_probe_attached", "1 when a probe is attached by this mechanism, else 0.")
        .with(&["probe", "mechanism"]);
const PRODUCED: Family =
    counter("terrarium_events_produced_total", "Event records that a probe wanted to write.")
        .with(&["probe"]);
const DELIVERED: Family =
    counter("terrarium_events_delivered_total", "Event records that were read.").with(&["probe"]);
const DROPPED: Family =
    counter("terrarium_events_dropped_total", "Event records that were lost, by reason.")
        .with(&["probe", "reason"]);
const PROBE_RUNS: Family = counter(
    "terrarium_probe_runs_total",
    "Runs of a probe's programs; only while the kernel counts them (`--probe-stats`).",
)
.with(&["probe"]);
const PROBE_RUN_SECONDS: Family = counter(
    "terrarium_probe_run_seconds_total",
    "Time that a probe's programs took; only while the kernel counts it (`--probe-stats`).",
)
.with(&["probe"]);
/// A histogram of the prometheus crate.
pub const LATENCY: Family = histogram(
    "terrarium_event_latency_seconds",
    "From when an event happened in the kernel to when it was decoded.",
);
const RESIDUE: Family = gauge(
    "terrarium_residue_objects",
    "What containers that have ended left behind, as of the last look, by kind.",
)
.with(&["kind"]);
const ATTRIBUTION: Family =
    counter("terrarium_attribution_total", "Events by how sure their container is.")
        .with(&["outcome"]);
const MAP_ENTRIES: Family = gauge(
    "terrarium_map_entries",
    "Entries in use in a map of the probes; what finds no place in front is in the others.",
)
.with(&["map"]);
const MAP_CAPACITY: Family =
    gauge("terrarium_map_capacity", "Entries that fit into a map of the probes.").with(&["map"]);
const SERIES: Family = gauge("terrarium_series", "Series about containers in this answer.");
const SERIES_DROPPED: Family = counter(
    "terrarium_series_dropped_total",
    "Series left out of answers because there were more than --max-series.",
);
const COUNTS_DROPPED: Family =
    counter("terrarium_counts_dropped_total", "Counts that found no room in the kernel's map.");
const MACHINE_CORES: Family = gauge("machine_cpu_cores", "CPUs of this machine.");
const MACHINE_MEMORY: Family = gauge("machine_memory_bytes", "Memory of this machine.");
/// A histogram of the prometheus crate.
pub const SCRAPE_DURATION: Family =
    histogram("terrarium_scrape_duration_seconds", "Time that it took to answer earlier scrapes.");

/// All of them, in the order in which they are shown.
pub const FAMILIES: [&Family; 20] = [
    &BUILD_INFO,
    &PROBE_ATTACHED,
    &PRODUCED,
    &DELIVERED,
    &DROPPED,
    &ATTRIBUTION,
    &MAP_ENTRIES,
    &MAP_CAPACITY,
    &SERIES,
    &SERIES_DROPPED,
    &COUNTS_DROPPED,
    &MACHINE_CORES,
    &MACHINE_MEMORY,
    &super::container::START,
    &super::container::START_PHASE,
    &SCRAPE_DURATION,
    &LATENCY,
    &PROBE_RUNS,
    &PROBE_RUN_SECONDS,
    &RESIDUE,
];

/// What the part about containers has found.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// How often each outcome of an attribution came.
    pub outcomes: HashMap<Outcome, u64>,
    /// Series in this answer.
    pub series: usize,
    /// Series left out of all answers so far.
    pub series_dropped: usize,
    /// Whether names that cAdvisor has are shown.
    pub cadvisor_names: bool,
}

fn fill_about(out: &mut Builder, shared: &Shared, about: &About) {
    for outcome in Outcome::ALL {
        let count = about.outcomes.get(&outcome).copied().unwrap_or(0);
        out.counter(ATTRIBUTION.name, &[("outcome", outcome.name())], count);
    }
    for fill in shared.counters_fill() {
        out.gauge(MAP_ENTRIES.name, &[("map", fill.map)], fill.entries as u64);
        out.gauge(MAP_CAPACITY.name, &[("map", fill.map)], fill.capacity as u64);
    }
    out.gauge(SERIES.name, &[], about.series as u64);
    out.counter(SERIES_DROPPED.name, &[], about.series_dropped as u64);
    if about.cadvisor_names {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        out.gauge(MACHINE_CORES.name, &[], cores as u64);
        if let Some(bytes) = shared.machine_memory_bytes() {
            out.gauge(MACHINE_MEMORY.name, &[], bytes);
        }
    }
}

/// Fills them in.
pub fn fill(out: &mut Builder, shared: &Shared, about: &About) {
    fill_about(out, shared, about);
    let version = ("version", env!("CARGO_PKG_VERSION"));
    let revision = ("revision", option_env!("TERRARIUM_REVISION").unwrap_or("unknown"));
    out.gauge(BUILD_INFO.name, &[version, revision], 1);
    for (probe, mechanism, attached) in attached(shared) {
        let labels = [("probe", probe_name(probe)), ("mechanism", mechanism)];
        out.gauge(PROBE_ATTACHED.name, &labels, u64::from(attached));
    }
    let stats = shared.probe_stats();
    for (n, probe) in Probe::ALL.into_iter().enumerate() {
        let name = probe_name(probe);
        let delivered = shared.delivered[n].load(Ordering::Relaxed);
        out.counter(PRODUCED.name, &[("probe", name)], stats.produced[n]);
        out.counter(DELIVERED.name, &[("probe", name)], delivered);
        for (reason, count) in [
            ("ring_full", stats.ring_full[n]),
            ("map_full", stats.map_full[n]),
            ("rate_limited", stats.rate_limited[n]),
        ] {
            out.counter(DROPPED.name, &[("probe", name), ("reason", reason)], count);
        }
    }
    let undecoded = shared.decode_errors.load(Ordering::Relaxed);
    out.counter(DROPPED.name, &[("probe", "other"), ("reason", "decode")], undecoded);
    // After delivery, and by no one probe: a reader of the stream that was too slow.
    let missed = shared.history.missed();
    out.counter(DROPPED.name, &[("probe", "other"), ("reason", "slow_client")], missed);
    out.counter(COUNTS_DROPPED.name, &[], stats.counts_lost);
    if let Some(all) = shared.programs.run_stats() {
        for (probe, run) in Probe::ALL.into_iter().zip(all) {
            let labels = [("probe", probe_name(probe))];
            out.counter(PROBE_RUNS.name, &labels, run.runs);
            out.seconds(PROBE_RUN_SECONDS.name, &labels, run.ns);
        }
    }
    fill_residue(out, shared);
}

fn fill_residue(out: &mut Builder, shared: &Shared) {
    let counts = shared.leaks().count_residue();
    for check in RESIDUE_CHECKS {
        let kind = check.id.trim_start_matches("residue-").replace('-', "_");
        let count = counts.get(check.id).copied().unwrap_or(0);
        out.gauge(RESIDUE.name, &[("kind", &kind)], count);
    }
}

/// Each probe with each mechanism that holds a hook of it, or `none` and 0.
fn attached(shared: &Shared) -> Vec<(Probe, &'static str, bool)> {
    let mut all = Vec::new();
    for probe in Probe::ALL {
        let mut mechanisms: Vec<Mechanism> = shared
            .reports
            .iter()
            .filter(|report| report.probe() == probe)
            .filter_map(|report| report.mechanism)
            .collect();
        mechanisms.sort_unstable();
        mechanisms.dedup();
        if mechanisms.is_empty() {
            all.push((probe, "none", false));
        }
        all.extend(mechanisms.iter().map(|mechanism| (probe, mechanism.name(), true)));
    }
    all
}
