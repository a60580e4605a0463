//! `runtime-binary-exposed`: a program of the host's runs inside, and could be overwritten from there.

use super::Check;
use crate::leaks::host::MountOwner;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};
use std::collections::BTreeSet;

pub const CHECK: Check = Check {
    id: "runtime-binary-exposed",
    severity: "high",
    seen: "/proc/PID/exe of a process of the container is a binary of the host, the runtime's or any other, that could be written",
    why: "Through /proc/self/exe the container's root opens it for writing once it no longer runs; whoever executes it next on the host executes what was written.",
    sources: &["CVE-2019-5736", "proc_pid_exe(5)"],
    remedy: "use a runtime that executes itself from a read-only mount or a sealed copy (terrarium does; runc since 1.0-rc7), and mount programs of the host read-only",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host.shares(container, Kind::Mnt) || !container.started {
        return;
    }
    let mut told = BTreeSet::new();
    for pid in &container.tasks {
        let process = host.process(*pid);
        if process.is_none_or(|p| p.namespace(Kind::Mnt) != container.namespace(Kind::Mnt)) {
            continue;
        }
        let Some(exe) = host.proc().open_link(*pid, "exe") else { continue };
        let Some(id) = exe.mount else { continue };
        if container.mounts.iter().any(|own| own.id == id) {
            continue;
        }
        let Some(MountOwner::Host(at)) = host.owner_of_mount(id) else { continue };
        let mount = &host.mounts[at];
        if mount.is_read_only() || !told.insert(exe.target.clone()) {
            continue;
        }
        found.add(
            Severity::High,
            Opening {
                object: exe.target.clone(),
                declared: "programs of the container's own root".to_owned(),
                observed: format!(
                    "process {pid} executes {} on the host's {}, which is writable",
                    exe.target, mount.point
                ),
                evidence: vec![
                    Evidence::proc(format!("/proc/{pid}/exe"), exe.target.clone()),
                    Evidence::proc("/proc/self/mountinfo", format!("{} rw", mount.point)),
                ],
                ..Opening::default()
            },
        );
    }
}
