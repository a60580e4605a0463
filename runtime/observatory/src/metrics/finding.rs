//! What `leaks` says of containers, as numbers.

use super::family::{Family, gauge};
use super::page::{Number, Page, label};
use crate::leaks::Finding;
use crate::sample::Observed;
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
        let of_container = tally.entry(finding.container.id.clone()).or_default();
        *of_container.entry((finding.check, finding.severity.name())).or_default() += 1;
    }
    tally
}

/// Writes the findings of each container; one without any has no series.
pub fn write(page: &mut Page, containers: &[(&Observed, &str)], tally: &Tally) {
    page.family(&FINDINGS);
    for (observed, who) in containers {
        let id = &observed.snapshot.container.id;
        for ((check, severity), count) in tally.get(id).into_iter().flatten() {
            let labels = label("check", check) + &label("severity", severity);
            page.value(FINDINGS.name, "", who, &labels, Number::Plain(*count));
        }
    }
}
