//! `pivot-performed`: the root of the mount namespace is changed.

use super::{Act, Deed, EventCheck, Seen, result_of};
use crate::event::decode::text;
use crate::leaks::Severity;
use terrarium_abi::MountOp;

pub const CHECK: EventCheck = EventCheck {
    id: "pivot-performed",
    severity: "low",
    seen: "a process of the container changed the root of its mount namespace, or tried to",
    why: "After the start nothing needs it but a container inside the container; what was masked in the old root is not in the new one.",
    sources: &["pivot_root(2)"],
    remedy: "drop CAP_SYS_ADMIN, and refuse pivot_root by seccomp (the default profile does)",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let Deed::Mounted(mount) = act.deed else { return Vec::new() };
    if mount.op != MountOp::PivotRoot as u32 {
        return Vec::new();
    }
    let source = text(&mount.source);
    let what = format!("pivot_root to {source}: {}", result_of(mount.result));
    vec![Seen { severity: Severity::Low, object: source.into_owned(), what }]
}
