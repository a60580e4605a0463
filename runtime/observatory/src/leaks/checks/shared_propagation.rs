//! `shared-propagation`: a mount made inside reaches the host.

use super::Check;
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "shared-propagation",
    severity: "high",
    seen: "a mount of the container's is in a peer group with one of the host's",
    why: "What is mounted below it inside appears on the host, over whatever was there.",
    sources: &["mount_namespaces(7)", "https://docs.kernel.org/filesystems/sharedsubtree.html"],
    remedy: "mount it with `rslave` or `rprivate` instead of `shared`, and leave rootfsPropagation at `rslave` or `private`",
    may_pass: false,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host.shares(container, Kind::Mnt) {
        return;
    }
    for mount in &*container.mounts {
        let Some(group) = mount.shared else { continue };
        let Some(peer) = host.mounts.iter().find(|own| own.shared == Some(group)) else { continue };
        let spec = container.spec.as_ref();
        let shared = |word: &str| word == "shared" || word == "rshared";
        let asked = spec.is_some_and(|spec| {
            shared(&spec.root_propagation())
                || spec
                    .mount_over(&mount.point)
                    .is_some_and(|asked| asked.options.iter().any(|option| shared(option)))
        });
        found.add(
            Severity::High,
            Opening {
                object: mount.point.clone(),
                asked,
                declared: if asked { "shared by the spec" } else { "private or slave" }.to_owned(),
                observed: format!(
                    "{} is in peer group {group} with the host's {}",
                    mount.point, peer.point
                ),
                evidence: vec![
                    Evidence::proc(
                        format!("/proc/{}/mountinfo", container.init.pid),
                        format!("{} shared:{group}", mount.point),
                    ),
                    Evidence::proc("/proc/self/mountinfo", format!("{} shared:{group}", peer.point)),
                ],
                mounts: vec![mount.place(&host.host_path(mount).unwrap_or_default())],
                ..Opening::default()
            },
        );
        // What came along with it by rbind has the same cause.
        return;
    }
}
