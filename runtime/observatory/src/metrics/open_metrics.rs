//! The families that the prometheus crate keeps, in the format `OpenMetrics`, which its own encoder does not write.

use prometheus::Encoder;
use prometheus::proto::{LabelPair, MetricFamily, MetricType};
use std::io::Write;

/// Writes `OpenMetrics`, without the `# EOF` that ends a whole answer.
pub struct OpenMetricsEncoder;

impl Encoder for OpenMetricsEncoder {
    fn encode<W: Write>(&self, families: &[MetricFamily], out: &mut W) -> prometheus::Result<()> {
        for family in families {
            let kind = family.get_field_type();
            let name = match kind {
                MetricType::COUNTER => {
                    family.name().strip_suffix("_total").unwrap_or(family.name())
                }
                _ => family.name(),
            };
            writeln!(out, "# HELP {name} {}", family.help())?;
            let kind_name = match kind {
                MetricType::COUNTER => "counter",
                MetricType::HISTOGRAM => "histogram",
                _ => "gauge",
            };
            writeln!(out, "# TYPE {name} {kind_name}")?;
            for metric in family.get_metric() {
                let labels = metric.get_label();
                match kind {
                    MetricType::COUNTER => {
                        // The format asks for the suffix, whatever the family is called.
                        let value = metric.get_counter().get_value();
                        line(out, &format!("{name}_total"), labels, None, value)?;
                    }
                    MetricType::HISTOGRAM => {
                        let histogram = metric.get_histogram();
                        let bucket = format!("{name}_bucket");
                        for b in histogram.get_bucket() {
                            let le = b.upper_bound().to_string();
                            line(out, &bucket, labels, Some(&le), float(b.cumulative_count()))?;
                        }
                        let count = float(histogram.get_sample_count());
                        line(out, &bucket, labels, Some("+Inf"), count)?;
                        let sum = histogram.get_sample_sum();
                        line(out, &format!("{name}_sum"), labels, None, sum)?;
                        line(out, &format!("{name}_count"), labels, None, count)?;
                    }
                    _ => line(out, name, labels, None, metric.get_gauge().get_value())?,
                }
            }
        }
        Ok(())
    }

    fn format_type(&self) -> &'static str {
        super::page::Format::OpenMetrics.content_type()
    }
}

fn line<W: Write>(
    out: &mut W,
    name: &str,
    labels: &[LabelPair],
    le: Option<&str>,
    value: f64,
) -> prometheus::Result<()> {
    let own = labels.iter().map(|pair| super::page::label(pair.name(), pair.value()));
    let all: String = own.chain(le.map(|le| super::page::label("le", le))).collect();
    if all.is_empty() {
        writeln!(out, "{name} {value}")?;
    } else {
        writeln!(out, "{name}{{{}}} {value}", &all[1..])?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "the format has floats only")]
fn float(value: u64) -> f64 {
    value as f64
}
