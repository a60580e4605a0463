//! `signal-across`: a signal leaves the container.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use crate::leaks::mounts::is_within;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "signal-across",
    severity: "medium",
    seen: "a process of the container sent a signal to one outside it: of the host, or of another container",
    why: "Who can name a process can stop and end it.",
    sources: &["kill(2)", "pid_namespaces(7)"],
    remedy: "give each its own pid namespace (no --pid host, no --pid container:ID), so that neither can name the other's processes",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    // That its cgroups are not the sender's the kernel side has seen; a nested one is still the container's.
    if act.target.is_some_and(|target| is_within(&target.path, &act.container.path)) {
        return Vec::new();
    }
    let signals = act.calls(GuardEvent::Signal);
    signals.map(|call| Seen::call(Severity::Medium, call.target(), &call)).collect()
}
