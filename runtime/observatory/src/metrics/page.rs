//! The text of the families about containers.
//!
//! They are most of an answer by far, so they have an encoder of their own: a series is its name, the labels that its
//! container has everywhere, the labels of its own, all ready as text, and a number. The prometheus crate's encoder
//! takes them apart and makes strings of each.

use super::family::Family;
use prometheus::proto::MetricType;
use std::io::Write as _;

/// A format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The one that a client asks for by its header `Accept`.
    pub fn wanted_by(accept: &str) -> Self {
        // Prometheus names OpenMetrics first when it wants it; whoever merely accepts anything gets the text.
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus::TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// An answer while it is written.
pub struct Page {
    /// The text.
    pub text: Vec<u8>,
    format: Format,
    /// Whether counters that are 0 are left out.
    without_zeros: bool,
    /// Whether series are counted and nothing is written.
    counts_only: bool,
    /// Lines of values.
    pub series: usize,
    /// Lines of values that were left out.
    pub left_out: usize,
}

/// A number as it is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// As it is.
    Plain(u64),
    /// Nanoseconds, shown as seconds.
    Nanoseconds(u64),
    /// Microseconds, shown as seconds.
    Microseconds(u64),
}

/// An event that stands for those in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// The task.
    pub tid: u32,
    /// Its command.
    pub comm: String,
    /// What was measured, nanoseconds.
    pub ns: u64,
    /// When, nanoseconds since the epoch.
    pub at_ns: u64,
}

impl Page {
    /// An empty page.
    pub const fn new(format: Format, without_zeros: bool) -> Self {
        Self { text: Vec::new(), format, without_zeros, counts_only: false, series: 0, left_out: 0 }
    }

    /// A page on which nothing is written, to see how many series there are, with and without counters that are 0.
    pub fn counting() -> Self {
        Self { counts_only: true, ..Self::new(Format::Text, true) }
    }

    /// Begins a family.
    pub fn family(&mut self, family: &Family) {
        let (name, kind) = match (self.format, family.kind) {
            (Format::OpenMetrics, MetricType::COUNTER) => {
                (family.name.strip_suffix("_total").unwrap_or(family.name), "counter")
            }
            (_, MetricType::COUNTER) => (family.name, "counter"),
            (_, MetricType::HISTOGRAM) => (family.name, "histogram"),
            _ => (family.name, "gauge"),
        };
        for part in ["# HELP ", name, " ", family.help, "\n# TYPE ", name, " ", kind, "\n"] {
            self.text.extend_from_slice(part.as_bytes());
        }
    }

    /// A counter, left out when it is 0 and those are left out.
    pub fn counter(&mut self, name: &str, who: &str, labels: &str, value: u64) {
        if value == 0 && self.without_zeros {
            self.left_out += 1;
        } else {
            self.value(name, "", who, labels, Number::Plain(value));
        }
    }

    /// One line. `who` begins with the brace, `labels` with a comma.
    pub fn value(&mut self, name: &str, part: &str, who: &str, labels: &str, value: Number) {
        self.series += 1;
        if self.counts_only {
            return;
        }
        self.labels(name, part, who, labels);
        self.number(value);
        self.text.push(b'\n');
    }

    fn labels(&mut self, name: &str, part: &str, who: &str, labels: &str) {
        for text in [name, part, who, labels, "} "] {
            self.text.extend_from_slice(text.as_bytes());
        }
    }

