//! `shared-superblock`: two containers can write the same files, and nobody asked for it.

use super::{Check, host_filesystem_mounted};
use crate::leaks::mounts::Mount;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "shared-superblock",
    severity: "medium",
    seen: "two containers can write the same mounted folder, and no spec of theirs says so",
    why: "What the one writes the other executes or reads.",
    sources: &["mount(2)"],
    remedy: "give each a folder of its own, or mount the common one read-only",
    may_pass: false,
    judge,
};

/// Whether the spec names what is mounted.
pub fn is_asked(container: &Container, mount: &Mount) -> bool {
    let root = container.spec.as_ref().is_some_and(|spec| !spec.root().is_empty());
    (mount.point == "/" && root) || host_filesystem_mounted::is_asked(container, mount)
}

/// Whether it is of a filesystem with files of somebody's.
pub fn can_be_shared(mount: &Mount) -> bool {
    // What is the host's as well is told as the host's.
    let is_device = mount.root.starts_with("/dev/") || mount.kind == "devtmpfs";
    !mount.is_kernel_filesystem() && !is_device
}

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host_filesystem_mounted::sees_host_root(host, container) {
        return;
    }
    let writable = |mount: &&Mount| {
        // The container's own tmpfs is its own only; empty folders for masks are not written.
        !mount.is_kernel_filesystem() && !mount.is_read_only()
    };
    for mount in container.mounts.iter().filter(writable) {
        if is_asked(container, mount) {
            continue;
        }
        let other = host.containers.iter().find(|other| {
            other.init.pid != container.init.pid
                && other.namespace(Kind::Mnt) != container.namespace(Kind::Mnt)
                && other.mounts.iter().filter(writable).any(|theirs| {
                    (&theirs.device, &theirs.root) == (&mount.device, &mount.root)
                        && !is_asked(other, theirs)
                })
        });
        let Some(other) = other.filter(|_| can_be_shared(mount)) else { continue };
        found.add(
            Severity::Medium,
            Opening {
                object: mount.point.clone(),
                declared: "no common folder".to_owned(),
                observed: format!(
                    "{} ({} {}) can also be written by {}",
                    mount.point, mount.device, mount.root, other.name.name
                ),
                evidence: vec![
                    Evidence::proc(
                        format!("/proc/{}/mountinfo", container.init.pid),
                        format!("{} {} {}", mount.device, mount.root, mount.point),
                    ),
                    Evidence::proc(
                        format!("/proc/{}/mountinfo", other.init.pid),
                        format!("{} {}", mount.device, mount.root),
                    ),
                ],
                ..Opening::default()
            },
        );
    }
}
