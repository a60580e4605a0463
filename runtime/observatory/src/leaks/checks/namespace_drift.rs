//! `namespace-drift`: a process of the container's cgroup in other namespaces than its first process.

use super::Check;
use crate::leaks::process::{Kind, Process};
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "namespace-drift",
    severity: "high",
    seen: "a process of the container's cgroup is in other namespaces than the container's first process",
    why: "It was moved, or has moved: what holds for the container does not hold for it.",
    sources: &["namespaces(7)", "setns(2)", "unshare(2)"],
    remedy: "find out what made it (`terrarium events`); a seccomp filter that refuses unshare and setns, and no CAP_SYS_ADMIN, prevent it",
    may_pass: true,
    judge,
};

/// The kinds in which a process differs from the first one.
pub fn differences(container: &Container, process: &Process) -> Vec<(Kind, u64)> {
    Kind::ALL
        .into_iter()
        .filter_map(|kind| {
            let (own, other) = (container.namespace(kind)?, process.namespace(kind)?);
            (own != other).then_some((kind, other))
        })
        .collect()
}

/// Whether what differs is a sandbox that the container made for itself: a new user namespace, and whatever else came with
/// it, nothing of which is the host's or another container's.
pub fn is_nested_sandbox(host: &Host, differences: &[(Kind, u64)]) -> bool {
    let foreign = |(kind, inode): &(Kind, u64)| {
        host.is_own(*kind, *inode)
            || host.containers.iter().any(|other| other.namespace(*kind) == Some(*inode))
    };
    differences.iter().any(|(kind, _)| *kind == Kind::User) && !differences.iter().any(foreign)
}

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let (mut texts, mut evidence) = (Vec::new(), Vec::new());
    for pid in &container.tasks {
        let Some(process) = host.process(*pid) else { continue };
        let differences = differences(container, process);
        let outside = differences
            .iter()
            .any(|(kind, inode)| *kind == Kind::Mnt && host.is_own(Kind::Mnt, *inode));
        // `task-outside-namespaces` and `user-namespace-created` say these better.
        if differences.is_empty() || outside || is_nested_sandbox(host, &differences) {
            continue;
        }
        let links: Vec<String> =
            differences.iter().map(|(kind, inode)| kind.link(*inode)).collect();
        texts.push(format!("process {pid} ({}) is in {}", process.name, links.join(", ")));
        evidence.extend(differences.iter().map(|(kind, inode)| {
            Evidence::proc(format!("/proc/{pid}/ns/{}", kind.name()), kind.link(*inode))
        }));
    }
    if texts.is_empty() {
        return;
    }
    found.add(
        Severity::High,
        Opening {
            declared: "all processes in the container's namespaces".to_owned(),
            observed: texts.join("; "),
            evidence,
            ..Opening::default()
        },
    );
}
