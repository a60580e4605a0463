//! The table of probes and the ways in which each kernel lets them attach.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kernels::machine::Record;

const BEGIN: &str = "<!-- matrix: written by cargo xtask kernels --write -->";
const END: &str = "<!-- end of matrix -->";

/// One kernel's answers.
pub struct Column {
    kernel: String,
    mechanisms: BTreeMap<String, String>,
}

impl Column {
    pub fn from_records(kernel: &str, records: &[Record]) -> Self {
        let mut mechanisms: BTreeMap<String, String> = BTreeMap::new();
        for record in records {
            let Record::Probe { name, mechanism } = record else { continue };
            // The hooks of one probe may attach in different ways.
            let ways = mechanisms.entry(name.clone()).or_default();
            if !ways.is_empty() {
                ways.push_str(", ");
            }
            ways.push_str(mechanism);
        }
        Self { kernel: kernel.to_owned(), mechanisms }
    }

    /// The kernel of this machine, as `terrarium doctor --format json` tells of it.
    pub fn of_host(doctor: &Value) -> Self {
        let release = doctor["kernel"]["release"].as_str().unwrap_or("unknown");
        let version: Vec<_> = release.split('.').take(2).collect();
        let mut mechanisms = BTreeMap::new();
        for probe in doctor["probes"].as_array().into_iter().flatten() {
            let hooks = probe["hooks"].as_array().into_iter().flatten();
            let mut ways: Vec<_> = hooks.filter_map(|hook| hook["mechanism"].as_str()).collect();
            ways.sort_unstable();
            ways.dedup();
            if let (Some(name), false) = (probe["name"].as_str(), ways.is_empty()) {
                mechanisms.insert(name.to_owned(), ways.join(", "));
            }
        }
        Self { kernel: format!("{} (host)", version.join(".")), mechanisms }
    }
}

/// A Markdown table: a row a probe, a column a kernel.
pub fn table(columns: &[Column]) -> String {
    let mut probes: Vec<&String> = columns.iter().flat_map(|c| c.mechanisms.keys()).collect();
    probes.sort();
    probes.dedup();
    let mut out = String::from("| probe |");
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for cell in cells {
            write!(out, " {cell} |").expect("writing to a string cannot fail");
        }
        out.push_str("\n|");
    };
    line(&mut columns.iter().map(|column| column.kernel.as_str()));
    line(&mut std::iter::repeat_n("---", columns.len() + 1));
    for probe in probes {
        let cells = columns.iter().map(|c| c.mechanisms.get(probe).map_or("–", String::as_str));
        line(&mut std::iter::once(probe.as_str()).chain(cells));
    }
    out.pop();
    out
}

/// Replaces what stands between the two marks of the page.
pub fn write(page: &Path, table: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let new = replaced(&text, table)
        .with_context(|| format!("{} lacks the line {BEGIN} or {END}", page.display()))?;
    fs::write(page, new).with_context(|| format!("write {}", page.display()))
}

fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_one_kernel_lacks_leaves_a_dash() {
        let probe = |name: &str, mechanism: &str| Record::Probe {
            name: name.to_owned(),
            mechanism: mechanism.to_owned(),
        };
        let columns = [
            Column::from_records("5.10", &[probe("mount", "kprobe")]),
            Column::from_records(
                "6.1",
                &[probe("mount", "fentry"), probe("task", "tp_btf"), probe("task", "fentry")],
            ),
        ];
        assert_eq!(
            table(&columns),
            "| probe | 5.10 | 6.1 |\n| --- | --- | --- |\n\
             | mount | kprobe | fentry |\n| task | – | tp_btf, fentry |\n"
        );
    }

    #[test]
    fn the_host_is_a_column_as_well() {
        let doctor = serde_json::json!({
            "kernel": { "release": "6.18.44-x" },
            "probes": [
                { "name": "task", "hooks": [
                    { "mechanism": "tp_btf" }, { "mechanism": null }, { "mechanism": "tp_btf" },
                    { "mechanism": "tracepoint" },
                ] },
                { "name": "guard", "hooks": [{ "mechanism": null }] },
            ],
        });
        assert_eq!(
            table(&[Column::of_host(&doctor)]),
            "| probe | 6.18 (host) |\n| --- | --- |\n| task | tp_btf, tracepoint |\n"
        );
    }

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&page, "new\n"), Some(format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n")));
        assert_eq!(replaced("nothing", "new"), None);
    }
}
