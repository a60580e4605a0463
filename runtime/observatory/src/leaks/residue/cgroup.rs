//! `residue-cgroup`: a cgroup is still there.

use super::{Look, ResidueCheck, finding, processes_below, words};
use crate::leaks::{Evidence, Finding, Severity};
use std::os::unix::fs::MetadataExt;

pub const CHECK: ResidueCheck = ResidueCheck {
    id: "residue-cgroup",
    severity: Severity::Medium,
    seen: "a cgroup of a container that has ended",
    why: "It keeps its memory charged and its name taken; a host with thousands of dead ones becomes slow.",
    sources: &["cgroups(7)", "https://docs.kernel.org/admin-guide/cgroup-v2.html"],
    remedy: "`terrarium gc` removes it when no process is in it; else `rmdir`",
    left,
};

fn left(look: &Look<'_>) -> Vec<Finding> {
    let there = look.ended.cgroups.iter().filter_map(|folder| {
        let id = std::fs::metadata(folder).ok()?.ino();
        let pids = processes_below(folder);
        let path = folder.display().to_string();
        let holds = match pids.len() {
            0 => "no process is in it".to_owned(),
            _ => format!("held by process {}", words(&pids)),
        };
        Some(finding(
            &CHECK,
            &look.ended.name,
            &path,
            format!("cgroup {path} is there; {holds}"),
            vec![Evidence::cgroup(path.clone(), format!("cgroup id {id}"))],
        ))
    });
    there.collect()
}
