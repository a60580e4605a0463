//! `entered-from-outside`: somebody comes in.

use super::{Act, Deed, EventCheck, Seen};
use crate::leaks::Severity;

pub const CHECK: EventCheck = EventCheck {
    id: "entered-from-outside",
    severity: "info",
    seen: "a process of the host, or of another container, joined a namespace of the container: `exec`, nsenter, a debugger",
    why: "So does who works on it, and so would somebody who should not; what he brings along, descriptors and rights, comes within the container's reach.",
    sources: &["setns(2)", "nsenter(1)", "CVE-2016-9962"],
    remedy: "nothing, where it was meant to; else find out who did it by the evidence",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let Deed::Entered { kind, inode, by } = act.deed else { return Vec::new() };
    let what = format!("setns to {}:[{inode}]", kind.name());
    vec![Seen { severity: Severity::Info, object: by.to_owned(), what }]
}
