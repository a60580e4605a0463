//! `limit-not-applied`: the declared limit is not what the kernel holds.

use super::Check;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};
use std::path::Path;

pub const CHECK: Check = Check {
    id: "limit-not-applied",
    severity: "high",
    seen: "a limit of memory, processes or CPU time that the spec declares is not what the kernel holds",
    why: "Whoever reads the spec believes in a limit that is not there.",
    sources: &["cgroups(7)", "https://docs.kernel.org/admin-guide/cgroup-v1/memory.html"],
    remedy: "set it again (`terrarium update`), and find out who changed it; mount cgroup filesystems read-only inside",
    may_pass: true,
    judge,
};

/// v1 says a number of this size where there is none: the largest number of pages.
const NO_LIMIT: i64 = 1 << 60;

/// The limit that was asked for; none where there is none.
pub fn declared(container: &Container, resource: [&'static str; 2]) -> Option<i64> {
    let updated = container.limits.get(&resource).copied();
    let asked = updated.or_else(|| container.spec.as_ref()?.resource(resource));
    asked.filter(|limit| *limit > 0)
}

/// The least limit of a controller's that holds for a container, its own or one of a cgroup above, and where it is
/// written. CPU time is in thousandths of a CPU.
pub fn held(host: &Host, container: &Container, controller: &str) -> (Option<i64>, String) {
    let Some((hierarchy, path)) = container.cgroup(host, controller) else {
        return (None, format!("no {controller} controller"));
    };
    let file = match (controller, hierarchy.is_unified()) {
        ("memory", true) => "memory.max",
        ("memory", false) => "memory.limit_in_bytes",
        ("cpu", true) => "cpu.max",
        ("cpu", false) => "cpu.cfs_quota_us",
        _ => "pids.max",
    };
    let place = hierarchy.folder(&path).join(file).display().to_string();
    let limits = Path::new(&path).ancestors().filter_map(|ancestor| {
        let path = ancestor.to_str()?;
        let text = hierarchy.read(path, file)?;
        if controller != "cpu" {
            return text.trim().parse::<i64>().ok().filter(|limit| *limit < NO_LIMIT);
        }
        let mut words = text.split_ascii_whitespace();
        let quota: i64 = words.next()?.parse().ok().filter(|quota| *quota > 0)?;
        let period = match words.next() {
            Some(period) => period.parse().ok()?,
            None => hierarchy.read(path, "cpu.cfs_period_us")?.trim().parse().ok()?,
        };
        Some(thousandths(quota, period))
    });
    (limits.min(), place)
}

fn thousandths(quota: i64, period: i64) -> i64 {
    quota.saturating_mul(1000) / period.max(1)
}

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let cpu = declared(container, ["cpu", "quota"]).map(|quota| {
        let period = container.spec.as_ref().and_then(|spec| spec.resource(["cpu", "period"]));
        thousandths(quota, period.filter(|period| *period > 0).unwrap_or(100_000))
    });
    let mut declared_texts = Vec::new();
    let mut texts = Vec::new();
    let mut evidence = Vec::new();
    for (controller, what, wanted, tolerance) in [
        ("memory", "memory, bytes", declared(container, ["memory", "limit"]), 0),
        ("pids", "processes", declared(container, ["pids", "limit"]), 0),
        // The kernel keeps quota and period as they are written; an engine may choose another period.
        ("cpu", "thousandths of a CPU", cpu, 10),
    ] {
        let Some(wanted) = wanted.filter(|wanted| *wanted < NO_LIMIT) else { continue };
        let (limit, place) = held(host, container, controller);
        if limit.is_some_and(|limit| limit <= wanted + tolerance) {
            continue;
        }
        let limit = limit.map_or("none".to_owned(), |limit| limit.to_string());
        declared_texts.push(format!("{what}: {wanted}"));
        texts.push(format!("{what}: {limit}"));
        evidence.push(Evidence::cgroup(place, limit));
    }
    if texts.is_empty() {
        return;
    }
    found.add(
        Severity::High,
        Opening {
            declared: declared_texts.join("; "),
            observed: texts.join("; "),
            evidence,
            ..Opening::default()
        },
    );
}
