//! An answer to a scrape: what was found of the containers, and its text, made a piece at a time as its reader takes it.
//!
//! With 5,000 containers the whole text is 180 MiB; it is nowhere at once.

use super::layout::{Layout, Slots};
use super::page::{Exemplar, Format, Page, label, who};
use super::usage::{USED, Used};
use super::{COUNTED, container, finding, memory};
use crate::attribution::Container;
use crate::lives::{Life, Lives};
use crate::precedence::Answering;
use crate::resources::Usage;
use crate::sample::{Observed, Sample};
use crate::shared::Shared;
use crate::shares::in_shares;
use foldhash::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// About as many bytes are a piece.
const PIECE_BYTES: usize = 64 << 10;

/// A family of the part about containers.
#[derive(Clone, Copy)]
enum Part {
    Info,
    State,
    Starts,
    Exits,
    LastStart,
    /// Counters of the probes: the number of their family.
    Counted(usize),
    MemoryEvents,
    Findings,
    Used(&'static Used),
}

/// Whom a row is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Container,
    /// What is in no container, and the machine as a whole.
    Host,
    /// Cgroups that are not known.
    Unknown,
}

/// The labels of a container, as text.
pub struct Labels {
    /// Those that all its series begin with.
    who: String,
    /// The same with the label `image`.
    who_and_image: String,
    /// The others of `terrarium_container_info`.
    pub info: String,
}

impl Labels {
    /// Those of a container with this id and name, of whose own labels these are shown.
    fn new(id: &str, name: &str, container: &Container, allowed: &[(String, String)]) -> Self {
        let who = who(id, name);
        let who_and_image = who.clone() + &label("image", &container.image);
        Self { who, who_and_image, info: container::info_labels(container, allowed) }
    }
}

/// What an answer tells of a container.
pub struct Row {
    of: Of,
    pub labels: Arc<Labels>,
    pub observed: Observed,
    slots: Slots,
    /// What stands for its longest stall.
    stall: Option<Exemplar>,
    pub life: Life,
    /// How many findings there are of it, where there are any.
    pub findings: Option<finding::OfContainer>,
    /// How many series it has.
    series: SeriesCount,
}

impl Row {
    /// The labels that all its series begin with.
    pub fn who(&self) -> &str {
        &self.labels.who
    }
}

/// How many series something has.
#[derive(Clone, Copy, Default)]
struct SeriesCount {
    all: usize,
    /// Those that are left without counters that are 0.
    without_zeros: usize,
}

impl SeriesCount {
    fn and(self, other: Self) -> Self {
        let without_zeros = self.without_zeros + other.without_zeros;
        Self { all: self.all + other.all, without_zeros }
    }
}

/// What is kept from answer to answer, as it rarely changes.
pub struct Kept {
    layout: Arc<Layout>,
    /// The labels of containers that are shown, with the names that they have then.
    allowed: Vec<(String, String)>,
    /// Labels of containers, in the order of their paths.
    labels: Vec<(Arc<Container>, Arc<Labels>)>,
    findings: finding::Tally,
    /// [`crate::leaks::events::Log::changes`] when they were counted.
    findings_of: Option<u64>,
}

impl Kept {
    /// Nothing yet, for answers of this layout that show these labels of containers.
    pub fn new(layout: Layout, labels: &[String]) -> Self {
        let allowed = labels.iter().map(|l| (l.clone(), container::label_name(l))).collect();
        Self {
            layout: Arc::new(layout),
            allowed,
            labels: Vec::new(),
            findings: finding::Tally::default(),
            findings_of: None,
        }
    }

    /// The labels of these containers, which are in the order of their paths.
    fn labels_of(&mut self, containers: &[Observed]) -> Vec<Arc<Labels>> {
        let mut before = std::mem::take(&mut self.labels).into_iter().peekable();
        for observed in containers {
            let container = &observed.snapshot.container;
            while before.next_if(|(known, _)| known.path < container.path).is_some() {}
            let known = before.next_if(|(known, _)| Arc::ptr_eq(known, container));
            self.labels.push(known.unwrap_or_else(|| {
                let Container { path, name, .. } = &**container;
                let labels = Labels::new(path, name, container, &self.allowed);
                (Arc::clone(container), Arc::new(labels))
            }));
        }
        self.labels.iter().map(|(_, labels)| Arc::clone(labels)).collect()
    }

