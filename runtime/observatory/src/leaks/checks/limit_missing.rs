//! `limit-missing`: no limit of memory or of processes.

use super::{Check, limit_not_applied};
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "limit-missing",
    severity: "low",
    seen: "no limit of memory or of the number of processes holds for it, neither its own nor one of a cgroup above",
    why: "It can take all memory or all process ids of the host, and so stop everything else.",
    sources: &["cgroups(7)", "https://docs.kernel.org/admin-guide/cgroup-v2.html"],
    remedy: "set them (--memory, --pids; linux.resources.memory.limit and pids.limit)",
    may_pass: false,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let mut missing = Vec::new();
    let mut evidence = Vec::new();
    for (controller, resource) in [("memory", ["memory", "limit"]), ("pids", ["pids", "limit"])] {
        let (limit, place) = limit_not_applied::held(host, container, controller);
        // One that is declared and does not hold, `limit-not-applied` tells.
        if limit.is_some() || limit_not_applied::declared(container, resource).is_some() {
            continue;
        }
        missing.push(if controller == "pids" { "processes" } else { "memory" });
        evidence.push(Evidence::cgroup(place, "no limit"));
    }
    if missing.is_empty() {
        return;
    }
    found.add(
        Severity::Low,
        Opening {
            asked: container.spec.is_some(),
            declared: "no limit in the spec".to_owned(),
            observed: format!("no limit of {}", missing.join(" and ")),
            evidence,
            ..Opening::default()
        },
    );
}
