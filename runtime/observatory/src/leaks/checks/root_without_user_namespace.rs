//! `root-without-user-namespace`: uid 0 inside is uid 0 outside.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "root-without-user-namespace",
    severity: "low",
    seen: "uid 0 inside is uid 0 outside",
    why: "Whatever of the host it reaches, it reaches as root; with a user namespace it would be nobody there.",
    sources: &["user_namespaces(7)"],
    remedy: "run it with --userns (or a user namespace and uidMappings in the spec), or as another user with --user",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let Some(inode) = container.namespace(Kind::User).filter(|i| host.is_own(Kind::User, *i))
    else {
        return;
    };
    if container.status.uid != 0 || !container.started {
        return;
    }
    let pid = container.init.pid;
    found.add(
        Severity::Low,
        Opening {
            asked: container.spec.is_some(),
            declared: "no user namespace, and user 0".to_owned(),
            observed: format!("uid 0 in {}, the host's", Kind::User.link(inode)),
            evidence: vec![
                Evidence::proc(format!("/proc/{pid}/ns/user"), Kind::User.link(inode)),
                Evidence::proc(format!("/proc/{pid}/status"), "Uid: 0"),
            ],
            ..Opening::default()
        },
    );
}
