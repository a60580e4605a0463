//! `task-outside-cgroup`: a process in the container's namespaces for which a limit of the container's does not hold.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "task-outside-cgroup",
    severity: "critical",
    seen: "a process in the container's pid or mount namespace is not under its cgroup, in one hierarchy or more",
    why: "A limit does not hold for it, what it uses is not counted, and killing the cgroup does not reach it.",
    sources: &["cgroups(7)", "https://docs.kernel.org/admin-guide/cgroup-v1/cgroups.html"],
    remedy: "move it into the container's cgroup (write its pid to cgroup.procs), and enter containers by `terrarium exec`, not by nsenter; inside, cgroup filesystems are to be read-only",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    // A namespace that others share says nothing of whom a process belongs to.
    let own: Vec<(Kind, u64)> = [Kind::Pid, Kind::Mnt]
        .into_iter()
        .filter_map(|kind| Some((kind, container.namespace(kind)?)))
        .filter(|(kind, inode)| !host.is_own(*kind, *inode))
        .filter(|(kind, inode)| {
            let with = host.containers.iter().filter(|c| c.namespace(*kind) == Some(*inode));
            with.count() == 1
        })
        .collect();
    let (mut texts, mut evidence) = (Vec::new(), Vec::new());
    for process in host.processes() {
        let shared = own.iter().find(|(kind, inode)| process.namespace(*kind) == Some(*inode));
        let Some((kind, inode)) = shared else { continue };
        let Err((controllers, path)) = host.is_contained(container, process) else { continue };
        let hierarchy = if controllers.is_empty() { "cgroup v2" } else { &controllers };
        let expected = container.cgroups.iter().find(|(name, _)| *name == controllers);
        let expected = expected.map_or("", |(_, path)| path.as_str());
        let pid = process.pid;
        texts.push(format!(
            "process {pid} ({}) is in the container's {} and in cgroup {path} of the hierarchy {hierarchy}, not under {expected}",
            process.name,
            kind.link(*inode),
        ));
        evidence.extend([
            Evidence::proc(format!("/proc/{pid}/cgroup"), format!("{controllers}:{path}")),
            Evidence::proc(format!("/proc/{pid}/ns/{}", kind.name()), kind.link(*inode)),
        ]);
    }
    if texts.is_empty() {
        return;
    }
    found.add(
        Severity::Critical,
        Opening {
            declared: "all processes under the container's cgroups".to_owned(),
            observed: texts.join("; "),
            evidence,
            ..Opening::default()
        },
    );
}
