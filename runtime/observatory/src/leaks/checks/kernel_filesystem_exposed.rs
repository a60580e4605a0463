//! `kernel-filesystem-exposed`: what the kernel shows of itself, where it should be hidden or read-only.

use super::{Check, host_filesystem_mounted};
use crate::leaks::mounts::{Mount, is_within};
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Place, Severity};

pub const CHECK: Check = Check {
    id: "kernel-filesystem-exposed",
    severity: "medium to critical",
    seen: "procfs of another pid namespace; writable /proc/sys or sysrq-trigger, kcore unmasked; writable sysfs or cgroupfs; debugfs, tracefs, securityfs, bpffs, efivarfs",
    why: "core_pattern, modprobe, uevent_helper and release_agent name programs that the kernel starts on the host as root; kcore and debugfs show its memory.",
    sources: &["proc_sys_kernel(5)", "core(5)", "sysfs(5)", "CVE-2022-0492"],
    remedy: "mount /proc and /sys as every engine does: maskedPaths and readonlyPaths of the default set, sysfs and cgroup with `ro`, none of the others",
    may_pass: false,
    judge,
};

/// One thing that is exposed.
struct Exposed {
    severity: Severity,
    asked: bool,
    text: String,
    evidence: String,
    /// The mount that shows it, where one too many does.
    place: Option<Place>,
}

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host_filesystem_mounted::sees_host_root(host, container) || !container.started {
        return;
    }
    let binds = host_filesystem_mounted::host_binds(host, container);
    let mut all: Vec<Exposed> = container
        .mounts
        .iter()
        .filter(|mount| !host_filesystem_mounted::came_along(host, &binds, mount))
        .filter_map(|mount| filesystem(host, container, mount))
        .collect();
    all.extend(own_procfs(host, container));
    if all.is_empty() {
        return;
    }
    // One finding for all of them: they have one cause, how the kernel's filesystems are mounted.
    let less = |exposed: &Exposed| {
        if exposed.asked { exposed.severity.one_less() } else { exposed.severity }
    };
    let severity = all.iter().map(less).max().unwrap_or(Severity::Medium);
    let texts: Vec<&str> = all.iter().map(|exposed| exposed.text.as_str()).collect();
    let path = format!("/proc/{}/mountinfo", container.init.pid);
    found.add_as(
        severity,
        Opening {
            asked: all.iter().all(|exposed| exposed.asked),
            declared: "the kernel's filesystems hidden or read-only, but for what the spec says"
                .to_owned(),
            observed: texts.join("; "),
            evidence: all
                .iter()
                .map(|exposed| Evidence::proc(path.clone(), exposed.evidence.clone()))
                .collect(),
            mounts: all.into_iter().filter_map(|exposed| exposed.place).collect(),
            ..Opening::default()
        },
    );
}

