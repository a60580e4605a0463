//! `shared-memory-object`: shared memory or message queues of the host's.

use super::{Check, host_filesystem_mounted};
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "shared-memory-object",
    severity: "medium",
    seen: "the host's /dev/shm or its POSIX message queues are mounted inside",
    why: "What programs of the host keep there can be read and changed: databases, browsers and audio servers keep their buffers so.",
    sources: &["shm_overview(7)", "mq_overview(7)", "ipc_namespaces(7)"],
    remedy: "mount a tmpfs at /dev/shm and a mqueue of its own (leave out --ipc host and binds of /dev/shm)",
    may_pass: false,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host_filesystem_mounted::sees_host_root(host, container) {
        return;
    }
    let binds = host_filesystem_mounted::host_binds(host, container);
    for mount in &*container.mounts {
        let queues = mount.kind == "mqueue" && !host.shares(container, Kind::Ipc);
        let shared = host.mounts.iter().any(|own| {
            own.device == mount.device && (own.point == "/dev/shm" || queues && own.kind == "mqueue")
        });
        let part_of_root = host.mount_at("/").is_some_and(|root| root.device == mount.device);
        if !shared || part_of_root || host_filesystem_mounted::came_along(host, &binds, mount) {
            continue;
        }
        let asked = host_filesystem_mounted::is_asked(container, mount);
        let what = if queues { "message queues" } else { "/dev/shm" };
        found.add(
            Severity::Medium,
            Opening {
                object: mount.point.clone(),
                asked,
                declared: if asked { "mounted by the spec" } else { "its own" }.to_owned(),
                observed: format!("the host's {what} at {}", mount.point),
                evidence: vec![Evidence::proc(
                    format!("/proc/{}/mountinfo", container.init.pid),
                    format!("{} {} {} {}", mount.device, mount.root, mount.point, mount.kind),
                )],
                ..Opening::default()
            },
        );
    }
}
