//! `new-privileges-allowed`: execve may give more rights.

use super::Check;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "new-privileges-allowed",
    severity: "low",
    seen: "NoNewPrivs: 0",
    why: "A set-user-id program of the image, or one with file capabilities, gives a user of the container more than he started with.",
    sources: &["PR_SET_NO_NEW_PRIVS(2const)", "https://docs.kernel.org/userspace-api/no_new_privs.html"],
    remedy: "set process.noNewPrivileges (leave out --security-opt no-new-privileges=false)",
    may_pass: true,
    judge,
};

fn judge(_: &Host, container: &Container, found: &mut Found<'_>) {
    if !container.started || container.status.no_new_privileges {
        return;
    }
    let asked = container.spec.as_ref().is_some_and(|spec| !spec.no_new_privileges());
    found.add(
        Severity::Low,
        Opening {
            asked,
            declared: if asked { "noNewPrivileges is not set" } else { "noNewPrivileges" }
                .to_owned(),
            observed: "a program that it executes may get more rights than it has".to_owned(),
            evidence: vec![Evidence::proc(
                format!("/proc/{}/status", container.init.pid),
                "NoNewPrivs: 0",
            )],
            ..Opening::default()
        },
    );
}
