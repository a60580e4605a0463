//! The metrics: one table of families, filled in from the kernel's counters when somebody scrapes.
//!
//! To add a metric: a line in [`FAMILIES`], and the code that fills it in.

use crate::attribution::registry::{Outcome, Snapshot, State, Subject};
use crate::probe::plan::{Mechanism, probe_name};
use crate::shared::Shared;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, Registry as Families, TextEncoder};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use terrarium_abi::counter::family;
use terrarium_abi::memory::LEVEL_GLOBAL;
use terrarium_abi::{ExitCause, Kind, MountOp, NsKind, NsTarget, Probe, Via};

/// A family of metrics.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::COUNTER }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::GAUGE }
}

const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::HISTOGRAM }
}

/// All families of our own.
const FAMILIES: &[Family] = &[
    gauge("terrarium_container_info", "What is known of a container; always 1."),
    gauge("terrarium_container_state", "1 for the state that a container is in, else 0."),
    counter(
        "terrarium_clone_total",
        "Processes and threads made, counted for the new one's cgroup.",
    ),
    counter("terrarium_clone_failures_total", "Clones that the kernel refused, by error."),
    counter("terrarium_exec_total", "Programs started."),
    counter("terrarium_exit_total", "Processes that ended, by cause."),
    counter("terrarium_namespace_create_total", "Namespaces asked for, by clone or unshare."),
    counter("terrarium_namespace_enter_total", "Namespaces entered by setns."),
    counter("terrarium_mount_operations_total", "Calls of mount and its relatives."),
    histogram("terrarium_mount_duration_seconds", "Time spent in mount operations."),
    counter("terrarium_memory_limit_hits_total", "Entries into reclaim because of a memory limit."),
    histogram("terrarium_memory_stall_seconds", "Time that one task stood in that reclaim."),
    counter(
        "terrarium_memory_reclaimed_bytes_total",
        "Memory reclaimed because of a memory limit.",
    ),
    counter(
        "terrarium_oom_kills_total",
        "Tasks killed for lack of memory, counted for the victim.",
    ),
    counter(
        "terrarium_memory_events_total",
        "The kernel's own count, from memory.events, or from memory.failcnt and memory.oom_control.",
    ),
    counter("terrarium_cgroup_migrations_total", "Tasks moved into a cgroup."),
    gauge("terrarium_build_info", "The program's version; always 1."),
    gauge("terrarium_probe_attached", "1 when a probe is attached by this mechanism, else 0."),
    counter("terrarium_events_produced_total", "Event records that a probe wanted to write."),
    counter("terrarium_events_delivered_total", "Event records that were read."),
    counter("terrarium_events_dropped_total", "Event records that were lost, by reason."),
    counter("terrarium_attribution_total", "Events by how sure their container is."),
    gauge("terrarium_map_entries", "Entries in use in a map of the probes."),
    gauge("terrarium_map_capacity", "Entries that fit into a map of the probes."),
    gauge("terrarium_series", "Series about containers in this answer."),
    counter("terrarium_series_dropped_total", "Counts that found no room in the kernel's map."),
    histogram("terrarium_scrape_duration_seconds", "Time that it took to answer earlier scrapes."),
];

/// Upper bounds of histograms of durations, as powers of two of nanoseconds: 16 µs to 17 s.
const BOUNDS: [u8; 11] = [14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34];

/// The number of the error in a label, by name.
const CLONE_ERRORS: [(u8, &str); 5] =
    [(11, "EAGAIN"), (12, "ENOMEM"), (1, "EPERM"), (22, "EINVAL"), (28, "ENOSPC")];

/// Fills in the families.
struct Exporter {
    shared: Arc<Shared>,
    descs: Vec<Desc>,
    scrapes: Arc<prometheus::Histogram>,
}

/// Answers scrapes.
pub struct Metrics {
    families: Families,
    scrapes: Arc<prometheus::Histogram>,
}

