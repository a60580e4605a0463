//! `bpf-load`: eBPF is loaded.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "bpf-load",
    severity: "critical",
    seen: "a process of the container loaded eBPF into the kernel, or tried to",
    why: "A program in the kernel sees every process of the host and may change what they read; faults of its verifier have let programs write where they liked.",
    sources: &["bpf(2)", "CVE-2021-3490", "CVE-2021-31440"],
    remedy: "drop CAP_BPF and CAP_SYS_ADMIN, and refuse bpf by seccomp (the default profile does)",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::Bpf).map(|call| Seen::call(Severity::Critical, String::new(), &call)).collect()
}
