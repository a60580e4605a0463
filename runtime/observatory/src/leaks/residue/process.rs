//! `residue-process`: somebody runs on.

use super::{Look, ResidueCheck, finding, processes_below};
use crate::leaks::{Evidence, Finding, Severity};
use std::collections::BTreeSet;

pub const CHECK: ResidueCheck = ResidueCheck {
    id: "residue-process",
    severity: Severity::High,
    seen: "a process in a cgroup of a container that has ended",
    why: "Nobody waits for it, and it holds what the container had: memory, its cgroup, its mounts, its network.",
    sources: &["cgroups(7)", "pid_namespaces(7)"],
    remedy: "end it, then remove the container (`terrarium delete --force ID`, `terrarium gc`)",
    left,
};

fn left(look: &Look<'_>) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for folder in &look.ended.cgroups {
        let path = folder.display().to_string();
        let new = processes_below(folder).into_iter().filter(|pid| seen.insert(*pid));
        findings.extend(new.map(|pid| of_process(look, pid, &path)));
    }
    findings
}

fn of_process(look: &Look<'_>, pid: i32, cgroup: &str) -> Finding {
    let process = look.host.process(pid);
    let (called, parent) = process.map_or(("gone", 0), |p| (p.name.as_str(), p.parent));
    let arguments = look.host.proc().arguments(pid).join(" ");
    finding(
        &CHECK,
        &look.ended.name,
        &pid.to_string(),
        format!("process {pid} ({called}), child of {parent}, is in {cgroup}"),
        vec![
            Evidence::proc(format!("/proc/{pid}/cgroup"), cgroup),
            Evidence::proc(format!("/proc/{pid}/cmdline"), arguments),
        ],
    )
}