/// Why there is no answer to a scrape.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The metrics do not fit together: a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Metrics {
    /// The metrics of a running observatory.
    pub fn new(shared: Arc<Shared>) -> Result<Self, MetricsError> {
        let bounds = BOUNDS.iter().map(|bits| seconds(1 << bits)).collect();
        let options = prometheus::HistogramOpts::new("terrarium_scrape_duration_seconds", "-");
        let scrapes = Arc::new(prometheus::Histogram::with_opts(options.buckets(bounds))?);
        let descs = FAMILIES
            .iter()
            .map(|f| Desc::new(f.name.to_owned(), f.help.to_owned(), Vec::new(), HashMap::new()))
            .collect::<Result<_, _>>()?;
        let families = Families::new();
        families.register(Box::new(Exporter { shared, descs, scrapes: Arc::clone(&scrapes) }))?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        families.register(Box::new(process))?;
        Ok(Self { families, scrapes })
    }

    /// The answer to a scrape, in the text format.
    pub fn text(&self) -> Result<Vec<u8>, MetricsError> {
        let start = Instant::now();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.families.gather(), &mut text)?;
        self.scrapes.observe(start.elapsed().as_secs_f64());
        Ok(text)
    }
}

/// The families while they are filled in.
#[derive(Default)]
struct Builder {
    metrics: HashMap<&'static str, Vec<Metric>>,
}

impl Builder {
    fn counter(&mut self, name: &'static str, labels: &[(&str, &str)], value: u64) {
        let mut metric = Metric::from_label(pairs(labels));
        let mut counter = Counter::default();
        counter.set_value(float(value));
        metric.set_counter(counter);
        self.metrics.entry(name).or_default().push(metric);
    }

    fn gauge(&mut self, name: &'static str, labels: &[(&str, &str)], value: u64) {
        let mut metric = Metric::from_label(pairs(labels));
        let mut gauge = Gauge::default();
        gauge.set_value(float(value));
        metric.set_gauge(gauge);
        self.metrics.entry(name).or_default().push(metric);
    }

    /// A histogram of durations. `buckets` holds counts by number of significant bits of nanoseconds.
    fn durations(
        &mut self,
        name: &'static str,
        labels: &[(&str, &str)],
        buckets: &BTreeMap<u8, u64>,
        sum_ns: u64,
    ) {
        let mut out = Vec::with_capacity(BOUNDS.len());
        for bound in BOUNDS {
            // Bucket n holds durations below 1 << n.
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(1 << bound));
            bucket.set_cumulative_count(buckets.range(..=bound).map(|(_, count)| count).sum());
            out.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(out);
        histogram.set_sample_count(buckets.values().sum());
        histogram.set_sample_sum(seconds(sum_ns));
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.metrics.entry(name).or_default().push(metric);
    }

    fn finish(mut self) -> Vec<MetricFamily> {
        FAMILIES
            .iter()
            .filter_map(|Family { name, help, kind }| {
                let metrics = self.metrics.remove(name)?;
                let mut family = MetricFamily::default();
                family.set_name((*name).to_owned());
                family.set_help((*help).to_owned());
                family.set_field_type(*kind);
                family.set_metric(metrics);
                Some(family)
            })
            .collect()
    }
}

impl Collector for Exporter {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Builder::default();
        self.containers(&mut out);
        self.observatory(&mut out);
        out.finish()
    }
}

