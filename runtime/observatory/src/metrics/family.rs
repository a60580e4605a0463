//! What a family of metrics is.

use prometheus::proto::MetricType;
use terrarium_abi::Kind;

/// A family of metrics.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// Its type.
    pub kind: MetricType,
    /// Its labels beside `id`, `name` and `image`; those of a [`Counted`] follow from its counters.
    pub labels: &'static [&'static str],
}

impl Family {
    /// The same with these labels.
    #[must_use]
    pub const fn with(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }
}

/// A family of counters.
pub const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::COUNTER, labels: &[] }
}

/// A family of gauges.
pub const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::GAUGE, labels: &[] }
}

/// A family of histograms.
pub const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::HISTOGRAM, labels: &[] }
}

/// Labels beside `id` and `name`, in the order in which they are shown.
pub type Labels = Vec<(&'static str, &'static str)>;

/// A family whose numbers are counters of the probes, one row a container.
pub struct Counted {
    /// Its name, help and type.
    pub family: Family,
    /// Which counters: a constant of [`terrarium_abi::counter::family`].
    pub counts: u8,
    /// How their numbers are shown.
    pub shape: Shape,
    /// The series that every container has from the start, so that the first event is an increase.
    pub known: fn() -> Vec<Kind>,
    /// The labels of a counter, from the three of its [`Kind`]. Counters that share their labels are summed.
    pub labels: fn([u8; 3]) -> Labels,
}

impl Counted {
    /// Whether an event of its own is kept for each container, to be shown as exemplar.
    pub fn has_exemplars(&self) -> bool {
        self.counts == terrarium_abi::counter::family::MEMORY_STALL
    }
}

/// How the numbers of counters are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As they are.
    Count,
    /// Pages, as bytes.
    PagesAsBytes,
    /// A histogram of durations: label 0 is the bucket.
    Durations {
        /// The counter that sums the durations, nanoseconds.
        sum: u8,
    },
}

/// One series without labels of its own.
pub const fn no_labels(_: [u8; 3]) -> Labels {
    Vec::new()
}

/// No series from the start but those that a histogram has anyway.
pub const fn none_known() -> Vec<Kind> {
    Vec::new()
}

/// `result`, from the byte that says whether it failed.
pub const fn result(failed: u8) -> (&'static str, &'static str) {
    ("result", if failed == 0 { "ok" } else { "error" })
}
