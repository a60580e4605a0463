//! `user-namespace-created`: a user namespace is made; `checks/user_namespace_created.rs` sees it in the state.

use super::{Act, Deed, EventCheck, Seen, result_of};
use crate::leaks::Severity;
use crate::leaks::checks::user_namespace_created::CHECK as STATE;
use terrarium_abi::{NsKind, Via};

pub const CHECK: EventCheck = EventCheck {
    id: STATE.id,
    severity: STATE.severity,
    seen: "a process of the container made a user namespace, or tried to",
    why: STATE.why,
    sources: STATE.sources,
    remedy: STATE.remedy,
    judge,
};

fn judge(act: &Act<'_>) -> Vec<Seen> {
    let (object, what) = match act.deed {
        Deed::Cloned(task) if task.to[NsKind::User as usize] != 0 => {
            let made = task.to[NsKind::User as usize];
            ("clone", format!("clone with CLONE_NEWUSER made user:[{made}]"))
        }
        Deed::Namespaces(change)
            if change.via == Via::Unshare as u32
                && change.kinds & (1 << NsKind::User as u32) != 0 =>
        {
            ("unshare", format!("unshare with CLONE_NEWUSER: {}", result_of(change.result)))
        }
        _ => return Vec::new(),
    };
    vec![Seen { severity: Severity::Medium, object: object.to_owned(), what }]
}
