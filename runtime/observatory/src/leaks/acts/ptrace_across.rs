//! `ptrace-across`: a process outside is traced.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "ptrace-across",
    severity: "high",
    seen: "a process of the container traced one outside it, or tried to",
    why: "Who traces a process has all that it has: its memory, its descriptors, its namespaces and its rights.",
    sources: &["ptrace(2)", "CVE-2016-9962"],
    remedy: "give the container a pid namespace of its own, and drop CAP_SYS_PTRACE",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let across = act.calls(GuardEvent::Ptrace).filter(|call| call.is_across(act.container));
    across.map(|call| Seen::call(Severity::High, call.target(), &call)).collect()
}
