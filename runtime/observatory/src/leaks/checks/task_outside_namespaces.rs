//! `task-outside-namespaces`: a process of the container's cgroup in the host's mount namespace.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "task-outside-namespaces",
    severity: "critical",
    seen: "a process under the container's cgroup sits in the host's mount namespace",
    why: "It sees the host's files: either it has left the container, or somebody put a process of the host into its cgroup.",
    sources: &["setns(2)", "mount_namespaces(7)"],
    remedy: "find out what it is (`terrarium ps`, `terrarium events`); without CAP_SYS_ADMIN and without a descriptor of the host's namespaces nothing inside can get there",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host.shares(container, Kind::Mnt) {
        return;
    }
    let (mut texts, mut evidence) = (Vec::new(), Vec::new());
    for pid in &container.tasks {
        let Some(process) = host.process(*pid) else { continue };
        let Some(inode) = process.namespace(Kind::Mnt).filter(|i| host.is_own(Kind::Mnt, *i))
        else {
            continue;
        };
        let link = Kind::Mnt.link(inode);
        texts.push(format!("process {pid} ({}) is in {link}, the host's", process.name));
        let (name, path) = container.cgroups.first().cloned().unwrap_or_default();
        evidence.extend([
            Evidence::proc(format!("/proc/{pid}/ns/mnt"), link),
            Evidence::proc(format!("/proc/{pid}/cgroup"), format!("{name}:{path}")),
        ]);
    }
    if texts.is_empty() {
        return;
    }
    found.add(
        Severity::Critical,
        Opening {
            declared: "all processes in the container's mount namespace".to_owned(),
            observed: texts.join("; "),
            evidence,
            ..Opening::default()
        },
    );
}
