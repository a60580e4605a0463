//! `host-filesystem-mounted`: a folder of the host's that matters, bound into the container.

use super::Check;
use crate::leaks::mounts::{Mount, is_within};
use crate::leaks::process::Kind;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};

pub const CHECK: Check = Check {
    id: "host-filesystem-mounted",
    severity: "high, critical where it can be written",
    seen: "a bind of /, /etc, /root, /home, /var/lib, /boot, /usr, a home, an engine's state and the like",
    why: "Read, such folders give away passwords, keys and other containers' data; written, they give the host.",
    sources: &["mount(2)", "https://kubernetes.io/docs/concepts/storage/volumes/#hostpath"],
    remedy: "mount only the folder that is needed, read-only, or a volume; leave the mount out",
    may_pass: false,
    judge,
};

/// Folders that matter, and with them every folder above.
const FOLDERS: [&str; 28] = [
    "/etc", "/root", "/home", "/boot", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/var/lib",
    "/var/log", "/var/spool/cron", "/var/lib/docker", "/var/lib/containers", "/var/lib/containerd",
    "/var/lib/kubelet", "/var/lib/rancher", "/var/lib/lxc", "/var/lib/machines", "/run/docker",
    "/run/containerd", "/run/containers", "/run/runc", "/run/crun", "/run/podman", "/run/systemd",
    "/run/netns", "/run/terrarium",
];

/// Files below /etc that everybody may know.
const HARMLESS: [&str; 12] = [
    "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc/localtime", "/etc/timezone",
    "/etc/machine-id", "/etc/ssl/certs", "/etc/ca-certificates", "/etc/pki/ca-trust",
    "/etc/nsswitch.conf", "/etc/os-release", "/etc/mime.types",
];

/// A mount of something of the host's that matters.
pub struct HostBind<'a> {
    pub mount: &'a Mount,
    pub path: String,
    pub severity: Severity,
}

/// How bad it is to have `path` of the host inside; none where it is nobody's business.
fn severity_of(path: &str, read_only: bool) -> Option<Severity> {
    let bad = if read_only { Severity::High } else { Severity::Critical };
    if path == "/" {
        return Some(Severity::Critical);
    }
    if FOLDERS.iter().any(|folder| is_within(folder, path)) {
        return Some(bad);
    }
    let below = |folder: &str| is_within(path, folder);
    if below("/etc") {
        let harmless = HARMLESS.iter().any(|known| below(known));
        return (!(harmless && read_only)).then_some(bad);
    }
    if below("/boot") || below("/var/spool/cron") {
        return Some(bad);
    }
    // What the host executes.
    let programs = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];
    if !read_only && programs.iter().any(|folder| below(folder)) {
        return Some(Severity::Critical);
    }
    // A whole home, or what is hidden in one: keys, tokens, histories.
    let inside = |folder: &str| path.strip_prefix(folder)?.strip_prefix('/');
    let home = inside("/home").map(|rest| rest.split_once('/').map_or("", |p| p.1));
    let home = home.or_else(|| inside("/root"));
    home.filter(|rest| rest.is_empty() || rest.starts_with('.')).map(|_| bad)
}

/// Whether the spec asks for this mount.
pub fn is_asked(container: &Container, mount: &Mount) -> bool {
    let asked = container.spec.as_ref().and_then(|spec| spec.mount_over(&mount.point));
    asked.is_some_and(|asked| {
        asked.source.starts_with('/') || asked.kind == "bind" || asked.destination == mount.point
    })
}

/// The mounts of a container that show what matters of the host; where the whole root is the host's, none.
pub fn host_binds<'a>(host: &Host, container: &'a Container) -> Vec<HostBind<'a>> {
    if sees_host_root(host, container) {
        return Vec::new();
    }
    let mounts = container.mounts.iter();
    let candidates = mounts.filter(|m| m.point != "/" && !m.is_kernel_filesystem());
    candidates
        .filter_map(|mount| {
            let path = host.host_path(mount)?;
            let severity = severity_of(&path, mount.is_read_only())?;
            Some(HostBind { mount, path, severity })
        })
        .collect()
}

/// Whether everything is the host's: `host-mount-namespace` or `root-not-pivoted` say so.
pub fn sees_host_root(host: &Host, container: &Container) -> bool {
    let own = container.mounts.iter().rev().find(|mount| mount.point == "/");
    host.shares(container, Kind::Mnt)
        || own.is_some_and(|own| host.host_path(own).as_deref() == Some("/"))
}

/// Whether a mount came along with a bind of a folder above it, as with `rbind`.
pub fn came_along(host: &Host, binds: &[HostBind<'_>], mount: &Mount) -> bool {
    binds.iter().any(|bind| {
        let with = bind.mount.id != mount.id && is_within(&mount.point, &bind.mount.point);
        with && {
            let rest = &mount.point[bind.mount.point.trim_end_matches('/').len()..];
            let expected = format!("{}{rest}", bind.path.trim_end_matches('/'));
            host.mounts.iter().any(|own| own.device == mount.device && own.point == expected)
        }
    })
}

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    let binds = host_binds(host, container);
    let with_spec = container.spec.is_some();
    for bind in &binds {
        let asked = is_asked(container, bind.mount);
        // `root-not-pivoted` tells of a root that nobody asked for.
        if came_along(host, &binds, bind.mount) || bind.path == "/" && with_spec && !asked {
            continue;
        }
        // Where there is an engine's socket in it, that is the worse news.
        if super::engine_socket_mounted::sockets(host, bind.mount).is_some() && bind.path != "/" {
            continue;
        }
        let HostBind { mount, path, severity } = bind;
        let access = mount.access();
        found.add(
            *severity,
            Opening {
                object: mount.point.clone(),
                asked,
                declared: if asked { "mounted by the spec" } else { "no such mount" }.to_owned(),
                observed: format!("{path} of the host is at {}, {access}", mount.point),
                evidence: vec![Evidence::proc(
                    format!("/proc/{}/mountinfo", container.init.pid),
                    format!("{} {} {} {access}", mount.device, mount.root, mount.point),
                )],
                remedy: format!(
                    "leave out the mount at {}, or mount only what is needed of {path}, read-only",
                    mount.point
                ),
                mounts: vec![mount.place(path)],
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_told_from_what_does_not() {
        use Severity::{Critical, High};
        for (path, read_only, expected) in [
            ("/", true, Some(Critical)),
            ("/etc", true, Some(High)),
            ("/etc", false, Some(Critical)),
            ("/etc/shadow", true, Some(High)),
            ("/etc/ssl/certs/ca.pem", true, None),
            ("/etc/resolv.conf", true, None),
            ("/etc/resolv.conf", false, Some(Critical)),
            ("/var", true, Some(High)),
            ("/var/lib/docker/volumes/x/_data", false, None),
            ("/var/lib/docker/containers/x/hosts", false, None),
            ("/run", true, Some(High)),
            ("/run/terrarium/web/hosts", false, None),
            ("/usr/share/zoneinfo", true, None),
            ("/usr/bin", false, Some(Critical)),
            (concat!("/home", "/alice"), true, Some(High)),
            (concat!("/home", "/alice/project"), false, None),
            (concat!("/home", "/alice/.ssh"), true, Some(High)),
            (concat!("/root", "/work"), false, None),
            ("/srv/data", false, None),
            ("/tmp/x", false, None),
            ("/etcetera", false, None),
        ] {
            assert_eq!(severity_of(path, read_only), expected, "{path} {read_only}");
        }
    }
}
