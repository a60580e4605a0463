//! `residue-mount`: a filesystem is still mounted.

use super::{Look, ResidueCheck, finding, words};
use crate::leaks::host::Host;
use crate::leaks::mounts::{Mount, is_within};
use crate::leaks::process::Kind;
use crate::leaks::{Evidence, Finding, Severity};
use std::collections::BTreeSet;

pub const CHECK: ResidueCheck = ResidueCheck {
    id: "residue-mount",
    severity: Severity::High,
    seen: "a mount below the folder of a container that has ended",
    why: "The filesystem stays in use: its device cannot be removed, its files cannot be freed, and whoever holds it reads on.",
    sources: &["mount_namespaces(7)", "umount(2)"],
    remedy: "unmount it (umount -l), after what holds it has ended",
    left,
};

/// Mounts below its folder, in the host's mount namespace and in those of the host's processes.
fn left(look: &Look<'_>) -> Vec<Finding> {
    let Look { host, ended, .. } = look;
    let folder = ended.folder.display().to_string();
    let below = |mount: &&Mount| is_within(&mount.point, &folder);
    let mut findings = Vec::new();
    let mut add = |mount: &Mount, place: String, holders: &[i32]| {
        let held = if holders.is_empty() {
            "nothing has it open".to_owned()
        } else {
            format!("held by process {}", words(holders))
        };
        findings.push(finding(
            &CHECK,
            &ended.name,
            &mount.point,
            format!("{} ({}) is mounted; {held}", mount.point, mount.kind),
            vec![Evidence::proc(place, format!("{} {} {}", mount.device, mount.root, mount.point))],
        ));
    };
    for mount in host.mounts.iter().filter(below) {
        add(mount, "/proc/self/mountinfo".to_owned(), &users_of(host, mount.id));
    }
    // Another mount namespace holds a copy of what was mounted when it was made.
    let mut namespaces = BTreeSet::new();
    for process in host.processes() {
        let Some(inode) = process.namespace(Kind::Mnt) else { continue };
        if host.is_own(Kind::Mnt, inode)
            || host.containers.iter().any(|c| c.namespace(Kind::Mnt) == Some(inode))
            || !namespaces.insert(inode)
        {
            continue;
        }
        for mount in host.proc().mounts(process.pid).iter().filter(below) {
            add(mount, format!("/proc/{}/mountinfo", process.pid), &[process.pid]);
        }
    }
    findings
}

/// The processes that have something on a mount open.
fn users_of(host: &Host, mount: u64) -> Vec<i32> {
    let proc = host.proc();
    let uses = |pid: i32| {
        let links = ["cwd", "root", "exe"].iter().filter_map(|name| proc.open_link(pid, name));
        links.chain(proc.descriptors(pid, 4096)).any(|open| open.mount == Some(mount))
    };
    host.processes().map(|process| process.pid).filter(|pid| uses(*pid)).collect()
}
