//! Where each counter of the probes goes in a row, and the labels that it is shown with.
//!
//! Made once: what is left to do at a scrape is to add numbers up and to copy text.

use super::family::{Counted, Family, Shape};
use super::page::{Exemplar, Page, label};
use foldhash::{HashMap, HashMapExt};
use terrarium_abi::Kind;
use terrarium_abi::counter::BOUNDS;

/// Buckets of a histogram: one a bound, and one beyond the last.
const BUCKETS: usize = BOUNDS.len() + 1;

/// The table.
#[derive(Clone)]
pub struct Layout {
    families: Vec<Place>,
    /// Where a kind is counted. Kinds that share their labels share their slot.
    slots: HashMap<Kind, usize>,
    by_counter: HashMap<u8, usize>,
    /// The bounds in nanoseconds, with their labels.
    le: Vec<(u64, String)>,
    length: usize,
    page_bytes: u64,
}

/// Where a family's series are.
#[derive(Clone)]
struct Place {
    counted: &'static Counted,
    series: Vec<Series>,
    /// The first of the slots of a histogram: buckets, then the sum.
    histogram: usize,
}

#[derive(Clone)]
struct Series {
    labels: String,
    slot: usize,
    /// Whether it is shown when it is 0.
    known: bool,
}

/// The numbers of one container, by slot.
pub struct Slots(Vec<u64>);

impl Layout {
    /// The layout of these families.
    pub fn new(counted: &[&'static Counted], page_bytes: u64) -> Self {
        let le = BOUNDS.map(|bits| {
            let ns = 1_u64 << bits;
            let seconds = std::time::Duration::from_nanos(ns).as_secs_f64();
            (ns, label("le", &seconds.to_string()))
        });
        let mut layout = Self {
            families: Vec::new(),
            slots: HashMap::new(),
            by_counter: HashMap::new(),
            le: le.to_vec(),
            length: 0,
            page_bytes,
        };
        for counted in counted {
            let histogram = layout.length;
            layout.by_counter.insert(counted.counts, layout.families.len());
            if let Shape::Durations { sum } = counted.shape {
                layout.by_counter.insert(sum, layout.families.len());
                layout.length += BUCKETS + 1;
            }
            layout.families.push(Place { counted, series: Vec::new(), histogram });
            for kind in (counted.known)() {
                layout.slot(kind, true);
            }
        }
        layout
    }

    /// Whether this has a place for each of these kinds that it can have one for.
    pub fn knows<'a>(&self, mut kinds: impl Iterator<Item = &'a Kind>) -> bool {
        kinds.all(|kind| {
            self.slots.contains_key(kind) || !self.by_counter.contains_key(&kind.parts().0)
        })
    }

    /// Gives each of these kinds a place.
    pub fn learn<'a>(&mut self, kinds: impl Iterator<Item = &'a Kind>) {
        for kind in kinds {
            if !self.slots.contains_key(kind) {
                self.slot(*kind, false);
            }
        }
    }

    /// A row of these counters. Kinds without a place are left out.
    pub fn row(&self, counts: &HashMap<Kind, u64>) -> Slots {
        let mut row = vec![0; self.length];
        for (kind, count) in counts {
            if let Some(&slot) = self.slots.get(kind) {
                row[slot] += count;
            }
        }
        Slots(row)
    }

    fn slot(&mut self, kind: Kind, known: bool) -> Option<usize> {
        let (family, labels) = kind.parts();
        let place = &mut self.families[*self.by_counter.get(&family)?];
        let slot = if let Shape::Durations { sum } = place.counted.shape {
            place.histogram
                + if family == sum {
                    BUCKETS
                } else {
                    // Bucket n holds durations below 1 << n.
                    let [bucket, ..] = labels;
                    BOUNDS.iter().position(|bound| bucket <= *bound).unwrap_or(BOUNDS.len())
                }
        } else {
            let labels: String =
                (place.counted.labels)(labels).iter().map(|(n, v)| label(n, v)).collect();
            let known_already = place.series.iter().find(|series| series.labels == labels);
            if let Some(series) = known_already {
                series.slot
            } else {
                let slot = self.length;
                self.length += 1;
                place.series.push(Series { labels, slot, known });
                slot
            }
        };
        self.slots.insert(kind, slot);
        Some(slot)
    }

    /// The family of this number, in the order in which they were given.
    pub fn family(&self, number: usize) -> &'static Family {
        &self.families[number].counted.family
    }

    /// Writes the series of a container, whose labels begin with `who`, in the family of this number. `stall` stands for its longest.
    pub fn write(
        &self,
        number: usize,
        who: &str,
        Slots(row): &Slots,
        stall: Option<&Exemplar>,
        page: &mut Page,
    ) {
        let place = &self.families[number];
        let name = place.counted.family.name;
        let factor = match place.counted.shape {
            Shape::Count => 1,
            Shape::PagesAsBytes => self.page_bytes,
            Shape::Durations { .. } => {
                let numbers = &row[place.histogram..=place.histogram + BUCKETS];
                let stall = stall.filter(|_| place.counted.has_exemplars());
                page.durations(name, who, &self.le, &numbers[..BUCKETS], numbers[BUCKETS], stall);
                return;
            }
        };
        for series in &place.series {
            let count = row.get(series.slot).copied().unwrap_or(0);
            if count > 0 || series.known {
                page.counter(name, who, &series.labels, count * factor);
            }
        }
    }
}
