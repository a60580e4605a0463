//! An answer to a scrape: what was found of the containers, and its text, made a piece at a time as its reader takes it.
//!
//! With 5,000 containers the whole text is 180 MiB; it is nowhere at once.

use super::layout::{Layout, Slots};
use super::page::{Exemplar, Format, Page, label, who};
use super::usage::{USED, Used};
use super::{COUNTED, container, finding, memory};
use crate::lives::Life;
use crate::sample::{Observed, Sample};
use crate::shared::Shared;
use std::collections::BTreeMap;
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

/// What an answer tells of a container.
pub struct Row {
    of: Of,
    /// The labels that all its series begin with.
    pub who: String,
    /// The same with the label `image`.
    who_and_image: String,
    pub observed: Observed,
    slots: Slots,
    /// What stands for its longest stall.
    stall: Option<Exemplar>,
    pub life: Life,
    /// How many findings there are of it, by check and severity.
    pub findings: BTreeMap<(&'static str, &'static str), u64>,
}

/// What is told of all of them.
pub struct Table {
    layout: Arc<Layout>,
    parts: Vec<Part>,
    rows: Vec<Row>,
    /// The labels of containers that are shown, with the names that they have then.
    labels: Vec<(String, String)>,
    /// Whether counters that are 0 are left out.
    without_zeros: bool,
    /// Series.
    pub series: usize,
    /// Series that were left out.
    pub left_out: usize,
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
}

impl Table {
    /// What `sample` tells, of which `labels` of containers are shown. Where there would be more than `most` series, first counters
    /// that are 0 are left out, then the containers that come last.
    pub fn new(
        layout: &mut Arc<Layout>,
        sample: Sample,
        shared: &Shared,
        labels: &[String],
        (with_usage, most): (bool, usize),
    ) -> Self {
        let rows = rows(layout, sample, shared);
        let one_each = [Part::Info, Part::State, Part::Starts, Part::Exits, Part::LastStart];
        let counted = (0..COUNTED.len()).map(Part::Counted);
        let used = USED.iter().take(if with_usage { USED.len() } else { 0 }).map(Part::Used);
        let parts = one_each.into_iter().chain(counted);
        let parts = parts.chain([Part::MemoryEvents, Part::Findings]).chain(used).collect();
        let labels = labels.iter().map(|l| (l.clone(), container::label_name(l))).collect();
        let layout = Arc::clone(layout);
        let mut table =
            Self { layout, parts, rows, labels, without_zeros: true, series: 0, left_out: 0 };
        let (all, mut series) = table.count();
        if all <= most {
            table.without_zeros = false;
            table.series = all;
            return table;
        }
        // The host and what is unknown come last, and stay.
        let mut shown = table.rows.len() - 2;
        while series > most && shown > 0 {
            shown = (shown * most / series).min(shown - 1);
            table.rows.drain(shown..table.rows.len() - 2);
            series = table.count().1;
        }
        (table.series, table.left_out) = (series, all - series);
        table
    }

    /// How many series there are, and how many without counters that are 0.
    fn count(&self) -> (usize, usize) {
        let mut page = Page::counting();
        for part in &self.parts {
            for row in &self.rows {
                self.write_series(*part, row, &mut page);
            }
        }
        (page.series + page.left_out, page.series)
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
                self.layout.write(n, &row.who, &row.slots, row.stall.as_ref(), page);
            }
            (Part::Used(used), Of::Container | Of::Host) => {
                (used.series)(&row.observed, &mut |labels, value| {
                    page.value(used.family.name, "", &row.who_and_image, labels, value);
                });
            }
            (_, Of::Host | Of::Unknown) => {}
            (Part::Info, _) => container::write_info(row, &self.labels, page),
            (Part::State, _) => container::write_state(row, page),
            (Part::Starts, _) => container::write_starts(row, page),
            (Part::Exits, _) => container::write_exits(row, page),
            (Part::LastStart, _) => container::write_last_start(row, page),
            (Part::MemoryEvents, _) => {
                for (event, count) in row.observed.memory_events.named() {
                    page.counter(memory::EVENTS.name, &row.who, memory::event_label(event), count);
                }
            }
            (Part::Findings, _) => finding::write(row, page),
        }
    }
}

/// The rows of all containers, then those of the host and of what is unknown.
fn rows(layout: &mut Arc<Layout>, sample: Sample, shared: &Shared) -> Vec<Row> {
    let Sample { containers, host, machine, unknown, .. } = sample;
    let stalls = shared.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut findings = finding::tally(shared.leaks().each());
    let lives = shared.lives.lock().unwrap_or_else(PoisonError::into_inner);
    let of_host = |row, usage| Observed { row, usage, ..Observed::of_machine() };
    let others = [
        (Of::Host, "/", "host", of_host(host, machine)),
        (Of::Unknown, "", "unknown", of_host(unknown, crate::resources::Usage::default())),
    ];
    let mut all = Vec::with_capacity(containers.len() + others.len());
    // Answers that are still being written keep the layout that they began with.
    let layout = Arc::make_mut(layout);
    let mut add = |of, id: &str, name: &str, mut observed: Observed| {
        let who = who(id, name);
        let image = label("image", &observed.snapshot.container.image);
        all.push(Row {
            of,
            who_and_image: who.clone() + &image,
            who,
            slots: layout.row(&std::mem::take(&mut observed.row)),
            stall: stalls.get(id).cloned(),
            life: lives.of(id),
            findings: findings.remove(&observed.snapshot.container.id).unwrap_or_default(),
            observed,
        });
    };
    for observed in containers {
        let container = Arc::clone(&observed.snapshot.container);
        add(Of::Container, &container.path, &container.name, observed);
    }
    for (of, id, name, observed) in others {
        add(of, id, name, observed);
    }
    all
}

impl Answer {
    /// The answer that tells of `table`, with `end` behind it. It was worked on since `began`.
    pub fn new(
        table: Table,
        format: Format,
        end: Vec<u8>,
        scrapes: Arc<prometheus::Histogram>,
        began: Instant,
    ) -> Self {
        let page = Page::new(format, table.without_zeros);
        Self { table, page, next: (0, 0), end: Some(end), scrapes, worked: began.elapsed() }
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
