//! The metrics: tables of families, filled in when somebody scrapes.
//!
//! To add a metric of the probes' counters: a [`Counted`] in the file of its subject, and a line in [`COUNTED`].

mod answer;
mod builder;
mod cgroup;
mod clone;
mod container;
mod exec;
mod family;
mod finding;
mod guard;
mod layout;
mod memory;
mod mount;
mod namespace;
mod observatory;
mod open_metrics;
mod page;
#[cfg(test)]
mod reference;
mod usage;

pub use answer::Answer;
pub use page::{Exemplar, Format};

use crate::lives::{Phase, StartTimes};
use crate::precedence::Answering;
use crate::sample::Sample;
use crate::shared::Shared;
use answer::{Kept, Table};
use builder::Builder;
use family::Counted;
use layout::Layout;
use observatory::About;
use open_metrics::OpenMetricsEncoder;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry as Families, TextEncoder};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use terrarium_abi::counter::BOUNDS;
#[cfg(test)]
use usage::USED;

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
    &guard::EVENTS,
];

/// What is shown, and how much of it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whether what containers use is shown, under cAdvisor's names.
    pub cadvisor_names: bool,
    /// Labels of containers that are shown in `terrarium_container_info`.
    pub labels: Vec<String>,
    /// The most series about containers; 0 is no bound.
    pub max_series: usize,
}

impl Default for Shown {
    fn default() -> Self {
        Self { cadvisor_names: true, labels: Vec::new(), max_series: 50_000 }
    }
}

/// Fills in the families about the observatory itself.
struct Exporter {
    shared: Arc<Shared>,
    descs: Vec<Desc>,
    scrapes: Arc<prometheus::Histogram>,
    about: Arc<Mutex<About>>,
}

/// Answers scrapes.
pub struct Metrics {
    shared: Arc<Shared>,
    shown: Shown,
    /// One sample at a time: they would only wait for each other in the kernel.
    kept: Mutex<Kept>,
    about: Arc<Mutex<About>>,
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

/// A histogram of times, with the bounds that all of them have.
fn time_histogram(name: &str) -> prometheus::HistogramOpts {
    let bounds = BOUNDS.iter().map(|bits| Duration::from_nanos(1 << bits).as_secs_f64());
    prometheus::HistogramOpts::new(name, "-").buckets(bounds.collect())
}

/// The histograms of how long records wait for their reader, and of how long containers take to start.
pub fn time_histograms() -> prometheus::Result<(prometheus::Histogram, StartTimes)> {
    let one = |name| prometheus::Histogram::with_opts(time_histogram(name));
    let phases = time_histogram(container::START_PHASE.name);
    let phases = prometheus::HistogramVec::new(phases, container::START_PHASE.labels)?;
    for phase in Phase::ALL {
        phases.with_label_values(&[phase.name()]);
    }
    Ok((one(observatory::LATENCY.name)?, StartTimes { whole: one(container::START.name)?, phases }))
}

impl Metrics {
    /// The metrics of a running observatory.
    pub fn new(shared: Arc<Shared>, shown: Shown) -> Result<Self, MetricsError> {
        let scrapes =
            prometheus::Histogram::with_opts(time_histogram(observatory::SCRAPE_DURATION.name))?;
        let scrapes = Arc::new(scrapes);
        let descs = observatory::FAMILIES
            .iter()
            .map(|f| {
                let labels = f.labels.iter().map(|&label| label.to_owned()).collect();
                Desc::new(f.name.to_owned(), f.help.to_owned(), labels, HashMap::new())
            })
            .collect::<Result<_, _>>()?;
        let families = Families::new();
        let about = Arc::new(Mutex::new(About::default()));
        let exporter = Exporter {
            shared: Arc::clone(&shared),
            descs,
            scrapes: Arc::clone(&scrapes),
            about: Arc::clone(&about),
        };
        families.register(Box::new(exporter))?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        families.register(Box::new(process))?;
        let layout = Layout::new(COUNTED, shared.context.page_bytes);
        let kept = Mutex::new(Kept::new(layout, &shown.labels));
        Ok(Self { shared, shown, kept, about, families, scrapes })
    }

    /// The answer to a scrape.
    pub fn answer(&self, format: Format) -> Result<Answer, MetricsError> {
        let (began, answering) = (Instant::now(), Answering::begin());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sample = Sample::take(&self.shared, self.shown.cadvisor_names);
        let outcomes = std::mem::take(&mut sample.outcomes);
        let most = if self.shown.max_series == 0 { usize::MAX } else { self.shown.max_series };
        let how = (self.shown.cadvisor_names, most);
        let table = Table::new(&mut kept, sample, &self.shared, how);
        drop(kept);
        {
            let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
            about.outcomes = outcomes;
            about.series = table.series;
            about.series_dropped += table.left_out;
            about.cadvisor_names = self.shown.cadvisor_names;
        }
        let mut end = Vec::new();
        let families = self.families.gather();
        match format {
            Format::Text => TextEncoder::new().encode(&families, &mut end)?,
            Format::OpenMetrics => {
                OpenMetricsEncoder.encode(&families, &mut end)?;
                end.extend_from_slice(b"# EOF\n");
            }
        }
        Ok(Answer::new(table, format, end, Arc::clone(&self.scrapes), (began, answering)))
    }
}

impl Collector for Exporter {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Builder::default();
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner).clone();
        observatory::fill(&mut out, &self.shared, &about);
        // Scrapes before this one: how long this one takes is not known yet.
        for family in self.scrapes.collect() {
            out.extend(observatory::SCRAPE_DURATION.name, family.get_metric());
        }
        for family in self.shared.latency.collect() {
            out.extend(observatory::LATENCY.name, family.get_metric());
        }
        let lives = self.shared.lives.lock().unwrap_or_else(PoisonError::into_inner);
        for family in lives.times().whole.collect() {
            out.extend(container::START.name, family.get_metric());
        }
        for family in lives.times().phases.collect() {
            out.extend(container::START_PHASE.name, family.get_metric());
        }
        drop(lives);
        out.finish(&observatory::FAMILIES)
    }
}

