//! `user-namespace-created`, as the state shows it: a process of the container in a user namespace made inside.

use super::{Check, namespace_drift};
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "user-namespace-created",
    severity: "medium",
    seen: "a new user namespace inside",
    why: "In it a process has every capability, which opens the parts of the kernel that most published exploits begin with.",
    sources: &["user_namespaces(7)", "CVE-2022-0185", "CVE-2023-32233"],
    remedy: "refuse unshare and clone with CLONE_NEWUSER by seccomp (the default profile does), or set user.max_user_namespaces to 0 inside",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let mut seen = Vec::new();
    for pid in &container.tasks {
        let Some(process) = host.process(*pid) else { continue };
        let differences = namespace_drift::differences(container, process);
        if !namespace_drift::is_nested_sandbox(host, &differences) {
            continue;
        }
        let Some(inode) = process.namespace(Kind::User) else { continue };
        // Once for all of its processes.
        if seen.contains(&inode) {
            continue;
        }
        seen.push(inode);
        found.add(
            Severity::Medium,
            Opening {
                object: Kind::User.link(inode),
                declared: "one user namespace for the container".to_owned(),
                observed: format!(
                    "process {pid} ({}) is in {}, made inside",
                    process.name,
                    Kind::User.link(inode)
                ),
                evidence: vec![Evidence::proc(
                    format!("/proc/{pid}/ns/user"),
                    Kind::User.link(inode),
                )],
                ..Opening::default()
            },
        );
    }
}
