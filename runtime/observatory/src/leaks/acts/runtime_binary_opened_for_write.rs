//! `runtime-binary-opened-for-write`: the executable of a process is opened for writing.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "runtime-binary-opened-for-write",
    severity: "critical",
    seen: "a process of the container opened the executable of a process for writing through /proc, or tried to (CVE-2019-5736)",
    why: "Where it is the runtime's, the host runs what the container wrote at the next start of any container.",
    sources: &["CVE-2019-5736", "proc_pid_exe(5)"],
    remedy: "use a runtime that executes itself from a read-only mount or a sealed copy, and a user namespace",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::ExecutableWrite).map(|call| Seen::call(Severity::Critical, call.said(), &call)).collect()
}