#[cfg(test)]
mod tests {
    use super::page::{Exemplar, Page, who};
    use super::*;
    use crate::sample::Row;
    use std::collections::HashSet;
    use terrarium_abi::Kind;
    use terrarium_abi::counter::family;

    #[test]
    fn names_are_unique_and_counters_are_shown_by_one_family() {
        let mut names = HashSet::new();
        for (family, _) in reference::families().into_iter().flat_map(|part| part.1) {
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

    fn row(format: Format, without_zeros: bool) -> (String, usize) {
        let counts: Row = [
            (Kind::new(family::CLONE, [0, 0, 0]), 1000),
            (Kind::new(family::CLONE_FAILED, [99, 0, 0]), 2),
            (Kind::new(family::CLONE_FAILED, [98, 0, 0]), 3),
            (Kind::new(family::MEMORY_STALL, [15, 0, 0]), 4),
            (Kind::new(family::MEMORY_STALL, [60, 0, 0]), 1),
            (Kind::new(family::MEMORY_STALL_SUM, [0, 0, 0]), 2_000_000_000),
            (Kind::new(250, [0, 0, 0]), 7),
        ]
        .into_iter()
        .collect();
        let mut layout = Layout::new(COUNTED, 4096);
        assert!(!layout.knows(counts.keys()));
        layout.learn(counts.keys());
        assert!(layout.knows(counts.keys()), "but for one that no place is for");
        let stall = Exemplar { tid: 7, comm: "a\"b".to_owned(), ns: 20_000, at_ns: 1_500_000_000 };
        let empty = (who("/empty", "empty"), layout.row(&Row::default()), None);
        let rows = [(who("/terrarium/web", "web"), layout.row(&counts), Some(stall)), empty];
        let mut page = Page::new(format, without_zeros);
        for family in 0..COUNTED.len() {
            page.family(layout.family(family));
            for (who, slots, stall) in &rows {
                layout.write(family, who, slots, stall.as_ref(), &mut page);
            }
        }
        let series = page.series;
        (String::from_utf8(page.text).expect("text"), series)
    }

    #[test]
    fn a_row_shows_zeros_sums_and_histograms() {
        let (text, series) = row(Format::Text, false);
        for line in [
            r#"terrarium_clone_total{id="/terrarium/web",name="web",kind="process"} 1000"#,
            r#"terrarium_clone_total{id="/terrarium/web",name="web",kind="thread"} 0"#,
            r#"terrarium_clone_total{id="/empty",name="empty",kind="thread"} 0"#,
            r#"terrarium_clone_failures_total{id="/terrarium/web",name="web",errno="other"} 5"#,
            r#"terrarium_memory_stall_seconds_bucket{id="/terrarium/web",name="web",le="0.000016384"} 0"#,
            r#"terrarium_memory_stall_seconds_bucket{id="/terrarium/web",name="web",le="0.000065536"} 4"#,
            r#"terrarium_memory_stall_seconds_bucket{id="/terrarium/web",name="web",le="+Inf"} 5"#,
            r#"terrarium_memory_stall_seconds_sum{id="/terrarium/web",name="web"} 2"#,
            r#"terrarium_oom_kills_total{id="/terrarium/web",name="web",scope="self"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
        }
        assert_eq!(series, text.lines().filter(|line| !line.starts_with('#')).count());
        let (text, _) = row(Format::Text, true);
        assert!(
            !text.lines().any(|line| line.ends_with(" 0") && !line.contains("_bucket")),
            "{text}"
        );
        assert!(text.contains("kind=\"process\"} 1000"));
    }

    #[test]
    fn openmetrics_names_counters_without_their_suffix_and_shows_exemplars() {
        let (text, _) = row(Format::OpenMetrics, false);
        assert!(text.contains("# TYPE terrarium_clone counter\n"), "{text}");
        assert!(text.contains("\nterrarium_clone_total{"), "{text}");
        let exemplar = r#"le="0.000065536"} 4 # {tid="7",comm="a\"b"} 0.00002 1.5"#;
        assert!(text.contains(exemplar), "{text}");
        assert!(!row(Format::Text, false).0.contains("tid="));
    }
}
