//! `root-not-pivoted`: the old root is still there.

use super::{Check, host_filesystem_mounted};
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "root-not-pivoted",
    severity: "high",
    seen: "the old root is still reachable: the container was made by chroot alone, or the host's root is still mounted below its own",
    why: "chroot(2) changes where paths begin and nothing else: whoever has CAP_SYS_CHROOT and a folder open above walks out.",
    sources: &["chroot(2)", "pivot_root(2)"],
    remedy: "let the runtime use pivot_root (leave out --no-pivot; give it a mount namespace), and unmount the old root",
    may_pass: true,
    judge,
};

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host.shares(container, Kind::Mnt) || !container.started {
        return;
    }
    let pid = container.init.pid;
    let mut add = |observed: String, path: &str, value: String| {
        found.add(
            Severity::High,
            Opening {
                declared: "a root of its own".to_owned(),
                observed,
                evidence: vec![Evidence::proc(format!("/proc/{pid}/{path}"), value)],
                ..Opening::default()
            },
        );
    };
    let own = container.mounts.iter().rev().find(|mount| mount.point == "/");
    if let Some(own) = own
        && host.host_path(own).as_deref() == Some("/")
    {
        let value = format!("{} {} at /", own.device, own.root);
        add("its root is the host's".to_owned(), "mountinfo", value);
        return;
    }
    let left = container.mounts.iter().find(|mount| {
        mount.point != "/"
            && host.host_path(mount).as_deref() == Some("/")
            && container.spec.is_some()
            && !host_filesystem_mounted::is_asked(container, mount)
    });
    if let Some(mount) = left {
        let value = format!("{} {} at {}", mount.device, mount.root, mount.point);
        add(format!("the host's root is mounted at {}", mount.point), "mountinfo", value);
        return;
    }
    // A process without a mount at / has been given a folder for a root.
    let whole = container.mounts_from_namespace_root(host.proc());
    let top = whole.and_then(|mounts| mounts.iter().rev().find(|mount| mount.point == "/"));
    if let Some(top) = top
        && own.is_none_or(|own| own.id != top.id)
    {
        let root = host.proc().link(pid, "root").unwrap_or_default();
        add(
            format!("its root is {root} of a mount namespace whose root is another"),
            "root",
            format!("{root}; the namespace's root is mount {} ({})", top.id, top.kind),
        );
    }
}
