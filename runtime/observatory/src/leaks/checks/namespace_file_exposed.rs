//! `namespace-file-exposed`: a file that stands for a namespace of the host or of another container.

use super::Check;
use crate::leaks::process::{Kind, namespace_of_link};
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "namespace-file-exposed",
    severity: "high",
    seen: "a namespace file (nsfs) of the host or of another container is mounted or open inside",
    why: "Whoever holds it joins that namespace by one setns, as soon as he has CAP_SYS_ADMIN over it.",
    sources: &["setns(2)", "namespaces(7)", "CVE-2024-21626"],
    remedy: "do not mount files of /proc/PID/ns or /run/netns into containers, and close such descriptors before execve",
    may_pass: true,
    judge,
};

/// How many descriptors of a process are looked at.
const DESCRIPTORS: usize = 4096;

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let whose = |kind: Kind, inode: u64| {
        if container.namespace(kind) == Some(inode) {
            return None;
        }
        if host.is_own(kind, inode) {
            return Some("the host".to_owned());
        }
        let other = host.containers.iter().find(|other| other.namespace(kind) == Some(inode))?;
        Some(other.name.name.clone())
    };
    let mut add = |object: String, asked: bool, observed: String, evidence, mounts| {
        found.add(
            Severity::High,
            Opening {
                object,
                declared: if asked { "mounted by the spec" } else { "no namespace file inside" }
                    .to_owned(),
                asked,
                observed,
                evidence: vec![evidence],
                mounts,
                ..Opening::default()
            },
        );
    };
    for mount in container.mounts.iter().filter(|mount| mount.kind == "nsfs") {
        let Some((kind, inode)) = namespace_of_link(&mount.root) else { continue };
        let Some(whose) = whose(kind, inode) else { continue };
        let asked = container.spec.as_ref().is_some_and(|s| s.mount_over(&mount.point).is_some());
        add(
            mount.point.clone(),
            asked,
            format!("{} of {whose} is mounted at {}", mount.root, mount.point),
            Evidence::proc(
                format!("/proc/{}/mountinfo", container.init.pid),
                format!("{} {} nsfs", mount.root, mount.point),
            ),
            vec![mount.place("")],
        );
    }
    for pid in &container.tasks {
        if host.shares(container, Kind::Mnt) {
            break;
        }
        for open in host.proc().descriptors(*pid, DESCRIPTORS) {
            let Some((kind, inode)) = namespace_of_link(&open.target) else { continue };
            let Some(whose) = whose(kind, inode) else { continue };
            add(
                format!("{pid}/{}", open.name),
                false,
                format!("{} of {whose} is open in process {pid} as {}", open.target, open.name),
                Evidence::proc(format!("/proc/{pid}/{}", open.name), open.target.clone()),
                Vec::new(),
            );
        }
    }
}
