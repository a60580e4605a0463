//! The Prometheus text format, version 0.0.4, read strictly.

use std::collections::{BTreeMap, BTreeSet};

/// One line of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_bucket`, `_sum` or `_count` where it has one.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// One answer of `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Every sample, in order.
    pub samples: Vec<Sample>,
    /// `# HELP` by name.
    pub help: BTreeMap<String, String>,
    /// `# TYPE` by name.
    pub kinds: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads `text`; an error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        for (number, line) in text.lines().enumerate() {
            metrics.line(line).map_err(|error| format!("line {}: {error}: {line}", number + 1))?;
        }
        Ok(metrics)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').ok_or("no help text")?;
            unique(self.help.insert(name.to_owned(), text.to_owned()), "HELP")
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("no type")?;
            unique(self.kinds.insert(name.to_owned(), kind.to_owned()), "TYPE")
        } else if line.is_empty() || line.starts_with('#') {
            Ok(())
        } else {
            self.samples.push(sample(line)?);
            Ok(())
        }
    }

    /// The sum of the samples of `name` that carry at least `labels`; `None` when there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self.select(name, labels).map(|sample| sample.value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The same as a count; 0 when there is no sample.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "asserted to be a whole number, and counts of tests are far below 2^53"
    )]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let value = self.value(name, labels).unwrap_or(0.0);
        assert!(value >= 0.0 && value.fract() == 0.0, "{name}{labels:?} is {value}");
        value as u64
    }

    /// The samples of `name` that carry at least `labels`.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| {
                    sample.labels.get(*label).is_some_and(|found| found == value)
                })
        })
    }

    /// The name under which HELP and TYPE of `sample` stand: without the ending of a histogram's or summary's part.
    pub fn family<'a>(&self, sample: &'a str) -> &'a str {
        ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|ending| sample.strip_suffix(ending))
            .find(|name| {
                self.kinds.get(*name).is_some_and(|kind| kind == "histogram" || kind == "summary")
            })
            .unwrap_or(sample)
    }

    /// Everything that is wrong with the exposition beyond its grammar, one thing a line.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            let family = self.family(&sample.name);
            if !self.help.contains_key(family) {
                faults.push(format!("{family} has no HELP"));
            }
            match self.kinds.get(family).map(String::as_str) {
                None => faults.push(format!("{family} has no TYPE")),
                Some("counter") if !family.ends_with("_total") => {
                    faults.push(format!("counter {family} does not end in _total"));
                }
                Some("counter") if sample.value < 0.0 => {
                    faults.push(format!("counter {family} is {}", sample.value));
                }
                Some(_) => {}
            }
            if !seen.insert((&sample.name, &sample.labels)) {
                faults.push(format!("{}{:?} stands twice", sample.name, sample.labels));
            }
        }
        faults.sort();
        faults.dedup();
        faults
    }
}

fn unique(before: Option<String>, what: &str) -> Result<(), String> {
    before.map_or(Ok(()), |_| Err(format!("a second {what} of one name")))
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("not a metric name".to_owned());
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let mut fields = rest.split_whitespace();
    let value = match fields.next().ok_or("no value")? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value => value.parse().map_err(|error| format!("{value}: {error}"))?,
    };
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Labels and what follows the closing brace.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        loop {
            match characters.next().ok_or("a label value without its end")? {
                (_, '\\') => match characters.next().ok_or("a label value without its end")?.1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    c => return Err(format!("unknown escape \\{c}")),
                },
                (end, '"') => {
                    rest = &after[end + 1..];
                    break;
                }
                (_, c) => value.push(c),
            }
        }
        unique(labels.insert(name.to_owned(), value), "label")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP t_clone_total Tasks made.
# TYPE t_clone_total counter
t_clone_total{id="/terrarium/web",name="web",kind="process"} 1000
t_clone_total{id="/terrarium/web",name="web",kind="thread"} 2 1700000000000
# HELP t_stall_seconds Time.
# TYPE t_stall_seconds histogram
t_stall_seconds_bucket{name="a \"b\" \\ {c}",le="+Inf"} 3
t_stall_seconds_sum 0.25
t_stall_seconds_count 3
"#;

    #[test]
    fn values_are_selected_and_summed_by_label() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.count("t_clone_total", &[("name", "web")]), 1002);
        assert_eq!(metrics.count("t_clone_total", &[("kind", "process")]), 1000);
        assert_eq!(metrics.value("t_clone_total", &[("name", "other")]), None);
        assert_eq!(metrics.value("t_stall_seconds_sum", &[]), Some(0.25));
    }

    #[test]
    fn escapes_in_label_values_are_undone() {
        let metrics = Metrics::parse(TEXT).unwrap();
        let bucket = metrics.select("t_stall_seconds_bucket", &[]).next().unwrap();
        assert_eq!(bucket.labels["name"], r#"a "b" \ {c}"#);
    }

    #[test]
    fn a_sound_exposition_has_no_faults() {
        assert_eq!(Metrics::parse(TEXT).unwrap().faults(), Vec::<String>::new());
    }

    #[test]
    fn faults_are_named() {
        let text = "# TYPE a counter\na 1\na 1\nb 2\n";
        assert_eq!(
            Metrics::parse(text).unwrap().faults(),
            [
                "a has no HELP",
                "a{} stands twice",
                "b has no HELP",
                "b has no TYPE",
                "counter a does not end in _total"
            ]
        );
    }

    #[test]
    fn broken_lines_are_refused_with_their_number() {
        for (text, number) in [("a\n", 1), ("a 1\nb{c=\"d} 1\n", 2), ("a x\n", 1), ("1a 2\n", 1)] {
            let error = Metrics::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("line {number}: ")), "{text:?} gave {error}");
        }
    }
}
