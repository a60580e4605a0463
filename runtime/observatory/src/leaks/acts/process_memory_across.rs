//! `process-memory-across`: the memory of a process outside is written.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "process-memory-across",
    severity: "high",
    seen: "a process of the container wrote into the memory of one outside it, or tried to",
    why: "What is written there runs with that process' rights, in its namespaces.",
    sources: &["process_vm_readv(2)", "CVE-2012-0056"],
    remedy: "give the container a pid namespace of its own, and drop CAP_SYS_PTRACE",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let across = act.calls(GuardEvent::ProcessVmWrite).filter(|call| call.is_across(act.container));
    across.map(|call| Seen::call(Severity::High, call.target(), &call)).collect()
}
