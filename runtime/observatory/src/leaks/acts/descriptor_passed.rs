//! `descriptor-passed`: a descriptor of a process outside is taken.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "descriptor-passed",
    severity: "medium",
    seen: "a process of the container took a descriptor of one outside it (pidfd_getfd), or tried to",
    why: "A descriptor takes its rights along: a folder of the host's leads out of the container, a device past the devices cgroup.",
    sources: &["pidfd_getfd(2)"],
    remedy: "give the container a pid namespace of its own, and drop CAP_SYS_PTRACE",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let across = act.calls(GuardEvent::PidfdGetfd).filter(|call| call.is_across(act.container));
    across.map(|call| Seen::call(Severity::Medium, call.target(), &call)).collect()
}
