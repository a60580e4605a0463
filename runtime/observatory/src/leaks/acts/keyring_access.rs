//! `keyring-access`: the kernel's keyrings are used.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "keyring-access",
    severity: "low",
    seen: "a process of the container used the kernel's keyrings, which know no namespace but that of users",
    why: "Without a user namespace of its own a container sees keys of the host's users, and the calls have been the way into the kernel.",
    sources: &["keyrings(7)", "keyctl(2)", "CVE-2016-0728"],
    remedy: "refuse keyctl, add_key and request_key by seccomp (the default profile does)",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::Keyctl).map(|call| Seen::call(Severity::Low, call.said(), &call)).collect()
}
