//! `perf-opened`: a performance counter is opened.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "perf-opened",
    severity: "medium",
    seen: "a process of the container opened a performance counter, or tried to",
    why: "Counters tell what other processes do, where the kernel lies in memory, and have been the way into it.",
    sources: &["perf_event_open(2)", "CVE-2013-2094"],
    remedy: "refuse perf_event_open by seccomp (the default profile does), or raise kernel.perf_event_paranoid",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::PerfEventOpen).map(|call| Seen::call(Severity::Medium, String::new(), &call)).collect()
}