    /// Counts findings anew where there may be others.
    fn count_findings(&mut self, shared: &Shared) {
        let log = shared.leaks();
        if self.findings_of != Some(log.changes()) {
            self.findings_of = Some(log.changes());
            self.findings = finding::tally(log.each());
        }
    }
}

/// What is told of all of them.
pub struct Table {
    layout: Arc<Layout>,
    parts: Vec<Part>,
    rows: Vec<Row>,
    /// Whether counters that are 0 are left out.
    without_zeros: bool,
    /// Series.
    pub series: usize,
    /// Series that were left out.
    pub left_out: usize,
}

/// What else is known of containers.
#[derive(Clone, Copy)]
struct About<'a> {
    /// What stands for the longest stalls, by path.
    stalls: &'a HashMap<String, Exemplar>,
    lives: &'a Lives,
    findings: &'a finding::Tally,
}

/// What is left to be written of an answer.
pub struct Answer {
    table: Table,
    page: Page,
    /// What comes next: the number of a part, and of a row in it.
    next: (usize, usize),
    /// What comes last.
    end: Option<Vec<u8>>,
    scrapes: Arc<prometheus::Histogram>,
    /// How long it was worked on.
    worked: Duration,
    _answering: Answering,
}

impl Table {
    /// What `sample` tells. Where there would be more than `most` series, first counters that are 0 are left out, then the containers
    /// that come last.
    pub fn new(
        kept: &mut Kept,
        sample: Sample,
        shared: &Shared,
        (with_usage, most): (bool, usize),
    ) -> Self {
        let one_each = [Part::Info, Part::State, Part::Starts, Part::Exits, Part::LastStart];
        let counted = (0..COUNTED.len()).map(Part::Counted);
        let used = USED.iter().take(if with_usage { USED.len() } else { 0 }).map(Part::Used);
        let parts = one_each.into_iter().chain(counted);
        let parts = parts.chain([Part::MemoryEvents, Part::Findings]).chain(used).collect();
        let (rows, layout) = (Vec::new(), Arc::clone(&kept.layout));
        let mut table = Self { layout, parts, rows, without_zeros: false, series: 0, left_out: 0 };
        table.add_rows(kept, sample, shared);
        let all = table.rows.iter().fold(SeriesCount::default(), |sum, row| sum.and(row.series));
        table.series = all.all;
        if all.all > most {
            table.without_zeros = true;
            table.series = all.without_zeros;
            // The host and what is unknown come last, and stay.
            let end = table.rows.len() - 2;
            let mut shown = end;
            while table.series > most && shown > 0 {
                shown -= 1;
                table.series -= table.rows[shown].series.without_zeros;
            }
            table.rows.drain(shown..end);
            table.left_out = all.all - table.series;
        }
        table
    }

    /// The rows of all containers, then those of the host and of what is unknown.
    fn add_rows(&mut self, kept: &mut Kept, sample: Sample, shared: &Shared) {
        let Sample { containers, host, machine, unknown, .. } = sample;
        let of_host = |row, usage| Observed { row, usage, ..Observed::of_machine() };
        let others = [
            (Of::Host, "/", "host", of_host(host, machine)),
            (Of::Unknown, "", "unknown", of_host(unknown, Usage::default())),
        ];
        kept.count_findings(shared);
        let labels = kept.labels_of(&containers);
        let containers = containers.into_iter().zip(labels);
        let mut all: Vec<_> =
            containers.map(|(observed, labels)| (Of::Container, labels, Some(observed))).collect();
        for (of, id, name, observed) in others {
            let labels = Labels::new(id, name, &observed.snapshot.container, &kept.allowed);
            all.push((of, Arc::new(labels), Some(observed)));
        }
        let kinds = || all.iter().filter_map(|one| one.2.as_ref()).flat_map(|one| one.row.keys());
        if !kept.layout.knows(kinds()) {
            // Answers that are still being written keep the layout that they began with.
            Arc::make_mut(&mut kept.layout).learn(kinds());
        }
        self.layout = Arc::clone(&kept.layout);
        let stalls = shared.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lives = shared.lives.lock().unwrap_or_else(PoisonError::into_inner);
        let about = About { stalls: &stalls, lives: &lives, findings: &kept.findings };
        let rows = in_shares(&mut all, |(of, labels, observed), _| {
            Some(self.row(*of, labels, observed.take()?, about))
        });
        drop(lives);
        self.rows = rows.into_iter().flatten().collect();
    }