/// What a mount of a filesystem of the kernel's exposes by itself.
fn filesystem(host: &Host, container: &Container, mount: &Mount) -> Option<Exposed> {
    let read_only = mount.is_read_only();
    let privileged = container.has_host_users(host);
    let (severity, what) = match mount.kind.as_str() {
        "proc" if mount.root == "/" => {
            let foreign = !host.shares(container, Kind::Pid)
                && host.mounts.iter().any(|m| m.kind == "proc" && m.device == mount.device);
            let other = host.containers.iter().find(|other| {
                other.init.pid != container.init.pid
                    && other.namespace(Kind::Pid) != container.namespace(Kind::Pid)
                    && other.mounts.iter().any(|m| m.point == "/proc" && m.device == mount.device)
            });
            if !foreign && other.is_none() {
                return None;
            }
            let severity = if read_only { Severity::High } else { Severity::Critical };
            let whose = other.filter(|_| !foreign).map_or("the host", |c| c.name.name.as_str());
            (severity, format!("the procfs of {whose}"))
        }
        // A part of the host's procfs, such as /proc/1/root or /proc/sys.
        "proc" => {
            let foreign = !host.shares(container, Kind::Pid)
                && host.mounts.iter().any(|m| m.kind == "proc" && m.device == mount.device);
            if !foreign {
                return None;
            }
            let severity = if read_only { Severity::High } else { Severity::Critical };
            (severity, format!("{} of the host's procfs", mount.root))
        }
        "sysfs" if !read_only => {
            // Without rights on the host its files refuse to be written.
            (if privileged { Severity::High } else { Severity::Medium }, "writable sysfs".to_owned())
        }
        "cgroup" if !read_only => (
            if privileged { Severity::Critical } else { Severity::Medium },
            "writable cgroup v1 filesystem".to_owned(),
        ),
        "cgroup2" if !read_only => {
            // A root in the container's own cgroup namespace shows its own part alone.
            let own = !host.shares(container, Kind::Cgroup);
            let severity = if own || !privileged { Severity::Medium } else { Severity::High };
            (severity, "writable cgroup v2 filesystem".to_owned())
        }
        "debugfs" | "tracefs" | "securityfs" | "bpf" | "efivarfs" => {
            let severity = match (privileged, read_only) {
                (false, _) => Severity::Medium,
                (true, true) => Severity::High,
                (true, false) => Severity::Critical,
            };
            (severity, mount.kind.clone())
        }
        _ => return None,
    };
    let asked = container.spec.as_ref().is_some_and(|spec| {
        spec.mounts().iter().any(|asked| {
            let same = asked.destination.trim_end_matches('/') == mount.point.trim_end_matches('/');
            let above = asked.options.iter().any(|option| option == "rbind" || option == "rw");
            let read_only = asked.options.iter().any(|option| option == "ro");
            (same && (!read_only || mount.is_read_only()))
                || (above && is_within(&mount.point, &asked.destination))
                || (asked.kind.starts_with("cgroup")
                    && !read_only
                    && is_within(&mount.point, &asked.destination))
        })
    });
    Some(Exposed {
        severity,
        asked,
        text: format!("{what} at {}, {}", mount.point, mount.access()),
        evidence: format!("{} {} {} {}", mount.device, mount.root, mount.point, mount.kind),
        place: Some(mount.place("")),
    })
}

/// What is neither masked nor read-only of the procfs at /proc.
fn own_procfs(host: &Host, container: &Container) -> Vec<Exposed> {
    let mut all = Vec::new();
    let Some(proc) = container.mounts.iter().rev().find(|mount| mount.point == "/proc") else {
        return all;
    };
    // To nobody's root on the host, these files refuse to be written or read.
    if proc.kind != "proc" || proc.root != "/" || !container.has_host_users(host) {
        return all;
    }
    let writable = |path: &str| container.mount_over(path).is_some_and(|m| !m.is_read_only());
    let hidden = |path: &str| {
        container.mount_over(path).is_some_and(|mount| mount.point == path)
    };
    let guarded = container.spec.as_ref().map(crate::leaks::spec::Spec::guarded_paths);
    let unguarded = |path: &str| {
        guarded.as_ref().is_some_and(|(masked, read_only)| {
            !masked.iter().chain(read_only).any(|guarded| is_within(path, guarded))
        })
    };
    let mut add = |path: &str, severity, text: &str| {
        all.push(Exposed {
            severity,
            asked: unguarded(path),
            text: format!("{path} {text}"),
            evidence: format!("no mount over {path} of the procfs at /proc"),
            place: None,
        });
    };
    if writable("/proc/sys/kernel") {
        add("/proc/sys", Severity::Critical, "writable");
    }
    // Not every kernel has them.
    let exists = |path: &str| host.proc().is_live() && std::path::Path::new(path).exists();
    if exists("/proc/sysrq-trigger") && writable("/proc/sysrq-trigger") {
        add("/proc/sysrq-trigger", Severity::High, "writable");
    }
    if exists("/proc/kcore") && !hidden("/proc/kcore") {
        add("/proc/kcore", Severity::Medium, "not masked");
    }
    all
}
