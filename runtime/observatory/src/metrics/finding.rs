//! What `leaks` says of containers, as numbers.

use super::answer::Row;
use super::family::{Family, gauge};
use super::page::{Number, Page, label};
use crate::leaks::Finding;
use std::collections::{BTreeMap, HashMap};

pub const FINDINGS: Family = gauge(
    "terrarium_isolation_findings",
    "Findings about the isolation of a container, of its state at the last look and of what it did.",
)
.with(&["check", "severity"]);

/// How many findings there are of each check and severity, by the id of the container.
pub type Tally = HashMap<String, BTreeMap<(&'static str, &'static str), u64>>;

/// Counts findings.
pub fn tally<'a>(findings: impl Iterator<Item = &'a Finding>) -> Tally {
    let mut tally = Tally::new();
    for finding in findings {
        let id = finding.container.id.as_str();
        if !tally.contains_key(id) {
            tally.insert(id.to_owned(), BTreeMap::new());
        }
        if let Some(of_container) = tally.get_mut(id) {
            *of_container.entry((finding.check, finding.severity.name())).or_default() += 1;
        }
    }
    tally
}

/// Writes the findings of a container; one without any has no series.
pub fn write(row: &Row, page: &mut Page) {
    for ((check, severity), count) in &row.findings {
        let labels = || label("check", check) + &label("severity", severity);
        page.value_of(FINDINGS.name, &row.who, labels, Number::Plain(*count));
    }
}
