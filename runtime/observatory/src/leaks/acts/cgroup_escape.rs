//! `cgroup-escape`: a process is moved out of the container's cgroup.

use super::{Act, Deed, EventCheck, Seen};
use crate::event::decode::text;
use crate::leaks::Severity;
use crate::leaks::mounts::is_within;

pub const CHECK: EventCheck = EventCheck {
    id: "cgroup-escape",
    severity: "critical",
    seen: "a process of the container was moved to a cgroup outside it",
    why: "Limits, devices and freezing hold for it no longer, and what it does is no longer counted as the container's.",
    sources: &["cgroups(7)", "cgroup_namespaces(7)"],
    remedy: "mount cgroup filesystems read-only inside, in a cgroup namespace of its own; move it back (cgroup.procs)",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let (Deed::Moved(moved), container) = (act.deed, act.container) else { return Vec::new() };
    // Services are moved by systemd, and themselves move what they start.
    if container.runtime == "systemd" || container.path.len() <= 1 {
        return Vec::new();
    }
    let to = text(&moved.path).into_owned();
    if is_within(&to, &container.path) {
        return Vec::new();
    }
    let what = format!("moved to cgroup {to} by process {}", moved.mover_pid);
    vec![Seen { severity: Severity::Critical, object: to, what }]
}
