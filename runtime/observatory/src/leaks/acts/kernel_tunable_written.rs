//! `kernel-tunable-written`: a file is opened for writing that makes the kernel run a program.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "kernel-tunable-written",
    severity: "critical",
    seen: "a process of the container opened a file for writing that makes the kernel run a program, or obey, or tried to",
    why: "The kernel runs what is written there as root of the host, outside every namespace, at the next crash, module or empty cgroup.",
    sources: &["core(5)", "proc_sys_kernel(5)", "CVE-2022-0492", "CVE-2022-0811"],
    remedy: "mount /proc/sys, /sys and cgroup filesystems read-only inside, mask sysrq-trigger, and drop CAP_SYS_ADMIN",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::KernelTunableWrite).map(|call| Seen::call(Severity::Critical, call.said(), &call)).collect()
}
