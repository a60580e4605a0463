//! The metrics: tables of families, filled in when somebody scrapes.
//!
//! To add a metric of the probes' counters: a [`Counted`] in the file of its subject, and a line in [`COUNTED`].

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

pub use page::{Exemplar, Format};

use crate::lives::{Phase, StartTimes};
use crate::sample::{Observed, Sample};
use crate::shared::Shared;
use builder::Builder;
use family::Counted;
use layout::{BOUNDS, Layout, Slots};
use observatory::About;
use open_metrics::OpenMetricsEncoder;
use page::{Page, label, who};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry as Families, TextEncoder};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
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

/// What is known of containers when an answer is written.
struct Content<'a> {
    layout: &'a Layout,
    sample: &'a Sample,
    /// Labels, counters and longest stall of each container, then of the host and of what is unknown.
    rows: Vec<(String, Slots, Option<Exemplar>)>,
    findings: finding::Tally,
}

/// Answers scrapes.
pub struct Metrics {
    shared: Arc<Shared>,
    shown: Shown,
    /// One answer at a time: they would only wait for each other in the kernel.
    layout: Mutex<Layout>,
    about: Arc<Mutex<About>>,
    families: Families,
    scrapes: Arc<prometheus::Histogram>,
    /// Bytes of the last answer: the next one will be about as long.
    last_length: AtomicUsize,
    /// Whether counters that are 0 were left out last time.
    crowded: AtomicBool,
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
        let layout = Mutex::new(Layout::new(COUNTED, shared.context.page_bytes));
        let last_length = AtomicUsize::new(1 << 16);
        let crowded = AtomicBool::new(false);
        Ok(Self { shared, shown, layout, about, families, scrapes, last_length, crowded })
    }

    /// The answer to a scrape.
    pub fn answer(&self, format: Format) -> Result<Vec<u8>, MetricsError> {
        let start = Instant::now();
        let mut layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = Sample::take(&self.shared, self.shown.cadvisor_names);
        let page = self.containers(&mut layout, &sample, format);
        drop(layout);
        {
            let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
            about.outcomes = sample.outcomes;
            about.series = page.series;
            about.series_dropped += page.left_out;
            about.cadvisor_names = self.shown.cadvisor_names;
        }
        let mut text = page.text;
        let families = self.families.gather();
        match format {
            Format::Text => TextEncoder::new().encode(&families, &mut text)?,
            Format::OpenMetrics => {
                OpenMetricsEncoder.encode(&families, &mut text)?;
                text.extend_from_slice(b"# EOF\n");
            }
        }
        self.last_length.store(text.len(), Ordering::Relaxed);
        self.scrapes.observe(start.elapsed().as_secs_f64());
        Ok(text)
    }

    /// The part about containers. Where there would be more series than may be, first counters that are 0 are left out,
    /// then the containers that come last.
    fn containers(&self, layout: &mut Layout, sample: &Sample, format: Format) -> Page {
        let stalls = self.shared.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<(String, Slots, Option<Exemplar>)> = sample
            .containers
            .iter()
            .map(|observed| {
                let container = &observed.snapshot.container;
                let row = layout.row(&observed.row);
                let stall = stalls.get(&container.path).cloned();
                (who(&container.path, &container.name), row, stall)
            })
            .collect();
        drop(stalls);
        rows.push((who("/", "host"), layout.row(&sample.host), None));
        rows.push((who("", "unknown"), layout.row(&sample.unknown), None));
        let findings = finding::tally(self.shared.leaks().each());
        let mut content = Content { layout, sample, rows, findings };
        let most = if self.shown.max_series == 0 { usize::MAX } else { self.shown.max_series };
        let room = self.last_length.load(Ordering::Relaxed);
        let room = room + room / 16;
        let mut crowded = self.crowded.load(Ordering::Relaxed);
        let all = loop {
            let mut page = Page::new(format, crowded, room).at_most(most);
            self.write(&content, &mut page);
            let all = page.series + page.left_out;
            if crowded == (all > most) {
                if page.series <= most {
                    return page;
                }
                break all;
            }
            // As it was last time is wrong now.
            crowded = all > most;
            self.crowded.store(crowded, Ordering::Relaxed);
        };
        // Counting costs little beside writing, and most of all no memory.
        let count = |content: &Content<'_>| {
            let mut page = Page::counting(format);
            self.write(content, &mut page);
            page.series
        };
        let mut shown = sample.containers.len();
        let mut series = count(&content);
        while series > most && shown > 0 {
            shown = (shown * most / series).min(shown - 1);
            // The host and what is unknown come last, and stay.
            content.rows.drain(shown..content.rows.len() - 2);
            series = count(&content);
        }
        let mut page = Page::new(format, true, room);
        self.write(&content, &mut page);
        page.left_out = all - series;
        page
    }

    fn write(&self, content: &Content<'_>, page: &mut Page) {
        let Content { layout, sample, rows, findings } = content;
        let shown = rows.len() - 2;
        let containers: Vec<(&Observed, &str)> =
            sample.containers[..shown].iter().zip(rows.iter().map(|row| row.0.as_str())).collect();
        container::write_info(page, &containers, &self.shown.labels);
        container::write_state(page, &containers);
        container::write_lives(page, &containers, &self.shared);
        layout.write(page, rows);
        page.family(&memory::EVENTS);
        for (observed, who) in &containers {
            for (event, count) in observed.memory_events.named() {
                page.counter(memory::EVENTS.name, who, memory::event_label(event), count);
            }
        }
        finding::write(page, &containers, findings);
        if self.shown.cadvisor_names {
            write_usage(page, sample, &containers);
        }
    }
}

/// What containers and the whole machine use.
fn write_usage(page: &mut Page, sample: &Sample, containers: &[(&Observed, &str)]) {
    let machine = Observed {
        snapshot: crate::attribution::registry::Snapshot::of_machine(),
        row: HashMap::new(),
        usage: sample.machine.clone(),
        memory_events: crate::memory_files::MemoryEvents::default(),
    };
    let who: Vec<(&Observed, String)> = containers
        .iter()
        .map(|(observed, who)| {
            (*observed, (*who).to_owned() + &label("image", &observed.snapshot.container.image))
        })
        .chain([(&machine, who("/", "host") + &label("image", ""))])
        .collect();
    for used in USED {
        page.family(&used.family);
        for (observed, who) in &who {
            (used.series)(observed, &mut |labels, value| {
                page.value(used.family.name, "", who, labels, value);
            });
        }
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
    use super::*;
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
        let counts = HashMap::from([
            (Kind::new(family::CLONE, [0, 0, 0]), 1000),
            (Kind::new(family::CLONE_FAILED, [99, 0, 0]), 2),
            (Kind::new(family::CLONE_FAILED, [98, 0, 0]), 3),
            (Kind::new(family::MEMORY_STALL, [15, 0, 0]), 4),
            (Kind::new(family::MEMORY_STALL, [60, 0, 0]), 1),
            (Kind::new(family::MEMORY_STALL_SUM, [0, 0, 0]), 2_000_000_000),
            (Kind::new(250, [0, 0, 0]), 7),
        ]);
        let mut layout = Layout::new(COUNTED, 4096);
        let stall = Exemplar { tid: 7, comm: "a\"b".to_owned(), ns: 20_000, at_ns: 1_500_000_000 };
        let empty = (who("/empty", "empty"), layout.row(&HashMap::new()), None);
        let rows = [(who("/terrarium/web", "web"), layout.row(&counts), Some(stall)), empty];
        let mut page = Page::new(format, without_zeros, 0);
        layout.write(&mut page, &rows);
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
