//! What `leaks` says of containers, as numbers.

use super::answer::Row;
use super::family::{Family, gauge};
use super::page::{Number, Page, label};
use crate::leaks::Finding;
use foldhash::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const FINDINGS: Family = gauge(
    "terrarium_isolation_findings",
    "Findings about the isolation of a container, of its state at the last look and of what it did.",
)
.with(&["check", "severity"]);

/// How many findings there are of a container, by the labels for each check and severity.
pub type OfContainer = Arc<[(Arc<str>, u64)]>;

/// The same by the id of the container.
pub type Tally = HashMap<String, OfContainer>;

/// Counts findings.
pub fn tally<'a>(findings: impl Iterator<Item = &'a Finding>) -> Tally {
    let mut tally: HashMap<String, BTreeMap<(&'static str, &'static str), u64>> =
        HashMap::default();
    for finding in findings {
        let id = finding.container.id.as_str();
        if !tally.contains_key(id) {
            tally.insert(id.to_owned(), BTreeMap::new());
        }
        if let Some(of_container) = tally.get_mut(id) {
            *of_container.entry((finding.check, finding.severity.name())).or_default() += 1;
        }
    }
    let mut labels: HashMap<(&str, &str), Arc<str>> = HashMap::default();
    let mut labelled = |((check, severity), count)| {
        let new = || (label("check", check) + &label("severity", severity)).into();
        (Arc::clone(labels.entry((check, severity)).or_insert_with(new)), count)
    };
    tally.into_iter().map(|(id, all)| (id, all.into_iter().map(&mut labelled).collect())).collect()
}

/// Writes the findings of a container; one without any has no series.
pub fn write(row: &Row, page: &mut Page) {
    for (labels, count) in row.findings.iter().flat_map(|all| all.iter()) {
        page.value(FINDINGS.name, "", row.who(), labels, Number::Plain(*count));
    }
}
