//! `chroot-performed`: the root is changed.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "chroot-performed",
    severity: "low",
    seen: "a process of the container changed its root after the start, or tried to",
    why: "Who is root in a chroot gets out of it by another one; programs that are confined so are not.",
    sources: &["chroot(2)"],
    remedy: "drop CAP_SYS_CHROOT",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::Chroot).map(|call| Seen::call(Severity::Low, call.said(), &call)).collect()
}
