//! `kexec`: another kernel is loaded.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "kexec",
    severity: "critical",
    seen: "a process of the container loaded another kernel, or tried to",
    why: "The next kernel of the host is then the container's choice; nothing but a reboot is missing.",
    sources: &["kexec_load(2)", "reboot(2)"],
    remedy: "drop CAP_SYS_BOOT, and refuse kexec_load and kexec_file_load by seccomp (the default profile does)",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::Kexec).map(|call| Seen::call(Severity::Critical, call.said(), &call)).collect()
}