    /// A histogram of durations. `buckets` are counts, not cumulative, by the bounds `le` and one beyond.
    pub fn durations(
        &mut self,
        name: &str,
        who: &str,
        le: &[(u64, String)],
        buckets: &[u64],
        sum_ns: u64,
        exemplar: Option<&Exemplar>,
    ) {
        if self.without_zeros && buckets.iter().all(|&count| count == 0) {
            self.left_out += buckets.len() + 2;
            return;
        }
        if self.counts_only {
            self.series += buckets.len() + 2;
            return;
        }
        let place = exemplar.map(|exemplar| {
            le.iter().position(|(bound, _)| exemplar.ns <= *bound).unwrap_or(le.len())
        });
        let mut total = 0;
        let labels = le.iter().map(|(_, label)| label.as_str()).chain([",le=\"+Inf\""]);
        for (n, (count, label)) in buckets.iter().zip(labels).enumerate() {
            total += count;
            self.labels(name, "_bucket", who, label);
            self.number(Number::Plain(total));
            if let Some(exemplar) = exemplar.filter(|_| place == Some(n)) {
                self.exemplar(exemplar);
            }
            self.text.push(b'\n');
            self.series += 1;
        }
        self.value(name, "_sum", who, "", Number::Nanoseconds(sum_ns));
        self.value(name, "_count", who, "", Number::Plain(total));
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        if self.format != Format::OpenMetrics {
            return;
        }
        let Exemplar { tid, comm, ns, at_ns } = exemplar;
        // Writing to memory cannot fail.
        let _ = write!(self.text, " # {{tid=\"{tid}\",comm=\"{}\"}} ", escaped(comm));
        self.number(Number::Nanoseconds(*ns));
        self.text.push(b' ');
        self.number(Number::Nanoseconds(*at_ns));
    }

    fn number(&mut self, value: Number) {
        let (value, digits) = match value {
            Number::Plain(value) => (value, 0),
            Number::Nanoseconds(ns) => (ns, 9),
            Number::Microseconds(us) => (us, 6),
        };
        // 20 digits, and a point.
        let mut text = [0_u8; 21];
        let mut at = text.len();
        let mut rest = value;
        let mut written = 0;
        let mut significant = digits == 0;
        while rest > 0 || written <= digits {
            if written == digits && digits > 0 && significant {
                at -= 1;
                text[at] = b'.';
            }
            // The remainder is one digit.
            let digit = u8::try_from(rest % 10).unwrap_or(0);
            // Zeros at the end of a fraction say nothing.
            if significant || digit != 0 || written >= digits {
                significant = true;
                at -= 1;
                text[at] = b'0' + digit;
            }
            rest /= 10;
            written += 1;
        }
        self.text.extend_from_slice(&text[at..]);
    }
}

/// `{id="…",name="…"`: how the labels of everything about a container begin.
pub fn who(id: &str, name: &str) -> String {
    format!("{{id=\"{}\",name=\"{}\"", escaped(id), escaped(name))
}

/// `,name="value"`
pub fn label(name: &str, value: &str) -> String {
    format!(",{name}=\"{}\"", escaped(value))
}

/// A value with backslash, quote and newline escaped.
fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['\\', '"', '\n']) {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full_and_without_idle_zeros() {
        for (number, expected) in [
            (Number::Plain(0), "0"),
            (Number::Plain(u64::MAX), "18446744073709551615"),
            (Number::Nanoseconds(0), "0"),
            (Number::Nanoseconds(1), "0.000000001"),
            (Number::Nanoseconds(2_000_000_000), "2"),
            (Number::Nanoseconds(10_050_000_000), "10.05"),
            (Number::Microseconds(1_500_000), "1.5"),
            (Number::Nanoseconds(u64::MAX), "18446744073.709551615"),
        ] {
            let mut page = Page::new(Format::Text, false);
            page.number(number);
            assert_eq!(String::from_utf8_lossy(&page.text), expected, "{number:?}");
        }
    }

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        assert_eq!(who("/a\"b", "c\\d\ne"), r#"{id="/a\"b",name="c\\d\ne""#);
    }

    #[test]
    fn a_client_gets_what_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Format::wanted_by(prometheus), Format::OpenMetrics);
        assert_eq!(Format::wanted_by("*/*"), Format::Text);
        assert_eq!(Format::wanted_by(""), Format::Text);
    }
}
