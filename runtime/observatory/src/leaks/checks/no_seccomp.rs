//! `no-seccomp`: no filter of system calls.

use super::Check;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "no-seccomp",
    severity: "medium",
    seen: "Seccomp: 0",
    why: "Every system call reaches the kernel, the rarely used ones in which most of its holes are found included.",
    sources: &["seccomp(2)", "https://docs.docker.com/engine/security/seccomp/"],
    remedy: "use the default profile (leave out --security-opt seccomp=unconfined; give linux.seccomp)",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if !container.started {
        return;
    }
    let mode = |pid: i32| {
        if pid == container.init.pid {
            container.status.seccomp
        } else {
            host.proc().status(pid).and_then(|status| status.seccomp)
        }
    };
    let without: Vec<i32> =
        container.tasks.iter().copied().filter(|pid| mode(*pid) == Some(0)).collect();
    let Some(first) = without.first() else { return };
    let asked = container.spec.as_ref().is_some_and(|spec| !spec.has_seccomp());
    found.add(
        Severity::Medium,
        Opening {
            asked,
            declared: if asked { "no linux.seccomp" } else { "a filter of system calls" }.to_owned(),
            observed: format!(
                "{} of {} processes without a filter, process {first} first",
                without.len(),
                container.tasks.len()
            ),
            evidence: vec![Evidence::proc(format!("/proc/{first}/status"), "Seccomp: 0")],
            ..Opening::default()
        },
    );
}
