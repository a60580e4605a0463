//! `privileged`: no wall at all.

use super::Check;
use crate::leaks::devices::Allowed;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "privileged",
    severity: "critical",
    seen: "all capabilities that the host has, all devices, no seccomp: what engines call privileged",
    why: "Its root does on the host whatever the host's root does: mounting its disk is one command.",
    sources: &["https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities"],
    remedy: "leave out --privileged; give the one capability (--cap-add) or device (--device) that is needed",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let status = &container.status;
    let has_all = |set: u64| host.capabilities != 0 && set & host.capabilities == host.capabilities;
    let (devices, place) = Allowed::of(host, container);
    if !container.started
        || !container.has_host_users(host)
        || !has_all(status.bounding)
        || !has_all(status.permitted)
        || status.seccomp.is_some_and(|mode| mode != 0)
        || devices != Allowed::All
    {
        return;
    }
    let asked = container.spec.as_ref().is_some_and(|spec| {
        has_all(spec.capabilities("bounding")) && !spec.has_seccomp()
    });
    let pid = container.init.pid;
    found.add(
        Severity::Critical,
        Opening {
            asked,
            declared: if asked { "all capabilities, no seccomp" } else { "less" }.to_owned(),
            observed: "all capabilities of the host, all devices, no seccomp".to_owned(),
            evidence: vec![
                Evidence::proc(
                    format!("/proc/{pid}/status"),
                    format!("CapBnd: {:016x}; CapPrm: {:016x}", status.bounding, status.permitted),
                ),
                Evidence::proc(format!("/proc/{pid}/status"), "Seccomp: 0"),
                Evidence::cgroup(place, "all devices"),
            ],
            ..Opening::default()
        },
    );
}
