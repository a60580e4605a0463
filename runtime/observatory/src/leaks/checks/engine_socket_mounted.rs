//! `engine-socket-mounted`: the socket of an engine, of the kubelet, of systemd or of D-Bus is inside.

use super::{Check, host_filesystem_mounted};
use crate::leaks::mounts::Mount;
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};
use std::os::unix::fs::FileTypeExt;

pub const CHECK: Check = Check {
    id: "engine-socket-mounted",
    severity: "critical",
    seen: "docker.sock, containerd.sock, crio.sock, podman.sock, the kubelet's, systemd's private or the D-Bus system socket is mounted inside",
    why: "Whoever can write to it asks the engine, as root, for a container with the host's root mounted. Read-only mounts do not prevent connecting.",
    sources: &["https://docs.docker.com/engine/security/protect-access/", "unix(7)"],
    remedy: "leave out the mount; give it a proxy that passes only the requests that it needs",
    may_pass: false,
    judge,
};

/// What such sockets are called, whatever folder they lie in.
const NAMES: [&str; 8] = [
    "docker.sock", "containerd.sock", "crio.sock", "podman.sock", "buildkitd.sock", "kubelet.sock",
    "dockershim.sock", "system_bus_socket",
];

/// Where they usually lie.
const PATHS: [&str; 11] = [
    "/run/docker.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock",
    "/run/podman/podman.sock", "/run/buildkit/buildkitd.sock", "/run/systemd/private",
    "/run/dbus/system_bus_socket", "/var/run/docker.sock", "/run/dockershim.sock",
    "/var/lib/kubelet/device-plugins/kubelet.sock", "/var/lib/kubelet/pod-resources/kubelet.sock",
];

/// The socket that a mount shows, itself or in its folder.
pub fn sockets(host: &Host, mount: &Mount) -> Option<String> {
    let path = host.host_path(mount)?;
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let named = |path: &str| NAMES.contains(&last(path).as_str());
    if PATHS.contains(&path.as_str()) || named(&path) || named(&mount.point) {
        return Some(path);
    }
    if !host.proc().is_live() {
        return None;
    }
    let below = PATHS.iter().find(|socket| {
        crate::leaks::mounts::is_within(socket, &path)
            && std::fs::symlink_metadata(socket).is_ok_and(|info| info.file_type().is_socket())
    });
    below.map(|socket| (*socket).to_owned())
}

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host_filesystem_mounted::sees_host_root(host, container) {
        return;
    }
    let binds = host_filesystem_mounted::host_binds(host, container);
    for mount in &*container.mounts {
        if mount.point == "/"
            || mount.is_kernel_filesystem()
            || host.host_path(mount).as_deref() == Some("/")
        {
            continue;
        }
        let Some(socket) = sockets(host, mount) else { continue };
        // One in a folder that is mounted whole is told of once.
        if host_filesystem_mounted::came_along(host, &binds, mount) {
            continue;
        }
        let asked = host_filesystem_mounted::is_asked(container, mount);
        found.add(
            Severity::Critical,
            Opening {
                object: mount.point.clone(),
                asked,
                declared: if asked { "mounted by the spec" } else { "no such mount" }.to_owned(),
                observed: format!("{socket} of the host can be reached at {}", mount.point),
                evidence: vec![Evidence::proc(
                    format!("/proc/{}/mountinfo", container.init.pid),
                    format!("{} {} {}", mount.device, mount.root, mount.point),
                )],
                mounts: vec![mount.place(&host.host_path(mount).unwrap_or_default())],
                ..Opening::default()
            },
        );
    }
}
