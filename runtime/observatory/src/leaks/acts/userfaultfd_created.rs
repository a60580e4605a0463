//! `userfaultfd-created`: a userfaultfd is made.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "userfaultfd-created",
    severity: "medium",
    seen: "a process of the container made a userfaultfd, which exploits use to stop the kernel at a chosen place",
    why: "Races in the kernel that are hard to win become certain with it.",
    sources: &["userfaultfd(2)", "CVE-2019-18683"],
    remedy: "refuse userfaultfd by seccomp (the default profile does), or set vm.unprivileged_userfaultfd to 0",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::Userfaultfd).map(|call| Seen::call(Severity::Medium, String::new(), &call)).collect()
}
