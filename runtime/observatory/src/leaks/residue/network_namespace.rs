//! `residue-network-namespace`: its network namespace lives on.

use super::{Look, ResidueCheck, finding};
use crate::leaks::process::{Kind, namespace_of_link};
use crate::leaks::{Evidence, Finding, Severity};

pub const CHECK: ResidueCheck = ResidueCheck {
    id: "residue-network-namespace",
    severity: Severity::Medium,
    seen: "the network namespace of a container that has ended is held alive by a process, a descriptor or a mount",
    why: "Its interfaces, addresses, sockets and rules live on with it: ports still answer, and the veth stays.",
    sources: &["network_namespaces(7)", "namespaces(7)"],
    remedy: "end the process, close the descriptor or unmount the file that holds it",
    left,
};

fn left(look: &Look<'_>) -> Vec<Finding> {
    held(look).into_iter().collect()
}

/// Who holds its network namespace.
fn held(Look { host, ended, .. }: &Look<'_>) -> Option<Finding> {
    let inode = ended.network_namespace?;
    // The kernel gives inodes of namespaces again: what a running container has is not this one's.
    if host.is_own(Kind::Net, inode)
        || host.containers.iter().any(|c| c.namespace(Kind::Net) == Some(inode))
    {
        return None;
    }
    let older = |pid: i32| {
        let (Some(finished), Some(process)) = (ended.finished, host.process(pid)) else {
            return true;
        };
        host.started(process).is_none_or(|started| started <= finished)
    };
    let link = Kind::Net.link(inode);
    let mut evidence = Vec::new();
    for process in host.processes() {
        if process.namespace(Kind::Net) == Some(inode) && older(process.pid) {
            let path = format!("/proc/{}/ns/net", process.pid);
            evidence.push(Evidence::proc(path, format!("{link} ({})", process.name)));
        }
        for open in host.proc().descriptors(process.pid, 4096) {
            if namespace_of_link(&open.target) == Some((Kind::Net, inode)) && older(process.pid) {
                evidence.push(Evidence::proc(
                    format!("/proc/{}/{}", process.pid, open.name),
                    format!("{link} ({})", process.name),
                ));
            }
        }
    }
    for mount in host.mounts.iter().filter(|m| m.kind == "nsfs" && m.root == link) {
        evidence.push(Evidence::proc("/proc/self/mountinfo", format!("{link} {}", mount.point)));
    }
    if evidence.is_empty() {
        return None;
    }
    let holders: Vec<&str> = evidence.iter().map(|evidence| evidence.path.as_str()).collect();
    let observed = format!("{link} is held by {}", holders.join(", "));
    Some(finding(&CHECK, &ended.name, &link, observed, evidence))
}
