//! `setns-out`: a namespace of the host is joined.

use super::{Act, Deed, EventCheck, Seen, result_of};
use crate::leaks::Severity;
use terrarium_abi::{NsKind, Via};

pub const CHECK: EventCheck = EventCheck {
    id: "setns-out",
    severity: "critical",
    seen: "a process of the container joined a namespace of the host, or tried to",
    why: "It sees and reaches what is in there: the processes, the network, the files of the host.",
    sources: &["setns(2)", "namespaces(7)"],
    remedy: "drop CAP_SYS_ADMIN, refuse setns by seccomp (the default profile does), and mount no namespace files inside",
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let Deed::Namespaces(change) = act.deed else { return Vec::new() };
    if change.via == Via::Unshare as u32 {
        return Vec::new();
    }
    let joined = NsKind::ALL.into_iter().filter_map(|kind| {
        let (from, to) = (change.from[kind as usize], change.to[kind as usize]);
        let is_hosts = to != 0 && to != from && to == act.initial[kind as usize];
        is_hosts.then(|| {
            let link = format!("{}:[{to}]", kind.name());
            let what = format!("setns to {link}, the host's: {}", result_of(change.result));
            Seen { severity: Severity::Critical, object: link, what }
        })
    });
    joined.collect()
}