impl Exporter {
    fn containers(&self, out: &mut Builder) {
        let shared = &self.shared;
        // One lock over both: otherwise counters could move from a removed cgroup to its container's totals between
        // the two, and count twice or not at all.
        let mut registry = shared.registry();
        registry.read_state_files();
        let counts = shared.read_counts();
        let mut totals = registry.totals(&counts);
        let snapshots = registry.snapshots();
        let outcomes = registry.outcomes().clone();
        drop(registry);

        for outcome in Outcome::ALL {
            let count = outcomes.get(&outcome).copied().unwrap_or(0);
            out.counter("terrarium_attribution_total", &[("outcome", outcome.name())], count);
        }
        out.gauge("terrarium_map_entries", &[("map", "counts")], counts.len() as u64);
        let capacity = u64::from(shared.counter_capacity());
        out.gauge("terrarium_map_capacity", &[("map", "counts")], capacity);

        let known: HashSet<&str> =
            snapshots.iter().flat_map(|s| &s.memory).map(|(_, path)| path.as_str()).collect();
        shared.keep_memory_events(|path| known.contains(path));
        let before: usize = out.metrics.values().map(Vec::len).sum();
        // The same name under two paths is two series, told apart by the label id.
        for snapshot in &snapshots {
            let subject = Subject::Container(snapshot.container.path.clone());
            let row = totals.remove(&subject).unwrap_or_default();
            container(out, snapshot);
            counts_of(
                out,
                &[("id", &snapshot.container.path), ("name", &snapshot.container.name)],
                row,
                shared.context.page_bytes,
            );
            let events = shared.memory_events(&snapshot.memory);
            for (event, count) in events.named() {
                out.counter(
                    "terrarium_memory_events_total",
                    &[
                        ("id", &snapshot.container.path),
                        ("name", &snapshot.container.name),
                        ("event", event),
                    ],
                    count,
                );
            }
        }
        let host = totals.remove(&Subject::Host).unwrap_or_default();
        counts_of(out, &[("id", "/"), ("name", "host")], host, shared.context.page_bytes);
        // Whatever is left belongs to no container that is known.
        let mut unknown: HashMap<Kind, u64> = HashMap::new();
        for (kind, count) in totals.into_values().flatten() {
            *unknown.entry(kind).or_default() += count;
        }
        counts_of(out, &[("id", ""), ("name", "unknown")], unknown, shared.context.page_bytes);
        let after: usize = out.metrics.values().map(Vec::len).sum();
        out.gauge("terrarium_series", &[], (after - before) as u64);
    }

