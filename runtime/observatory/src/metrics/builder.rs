//! The families while they are filled in.

use super::family::Family;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily};
use std::collections::{BTreeMap, HashMap};

/// Upper bounds of histograms of durations, as powers of two of nanoseconds: 16 µs to 17 s.
pub const BOUNDS: [u8; 11] = [14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34];

/// The families while they are filled in.
#[derive(Default)]
pub struct Builder {
    metrics: HashMap<&'static str, Vec<Metric>>,
}

impl Builder {
    pub fn counter(&mut self, name: &'static str, labels: &[(&str, &str)], value: u64) {
        let mut metric = Metric::from_label(pairs(labels));
        let mut counter = Counter::default();
        counter.set_value(float(value));
        metric.set_counter(counter);
        self.metrics.entry(name).or_default().push(metric);
    }

    pub fn gauge(&mut self, name: &'static str, labels: &[(&str, &str)], value: u64) {
        let mut metric = Metric::from_label(pairs(labels));
        let mut gauge = Gauge::default();
        gauge.set_value(float(value));
        metric.set_gauge(gauge);
        self.metrics.entry(name).or_default().push(metric);
    }

    /// A histogram of durations. `buckets` holds counts by number of significant bits of nanoseconds.
    pub fn durations(
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

    /// Metrics that the prometheus crate has counted.
    pub fn extend(&mut self, name: &'static str, metrics: &[Metric]) {
        self.metrics.entry(name).or_default().extend(metrics.iter().cloned());
    }

    /// How many series there are; a histogram is one.
    pub fn series(&self) -> usize {
        self.metrics.values().map(Vec::len).sum()
    }

    /// The families that have a series, in the order given.
    pub fn finish(mut self, families: &[&'static Family]) -> Vec<MetricFamily> {
        families
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

pub fn seconds(ns: u64) -> f64 {
    float(ns) / 1e9
}
