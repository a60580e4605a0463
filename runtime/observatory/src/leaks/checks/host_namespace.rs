//! `host-*-namespace`: a namespace of the host's is the container's.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::spec::Namespace;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const PID: Check = Check {
    id: "host-pid-namespace",
    severity: "high",
    seen: "the container's pid namespace is the host's",
    why: "Its processes see every process of the host and may signal, trace or read those of the same user; root sees environments and open files.",
    sources: &["pid_namespaces(7)", "https://kubernetes.io/docs/concepts/security/pod-security-standards/"],
    remedy: "give it a pid namespace: `{\"type\":\"pid\"}` in linux.namespaces; leave out --pid host",
    may_pass: false,
    judge: |host, container, found| judge(Kind::Pid, Severity::High, host, container, found),
};

pub const NETWORK: Check = Check {
    id: "host-network-namespace",
    severity: "high",
    seen: "the container's network namespace is the host's",
    why: "It reaches everything that listens on the host's loopback, abstract sockets included, and with CAP_NET_RAW or CAP_NET_ADMIN the traffic of all.",
    sources: &["network_namespaces(7)", "CVE-2020-15257"],
    remedy: "give it a network namespace: `{\"type\":\"network\"}` in linux.namespaces; --net none or bridge instead of host",
    may_pass: false,
    judge: |host, container, found| judge(Kind::Net, Severity::High, host, container, found),
};

pub const IPC: Check = Check {
    id: "host-ipc-namespace",
    severity: "high",
    seen: "the container's IPC namespace is the host's",
    why: "System V shared memory, semaphores and message queues of the host's programs can be read and written.",
    sources: &["ipc_namespaces(7)"],
    remedy: "give it an IPC namespace: `{\"type\":\"ipc\"}` in linux.namespaces; leave out --ipc host",
    may_pass: false,
    judge: |host, container, found| judge(Kind::Ipc, Severity::High, host, container, found),
};

pub const UTS: Check = Check {
    id: "host-uts-namespace",
    severity: "medium",
    seen: "the container's UTS namespace is the host's",
    why: "With CAP_SYS_ADMIN it renames the host; without, it still learns the host's name.",
    sources: &["uts_namespaces(7)"],
    remedy: "give it a UTS namespace: `{\"type\":\"uts\"}` in linux.namespaces; leave out --uts host",
    may_pass: false,
    judge: |host, container, found| judge(Kind::Uts, Severity::Medium, host, container, found),
};

pub const MOUNT: Check = Check {
    id: "host-mount-namespace",
    severity: "high",
    seen: "the container's mount namespace is the host's",
    why: "There is no root filesystem of its own: what it mounts and sees is the host's.",
    sources: &["mount_namespaces(7)"],
    remedy: "give it a mount namespace: `{\"type\":\"mount\"}` in linux.namespaces",
    may_pass: false,
    judge: |host, container, found| judge(Kind::Mnt, Severity::High, host, container, found),
};

pub const CGROUP: Check = Check {
    id: "host-cgroup-namespace",
    severity: "medium",
    seen: "the container's cgroup namespace is the host's",
    why: "/proc/self/cgroup shows where on the host it lies, and a cgroup filesystem that it mounts begins at the host's root.",
    sources: &["cgroup_namespaces(7)", "CVE-2022-0492"],
    remedy: "give it a cgroup namespace: `{\"type\":\"cgroup\"}` in linux.namespaces",
    may_pass: false,
    judge: |host, container, found| judge(Kind::Cgroup, Severity::Medium, host, container, found),
};

fn judge(
    kind: Kind,
    severity: Severity,
    host: &Host,
    container: &Container,
    found: &mut Found<'_>,
) {
    let Some(inode) = container.namespace(kind).filter(|inode| host.is_own(kind, *inode)) else {
        return;
    };
    let word = kind.spec_name();
    let (asked, declared) = match container.asked_namespace(kind) {
        None => (false, String::new()),
        Some(Namespace::Private) => (false, format!("{word} namespace: private")),
        Some(Namespace::Joined(path)) => (true, format!("{word} namespace: that of {path}")),
        Some(Namespace::Shared) => {
            (true, format!("{word} namespace: none in linux.namespaces, so the caller's"))
        }
    };
    found.add(
        severity,
        Opening {
            declared,
            asked,
            observed: format!("{}, the host's", kind.link(inode)),
            evidence: vec![Evidence::proc(
                format!("/proc/{}/ns/{}", container.init.pid, kind.name()),
                kind.link(inode),
            )],
            ..Opening::default()
        },
    );
}
