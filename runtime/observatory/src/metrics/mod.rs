//! The metrics: tables of families, filled in from the kernel's counters when somebody scrapes.
//!
//! To add a metric of the probes' counters: a [`Counted`] in the file of its subject, and a line in [`COUNTED`].

mod builder;
mod cgroup;
mod clone;
mod container;
mod exec;
mod family;
mod memory;
mod mount;
mod namespace;
mod observatory;

use crate::sample::Sample;
use crate::shared::Shared;
use builder::{BOUNDS, Builder, seconds};
use family::{Counted, Family, Shape};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry as Families, TextEncoder};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;
use terrarium_abi::Kind;

/// The families that show counters of the probes, in the order in which they are shown.
const COUNTED: &[&Counted] = &[
    &clone::TOTAL,
    &clone::FAILURES,
    &exec::EXEC,
    &exec::EXIT,
    &namespace::CREATE,
    &namespace::ENTER,
    &mount::OPERATIONS,
    &mount::DURATION,
    &memory::LIMIT_HITS,
    &memory::STALL,
    &memory::RECLAIMED,
    &memory::OOM_KILLS,
    &cgroup::MIGRATIONS,
];

/// All families of our own, in the order in which they are shown.
fn families() -> Vec<&'static Family> {
    [&container::INFO, &container::STATE]
        .into_iter()
        .chain(COUNTED.iter().map(|counted| &counted.family))
        .chain([&memory::EVENTS])
        .chain(observatory::FAMILIES)
        .collect()
}

/// Fills in the families.
struct Exporter {
    shared: Arc<Shared>,
    families: Vec<&'static Family>,
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
        let options = prometheus::HistogramOpts::new(observatory::SCRAPE_DURATION.name, "-");
        let scrapes = Arc::new(prometheus::Histogram::with_opts(options.buckets(bounds))?);
        let all = families();
        let descs = all
            .iter()
            .map(|f| Desc::new(f.name.to_owned(), f.help.to_owned(), Vec::new(), HashMap::new()))
            .collect::<Result<_, _>>()?;
        let families = Families::new();
        let scrapes_too = Arc::clone(&scrapes);
        let exporter = Exporter { shared, families: all, descs, scrapes: scrapes_too };
        families.register(Box::new(exporter))?;
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

impl Collector for Exporter {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Builder::default();
        self.containers(&mut out);
        observatory::fill(&mut out, &self.shared);
        // Scrapes before this one: how long this one takes is not known yet.
        for family in self.scrapes.collect() {
            out.extend(observatory::SCRAPE_DURATION.name, family.get_metric());
        }
        out.finish(&self.families)
    }
}

impl Exporter {
    fn containers(&self, out: &mut Builder) {
        let shared = &self.shared;
        let sample = Sample::take(shared);
        let page_bytes = shared.context.page_bytes;
        // The same name under two paths is two series, told apart by the label id.
        for observed in sample.containers {
            let container = &observed.snapshot.container;
            container::fill(out, &observed.snapshot);
            let id = ("id", container.path.as_str());
            let name = ("name", container.name.as_str());
            counts_of(out, &[id, name], observed.row, page_bytes);
            for (event, count) in observed.memory_events.named() {
                out.counter(memory::EVENTS.name, &[id, name, ("event", event)], count);
            }
        }
        counts_of(out, &[("id", "/"), ("name", "host")], sample.host, page_bytes);
        counts_of(out, &[("id", ""), ("name", "unknown")], sample.unknown, page_bytes);
        out.gauge(observatory::SERIES.name, &[], out.series() as u64);
        observatory::fill_attribution(out, shared, &sample.outcomes, sample.entries);
    }
}

/// The series of one row. Kinds that share their labels (every error that has no name of its own is `other`) are
/// summed.
fn counts_of(
    out: &mut Builder,
    who: &[(&str, &str); 2],
    mut row: HashMap<Kind, u64>,
    page_bytes: u64,
) {
    for kind in COUNTED.iter().flat_map(|counted| (counted.known)()) {
        row.entry(kind).or_default();
    }
    let mut by_family: HashMap<u8, Vec<([u8; 3], u64)>> = HashMap::new();
    for (kind, count) in row {
        let (family, labels) = kind.parts();
        by_family.entry(family).or_default().push((labels, count));
    }
    for counted in COUNTED {
        let counts = by_family.remove(&counted.counts).unwrap_or_default();
        let factor = match counted.shape {
            Shape::Count => 1,
            Shape::PagesAsBytes => page_bytes,
            Shape::Durations { sum } => {
                let mut buckets = BTreeMap::new();
                for ([bucket, ..], count) in counts {
                    *buckets.entry(bucket).or_default() += count;
                }
                let sum = by_family.remove(&sum).unwrap_or_default();
                let sum = sum.iter().map(|(_, ns)| ns).sum();
                out.durations(counted.family.name, who, &buckets, sum);
                continue;
            }
        };
        let mut series: BTreeMap<family::Labels, u64> = BTreeMap::new();
        for (labels, count) in counts {
            *series.entry((counted.labels)(labels)).or_default() += count * factor;
        }
        for (labels, count) in series {
            let labels: Vec<(&str, &str)> = who.iter().copied().chain(labels).collect();
            out.counter(counted.family.name, &labels, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use terrarium_abi::counter::family;

    #[test]
    fn names_are_unique_and_counters_are_shown_by_one_family() {
        let mut names = HashSet::new();
        for family in families() {
            assert!(names.insert(family.name), "{}", family.name);
        }
        let mut counts = HashSet::new();
        for counted in COUNTED {
            assert!(counts.insert(counted.counts), "{}", counted.family.name);
            for kind in (counted.known)() {
                assert_eq!(kind.parts().0, counted.counts, "{}", counted.family.name);
            }
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
        TextEncoder::new().encode_utf8(&out.finish(&families()), &mut text).expect("encode");
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
