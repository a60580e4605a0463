//! `module-load`: a kernel module is loaded.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "module-load",
    severity: "critical",
    seen: "a process of the container loaded a kernel module, or tried to",
    why: "A module is part of the kernel: behind it no wall is left.",
    sources: &["init_module(2)", "capabilities(7)"],
    remedy: "drop CAP_SYS_MODULE, and refuse init_module and finit_module by seccomp (the default profile does)",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::ModuleLoad).map(|call| Seen::call(Severity::Critical, call.said(), &call)).collect()
}