    fn row(&self, of: Of, labels: &Arc<Labels>, mut observed: Observed, about: About<'_>) -> Row {
        let Container { path, id, .. } = &*observed.snapshot.container;
        let mut row = Row {
            of,
            labels: Arc::clone(labels),
            slots: self.layout.row(&std::mem::take(&mut observed.row)),
            stall: about.stalls.get(path).cloned(),
            life: about.lives.of(path),
            findings: about.findings.get(id).map(Arc::clone),
            series: SeriesCount::default(),
            observed,
        };
        let mut page = Page::counting();
        for part in &self.parts {
            self.write_series(*part, &row, &mut page);
        }
        row.series.all = page.series + page.left_out;
        row.series.without_zeros = page.series;
        row
    }

    fn begin(&self, part: Part, page: &mut Page) {
        page.family(match part {
            Part::Info => &container::INFO,
            Part::State => &container::STATE,
            Part::Starts => &container::STARTS,
            Part::Exits => &container::EXITS,
            Part::LastStart => &container::LAST_START,
            Part::Counted(n) => self.layout.family(n),
            Part::MemoryEvents => &memory::EVENTS,
            Part::Findings => &finding::FINDINGS,
            Part::Used(used) => &used.family,
        });
    }

    fn write_series(&self, part: Part, row: &Row, page: &mut Page) {
        match (part, row.of) {
            (Part::Counted(n), _) => {
                self.layout.write(n, row.who(), &row.slots, row.stall.as_ref(), page);
            }
            (Part::Used(used), Of::Container | Of::Host) => {
                (used.series)(&row.observed, &mut |labels, value| {
                    page.value(used.family.name, "", &row.labels.who_and_image, labels, value);
                });
            }
            (_, Of::Host | Of::Unknown) => {}
            (Part::Info, _) => container::write_info(row, page),
            (Part::State, _) => container::write_state(row, page),
            (Part::Starts, _) => container::write_starts(row, page),
            (Part::Exits, _) => container::write_exits(row, page),
            (Part::LastStart, _) => container::write_last_start(row, page),
            (Part::MemoryEvents, _) => {
                for (event, count) in row.observed.memory_events.named() {
                    page.counter(memory::EVENTS.name, row.who(), memory::event_label(event), count);
                }
            }
            (Part::Findings, _) => finding::write(row, page),
        }
    }
}

impl Answer {
    /// The answer that tells of `table`, with `end` behind it. It was worked on since `began`.
    pub fn new(
        table: Table,
        format: Format,
        end: Vec<u8>,
        scrapes: Arc<prometheus::Histogram>,
        (began, answering): (Instant, Answering),
    ) -> Self {
        let page = Page::new(format, table.without_zeros);
        Self {
            table,
            page,
            next: (0, 0),
            end: Some(end),
            scrapes,
            worked: began.elapsed(),
            _answering: answering,
        }
    }

    /// Writes until a piece is full, or all is written.
    fn write(&mut self) {
        while self.page.text.len() < PIECE_BYTES
            && let Some(part) = self.table.parts.get(self.next.0)
        {
            if self.next.1 == 0 {
                self.table.begin(*part, &mut self.page);
            }
            let Some(row) = self.table.rows.get(self.next.1) else {
                self.next = (self.next.0 + 1, 0);
                continue;
            };
            self.table.write_series(*part, row, &mut self.page);
            self.next.1 += 1;
        }
    }
}

impl Iterator for Answer {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let began = Instant::now();
        self.write();
        let room = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        let mut piece = std::mem::replace(&mut self.page.text, room);
        if piece.is_empty() {
            piece = self.end.take()?;
            self.scrapes.observe((self.worked + began.elapsed()).as_secs_f64());
        }
        self.worked += began.elapsed();
        Some(piece)
    }
}
