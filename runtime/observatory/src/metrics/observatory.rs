//! The observatory about itself.

use super::builder::Builder;
use super::family::{Family, counter, gauge, histogram};
use crate::attribution::Outcome;
use crate::probe::plan::{Mechanism, probe_name};
use crate::shared::Shared;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use terrarium_abi::Probe;

const BUILD_INFO: Family = gauge("terrarium_build_info", "The program's version; always 1.");
const PROBE_ATTACHED: Family =
    gauge("terrarium_probe_attached", "1 when a probe is attached by this mechanism, else 0.");
const PRODUCED: Family =
    counter("terrarium_events_produced_total", "Event records that a probe wanted to write.");
const DELIVERED: Family =
    counter("terrarium_events_delivered_total", "Event records that were read.");
const DROPPED: Family =
    counter("terrarium_events_dropped_total", "Event records that were lost, by reason.");
const ATTRIBUTION: Family =
    counter("terrarium_attribution_total", "Events by how sure their container is.");
const MAP_ENTRIES: Family =
    gauge("terrarium_map_entries", "Entries in use in a map of the probes.");
const MAP_CAPACITY: Family =
    gauge("terrarium_map_capacity", "Entries that fit into a map of the probes.");
/// Filled in with the containers.
pub const SERIES: Family = gauge("terrarium_series", "Series about containers in this answer.");
const SERIES_DROPPED: Family =
    counter("terrarium_series_dropped_total", "Counts that found no room in the kernel's map.");
/// A histogram of the prometheus crate.
pub const SCRAPE_DURATION: Family =
    histogram("terrarium_scrape_duration_seconds", "Time that it took to answer earlier scrapes.");

/// All of them, in the order in which they are shown.
pub const FAMILIES: [&Family; 11] = [
    &BUILD_INFO, &PROBE_ATTACHED, &PRODUCED, &DELIVERED, &DROPPED, &ATTRIBUTION, &MAP_ENTRIES,
    &MAP_CAPACITY, &SERIES, &SERIES_DROPPED, &SCRAPE_DURATION,
];

/// Fills in how sure attributions are, and how full the map of counters is.
pub fn fill_attribution(
    out: &mut Builder,
    shared: &Shared,
    outcomes: &HashMap<Outcome, u64>,
    counts: usize,
) {
    for outcome in Outcome::ALL {
        let count = outcomes.get(&outcome).copied().unwrap_or(0);
        out.counter(ATTRIBUTION.name, &[("outcome", outcome.name())], count);
    }
    out.gauge(MAP_ENTRIES.name, &[("map", "counts")], counts as u64);
    let capacity = u64::from(shared.counter_capacity());
    out.gauge(MAP_CAPACITY.name, &[("map", "counts")], capacity);
}

/// Fills in the rest.
pub fn fill(out: &mut Builder, shared: &Shared) {
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
        for (reason, count) in [("ring_full", stats.ring_full[n]), ("map_full", stats.map_full[n])]
        {
            out.counter(DROPPED.name, &[("probe", name), ("reason", reason)], count);
        }
    }
    let undecoded = shared.decode_errors.load(Ordering::Relaxed);
    out.counter(DROPPED.name, &[("probe", "other"), ("reason", "decode")], undecoded);
    // After delivery, and by no one probe: a reader of the stream that was too slow.
    let missed = shared.history.missed();
    out.counter(DROPPED.name, &[("probe", "other"), ("reason", "slow_client")], missed);
    out.counter(SERIES_DROPPED.name, &[], stats.counts_lost);
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
