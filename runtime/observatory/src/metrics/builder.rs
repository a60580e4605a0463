//! The families about the observatory itself while they are filled in.

use super::family::Family;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily};
use std::collections::HashMap;

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

    /// A counter of time, in seconds.
    pub fn seconds(&mut self, name: &'static str, labels: &[(&str, &str)], ns: u64) {
        let mut metric = Metric::from_label(pairs(labels));
        let mut counter = Counter::default();
        counter.set_value(std::time::Duration::from_nanos(ns).as_secs_f64());
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

    /// Metrics that the prometheus crate has counted.
    pub fn extend(&mut self, name: &'static str, metrics: &[Metric]) {
        self.metrics.entry(name).or_default().extend(metrics.iter().cloned());
    }

    /// The families that have a series, in the order given.
    pub fn finish(mut self, families: &[&'static Family]) -> Vec<MetricFamily> {
        families
            .iter()
            .filter_map(|Family { name, help, kind, .. }| {
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
