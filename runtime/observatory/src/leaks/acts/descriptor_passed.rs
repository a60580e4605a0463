//! `descriptor-passed`: a descriptor crosses the container's boundary, taken or given.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "descriptor-passed",
    severity: "medium",
    seen: "a process of the container took a descriptor of one outside it (pidfd_getfd), or tried to, or one came over a unix socket whose file is mounted in the host's or another container's mount namespace",
    why: "A descriptor takes its rights along: a folder of the host's leads out of the container, a device past the devices cgroup.",
    sources: &["pidfd_getfd(2)", "unix(7)", "cmsg(3)"],
    remedy: "give the container a pid namespace of its own, drop CAP_SYS_PTRACE, and mount no socket inside whose other end passes files on",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let across = act.calls(GuardEvent::PidfdGetfd).filter(|call| call.is_across(act.container));
    let taken = across.map(|call| Seen::call(Severity::Medium, call.target(), &call));
    let given = act.calls(GuardEvent::ScmRights).filter_map(|call| {
        let whose = act.origin?;
        let said = call.said();
        let what = format!("{said} came as descriptor {} over a unix socket, from a mount of {whose}", call.0.values[1]);
        Some(Seen { severity: Severity::Medium, object: format!("{said} of {whose}"), what })
    });
    taken.chain(given).collect()
}