    fn observatory(&self, out: &mut Builder) {
        let shared = &self.shared;
        out.gauge(
            "terrarium_build_info",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("revision", option_env!("TERRARIUM_REVISION").unwrap_or("unknown")),
            ],
            1,
        );
        for (probe, mechanism, attached) in attached(shared) {
            out.gauge(
                "terrarium_probe_attached",
                &[("probe", probe_name(probe)), ("mechanism", mechanism)],
                u64::from(attached),
            );
        }
        let stats = shared.probe_stats();
        for (n, probe) in Probe::ALL.into_iter().enumerate() {
            let name = probe_name(probe);
            let delivered = shared.delivered[n].load(Ordering::Relaxed);
            out.counter("terrarium_events_produced_total", &[("probe", name)], stats.produced[n]);
            out.counter("terrarium_events_delivered_total", &[("probe", name)], delivered);
            for (reason, count) in
                [("ring_full", stats.ring_full[n]), ("map_full", stats.map_full[n])]
            {
                let labels = [("probe", name), ("reason", reason)];
                out.counter("terrarium_events_dropped_total", &labels, count);
            }
        }
        out.counter(
            "terrarium_events_dropped_total",
            &[("probe", "other"), ("reason", "decode")],
            shared.decode_errors.load(Ordering::Relaxed),
        );
        // After delivery, and by no one probe: a reader of the stream that was too slow.
        out.counter(
            "terrarium_events_dropped_total",
            &[("probe", "other"), ("reason", "slow_client")],
            shared.history.missed(),
        );
        out.counter("terrarium_series_dropped_total", &[], stats.counts_lost);
        // Scrapes before this one: how long this one takes is not known yet.
        for family in self.scrapes.collect() {
            let metrics = out.metrics.entry("terrarium_scrape_duration_seconds").or_default();
            metrics.extend(family.get_metric().iter().cloned());
        }
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

fn container(out: &mut Builder, snapshot: &Snapshot) {
    let container = &snapshot.container;
    let (id, name) = (("id", container.path.as_str()), ("name", container.name.as_str()));
    out.gauge(
        "terrarium_container_info",
        &[
            id,
            name,
            ("image", &container.image),
            ("runtime", &container.runtime),
            ("pod", &container.pod),
            ("pod_namespace", &container.pod_namespace),
            ("cgroup_driver", &container.cgroup_driver),
        ],
        1,
    );
    for state in State::ALL {
        out.gauge(
            "terrarium_container_state",
            &[id, name, ("state", state.name())],
            u64::from(state == snapshot.state),
        );
    }
}

/// The series that every container has from the start, so that the first event is an increase.
fn known_from_the_start() -> impl Iterator<Item = Kind> {
    let clone = [0, 1].map(|thread| Kind::new(family::CLONE, [thread, 0, 0]));
    let errors = CLONE_ERRORS.map(|(errno, _)| Kind::new(family::CLONE_FAILED, [errno, 0, 0]));
    let exits = [ExitCause::Exit, ExitCause::Signal, ExitCause::Oom]
        .map(|cause| Kind::new(family::EXIT, [cause as u8, 0, 0]));
    let namespaces = NsKind::ALL.into_iter().flat_map(|ns| {
        [
            Kind::ns_create(ns, Via::Clone, false),
            Kind::ns_create(ns, Via::Unshare, false),
            Kind::ns_create(ns, Via::Unshare, true),
            Kind::ns_enter(ns, NsTarget::Own, false),
            Kind::ns_enter(ns, NsTarget::Other, false),
        ]
    });
    let mounts =
        MountOp::ALL.into_iter().flat_map(|op| [Kind::mount(op, false), Kind::mount(op, true)]);
    let limits = [0, 1].map(|level| Kind::new(family::MEMORY_LIMIT, [level, 0, 0]));
    let kills = [0, 1, LEVEL_GLOBAL].map(|level| Kind::new(family::OOM_KILL, [level, 0, 0]));
    let others = [family::EXEC, family::RECLAIMED_PAGES, family::CGROUP_ATTACH]
        .map(|family| Kind::new(family, [0; 3]));
    clone
        .into_iter()
        .chain(errors)
        .chain(exits)
        .chain(namespaces)
        .chain(mounts)
        .chain(limits)
        .chain(kills)
        .chain(others)
}

/// The series of one row. Kinds that share their labels (every error that has no name of its own is `other`) are
/// summed.
fn counts_of(
    out: &mut Builder,
    who: &[(&str, &str); 2],
    mut row: HashMap<Kind, u64>,
    page_bytes: u64,
) {
    for kind in known_from_the_start() {
        row.entry(kind).or_default();
    }
    let mut series: BTreeMap<Series, u64> = BTreeMap::new();
    let mut histograms: HashMap<u8, BTreeMap<u8, u64>> = HashMap::new();
    let mut sums: HashMap<u8, u64> = HashMap::new();
    for (kind, count) in row {
        let (family, labels) = kind.parts();
        match family {
            family::MOUNT_TIME | family::MEMORY_STALL => {
                *histograms.entry(family).or_default().entry(labels[0]).or_default() += count;
            }
            family::MOUNT_TIME_SUM | family::MEMORY_STALL_SUM => {
                *sums.entry(family).or_default() += count;
            }
            _ => {
                let count =
                    if family == family::RECLAIMED_PAGES { count * page_bytes } else { count };
                if let Some(key) = series_of(family, labels) {
                    *series.entry(key).or_default() += count;
                }
            }
        }
    }
    for ((name, labels), count) in series {
        let labels: Vec<(&str, &str)> = who.iter().copied().chain(labels).collect();
        out.counter(name, &labels, count);
    }
    for (name, buckets, sum) in [
        ("terrarium_mount_duration_seconds", family::MOUNT_TIME, family::MOUNT_TIME_SUM),
        ("terrarium_memory_stall_seconds", family::MEMORY_STALL, family::MEMORY_STALL_SUM),
    ] {
        let buckets = histograms.remove(&buckets).unwrap_or_default();
        out.durations(name, who, &buckets, sums.remove(&sum).unwrap_or(0));
    }
}

type Series = (&'static str, Vec<(&'static str, &'static str)>);

/// The family and the labels under which a kind is shown; none for a kind that this version does not know.
fn series_of(family: u8, [a, b, c]: [u8; 3]) -> Option<Series> {
    let result = ("result", if c == 0 { "ok" } else { "error" });
    let ns = |number: u8| {
        let kind = NsKind::ALL.get(usize::from(number));
        ("ns", kind.map_or("other", |kind| kind.name()))
    };
    Some(match family {
        family::CLONE => {
            ("terrarium_clone_total", vec![("kind", if a == 0 { "process" } else { "thread" })])
        }
        family::CLONE_FAILED => {
            let name = CLONE_ERRORS.iter().find(|(errno, _)| *errno == a).map_or("other", |e| e.1);
            ("terrarium_clone_failures_total", vec![("errno", name)])
        }
        family::EXEC => ("terrarium_exec_total", vec![]),
        family::EXIT => {
            let cause = match a {
                0 => "exit",
                1 => "signal",
                2 => "oom",
                _ => "other",
            };
            ("terrarium_exit_total", vec![("cause", cause)])
        }
        family::NS_CREATE => {
            let via = match b {
                0 => "clone",
                1 => "unshare",
                _ => "other",
            };
            ("terrarium_namespace_create_total", vec![ns(a), ("via", via), result])
        }
        family::NS_ENTER => {
            let target = match b {
                0 => "own",
                1 => "host",
                _ => "unknown",
            };
            (
                "terrarium_namespace_enter_total",
                vec![ns(a), ("target", target), ("role", "workload"), result],
            )
        }
        family::MOUNT => {
            let op = MountOp::ALL.get(usize::from(a)).map_or("other", |op| op.name());
            ("terrarium_mount_operations_total", vec![("op", op), result])
        }
        family::MEMORY_LIMIT => {
            let scope = match a {
                0 => "self",
                1 => "ancestor",
                _ => "unknown",
            };
            ("terrarium_memory_limit_hits_total", vec![("scope", scope)])
        }
        family::RECLAIMED_PAGES => ("terrarium_memory_reclaimed_bytes_total", vec![]),
        family::OOM_KILL => {
            let scope = match a {
                0 => "self",
                1 => "ancestor",
                LEVEL_GLOBAL => "global",
                _ => "unknown",
            };
            ("terrarium_oom_kills_total", vec![("scope", scope)])
        }
        family::CGROUP_ATTACH => ("terrarium_cgroup_migrations_total", vec![("direction", "in")]),
        _ => return None,
    })
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "the text format has floats only")]
fn float(value: u64) -> f64 {
    value as f64
}

fn seconds(ns: u64) -> f64 {
    float(ns) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_known_from_the_start_has_a_family() {
        let names: HashSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
        for kind in known_from_the_start() {
            let (family, labels) = kind.parts();
            let (name, _) = series_of(family, labels).expect("a known kind");
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn a_row_shows_zeros_sums_and_histograms() {
        let mut out = Builder::default();
        let row = HashMap::from([
            (Kind::new(family::CLONE, [0, 0, 0]), 1000),
            (Kind::new(family::CLONE_FAILED, [99, 0, 0]), 2),
            (Kind::new(family::CLONE_FAILED, [98, 0, 0]), 3),
            (Kind::new(family::MEMORY_STALL, [15, 0, 0]), 4),
            (Kind::new(family::MEMORY_STALL, [60, 0, 0]), 1),
            (Kind::new(family::MEMORY_STALL_SUM, [0, 0, 0]), 2_000_000_000),
        ]);
        counts_of(&mut out, &[("id", "/terrarium/web"), ("name", "web")], row, 4096);
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&out.finish(), &mut text).expect("encode");
        for line in [
            r#"terrarium_clone_total{id="/terrarium/web",name="web",kind="process"} 1000"#,
            r#"terrarium_clone_total{id="/terrarium/web",name="web",kind="thread"} 0"#,
            r#"terrarium_clone_failures_total{id="/terrarium/web",name="web",errno="other"} 5"#,
            r#"terrarium_memory_stall_seconds_bucket{id="/terrarium/web",name="web",le="0.000016384"} 0"#,
            r#"terrarium_memory_stall_seconds_bucket{id="/terrarium/web",name="web",le="0.000065536"} 4"#,
            r#"terrarium_memory_stall_seconds_bucket{id="/terrarium/web",name="web",le="+Inf"} 5"#,
            r#"terrarium_memory_stall_seconds_sum{id="/terrarium/web",name="web"} 2"#,
            r#"terrarium_oom_kills_total{id="/terrarium/web",name="web",scope="self"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
        }
    }
}
