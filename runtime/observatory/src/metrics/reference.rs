//! docs/METRICS.md, written from the tables, and kept so by a test.

use super::family::{Family, Shape};
use super::{COUNTED, USED, container, finding, memory, observatory};
use prometheus::proto::MetricType;
use std::fmt::Write as _;

const HEAD: &str = "\
# Metrics

This page is written from the code (`TERRARIUM_WRITE_DOCS=1 cargo test -p terrarium-observatory reference`); a test compares.

`terrarium observe` serves them at `/metrics`, in the text format or, for those who ask for it, as OpenMetrics, where histograms of
stalls carry an exemplar: the task that stood there last. Every series about a container has the labels `id`, the path of its cgroup,
and `name`; what else is known of it stands once, in `terrarium_container_info`, to be joined. Tasks in no container are summed
under `name=\"host\"`, those in cgroups that nobody knows under `name=\"unknown\"`.

| option | what |
|---|---|
| `--grace TIME` | how long the series of a removed container stay (5m) |
| `--cadvisor-names`, `--no-cadvisor-names` | shows what containers use under cAdvisor's names, as without either, or leaves it out |
| `--label-allow LIST` | labels of containers to show in `terrarium_container_info`, as `label_NAME` |
| `--max-series N` | the most series about containers in one answer (50000; 0: no bound). Beyond it first counters that are 0 are left out, then the containers whose path comes last |
";

/// A family with the names of its labels.
type Described = (&'static Family, Vec<&'static str>);

/// All families by part of the page, in the order in which they are shown.
pub fn families() -> Vec<(&'static str, Vec<Described>)> {
    let own = |family: &'static Family| (family, family.labels.to_vec());
    let counted = COUNTED.iter().map(|counted| {
        let example = (counted.known)().first().map_or([0; 3], |kind| kind.parts().1);
        let labels = (counted.labels)(example).into_iter().map(|(name, _)| name).collect();
        assert!(matches!(counted.shape, Shape::Durations { .. }) || !(counted.known)().is_empty());
        (&counted.family, labels)
    });
    vec![
        (
            "Who the containers are",
            [
                &container::INFO,
                &container::STATE,
                &container::STARTS,
                &container::EXITS,
                &container::LAST_START,
            ]
            .map(own)
            .to_vec(),
        ),
        ("What the probes count", counted.collect()),
        ("What the kernel counts", vec![own(&memory::EVENTS)]),
        ("What is found about their isolation", vec![own(&finding::FINDINGS)]),
        (
            "What containers use, under cAdvisor's names, with the label `image`",
            USED.iter().map(|used| own(&used.family)).collect(),
        ),
        ("The observatory about itself", observatory::FAMILIES.map(own).to_vec()),
    ]
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (title, families) in families() {
        writeln!(page, "\n## {title}\n\n| name | type | labels | what |\n|---|---|---|---|")
            .expect("a string");
        for (family, labels) in families {
            let kind = match family.kind {
                MetricType::COUNTER => "counter",
                MetricType::HISTOGRAM => "histogram",
                _ => "gauge",
            };
            let Family { name, help, .. } = family;
            writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(" "))
                .expect("a string");
        }
    }
    page + "\n`process_*` are those that every Prometheus client has.\n"
}

#[test]
fn the_page_tells_what_the_code_does() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md");
    let page = page();
    if std::env::var_os("TERRARIUM_WRITE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(file, &page).expect("write docs/METRICS.md");
    }
    let there = std::fs::read_to_string(file).unwrap_or_default();
    assert!(there == page, "docs/METRICS.md is out of date: TERRARIUM_WRITE_DOCS=1 writes it");
}
