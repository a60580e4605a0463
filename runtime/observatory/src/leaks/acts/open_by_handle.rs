//! `open-by-handle`: a file is opened by its handle.

use super::{Act, EventCheck, Seen};
use crate::leaks::Severity;
use terrarium_abi::GuardEvent;

pub const CHECK: EventCheck = EventCheck {
    id: "open-by-handle",
    severity: "high",
    seen: "a process of the container opened a file by its handle, which asks for no path, or tried to (Shocker)",
    why: "A handle names a file by its inode: every file of the same filesystem is in reach, whatever is mounted where.",
    sources: &["open_by_handle_at(2)", "capabilities(7)"],
    remedy: "drop CAP_DAC_READ_SEARCH, and refuse open_by_handle_at by seccomp (the default profile does)",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    act.calls(GuardEvent::OpenByHandleAt).map(|call| Seen::call(Severity::High, call.said(), &call)).collect()
}
