//! Containers recognised by the path of their cgroup.
//!
//! A new layout is one row in [`ROWS`] and one line in the test.

/// What a path tells of its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised<'a> {
    /// Path of the container's own cgroup: the path given, or an ancestor of it.
    pub path: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Who made it.
    pub runtime: &'static str,
    /// Who manages the cgroup: `cgroupfs` or `systemd`.
    pub driver: &'static str,
    /// The uid of the Kubernetes pod, else empty.
    pub pod_uid: &'a str,
}

impl Recognised<'_> {
    /// `container`, or `service` for what systemd runs itself.
    pub fn kind(&self) -> &'static str {
        if self.runtime == "systemd" { "service" } else { "container" }
    }
}

/// What an id looks like.
#[derive(Clone, Copy)]
enum Id {
    /// 64 hexadecimal digits.
    Hex64,
    /// Anything.
    Any,
}

/// One layout: a path component `prefix``id``suffix` below a component that starts with `parent`.
struct Row {
    /// The component before must start with this; empty for any.
    parent: &'static str,
    prefix: &'static str,
    id: Id,
    suffix: &'static str,
    runtime: &'static str,
    driver: &'static str,
}

const fn row(
    parent: &'static str,
    (prefix, id, suffix): (&'static str, Id, &'static str),
    runtime: &'static str,
    driver: &'static str,
) -> Row {
    Row { parent, prefix, id, suffix, runtime, driver }
}

/// The layouts, the more specific ones first.
const ROWS: &[Row] = &[
    row("terrarium", ("", Id::Any, ""), "terrarium", "cgroupfs"),
    row("", ("terrarium-", Id::Any, ".scope"), "terrarium", "systemd"),
    row("", ("docker-", Id::Hex64, ".scope"), "docker", "systemd"),
    row("", ("libpod-conmon-", Id::Hex64, ".scope"), "", "systemd"),
    row("", ("libpod-", Id::Hex64, ".scope"), "podman", "systemd"),
    row("", ("libpod-", Id::Hex64, ""), "podman", "cgroupfs"),
    row("", ("cri-containerd-", Id::Hex64, ".scope"), "containerd", "systemd"),
    row("", ("crio-conmon-", Id::Hex64, ".scope"), "", "systemd"),
    row("", ("crio-", Id::Hex64, ".scope"), "cri-o", "systemd"),
    row("docker", ("", Id::Hex64, ""), "docker", "cgroupfs"),
    row("pod", ("crio-", Id::Hex64, ""), "cri-o", "cgroupfs"),
    row("pod", ("", Id::Hex64, ""), "containerd", "cgroupfs"),
    row("default", ("", Id::Any, ""), "containerd", "cgroupfs"),
    row("k8s.io", ("", Id::Hex64, ""), "containerd", "cgroupfs"),
    row("", ("lxc.payload.", Id::Any, ""), "lxc", "cgroupfs"),
    row("lxc", ("", Id::Any, ""), "lxc", "cgroupfs"),
    row("", ("machine-", Id::Any, ".scope"), "systemd-nspawn", "systemd"),
    row("system.slice", ("", Id::Any, ".service"), "systemd", "systemd"),
];

/// The outermost container that `path` lies in.
pub fn recognise(path: &str) -> Option<Recognised<'_>> {
    let mut parent = "";
    let mut pod_uid = "";
    let mut start = 1;
    while start < path.len() {
        let end = path[start..].find('/').map_or(path.len(), |at| start + at);
        let component = &path[start..end];
        for Row { parent: wanted, prefix, id, suffix, runtime, driver } in ROWS {
            if !wanted.is_empty() && !is_parent(parent, wanted) {
                continue;
            }
            let Some(found) =
                component.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix))
            else {
                continue;
            };
            let fits = match id {
                Id::Hex64 => found.len() == 64 && found.bytes().all(|b| b.is_ascii_hexdigit()),
                Id::Any => !found.is_empty(),
            };
            if !fits {
                continue;
            }
            if runtime.is_empty() {
                // A helper of an engine, not a container.
                return None;
            }
            return Some(Recognised { path: &path[..end], id: found, runtime, driver, pod_uid });
        }
        if let Some(uid) = pod_uid_of(component) {
            pod_uid = uid;
        }
        parent = component;
        start = end + 1;
    }
    None
}

/// Whether a component is the parent that a row asks for. A pod's folder is `pod<uid>`; all others are whole names.
fn is_parent(component: &str, wanted: &str) -> bool {
    match wanted {
        "pod" => pod_uid_of(component).is_some(),
        _ => component == wanted,
    }
}

/// The pod uid in `pod<uid>` or `kubepods-…-pod<uid>.slice`.
fn pod_uid_of(component: &str) -> Option<&str> {
    let rest = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match rest.strip_prefix("kubepods") {
        Some(rest) => rest.split_once("-pod")?.1,
        None => rest.strip_prefix("pod")?,
    };
    (uid.len() >= 32).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "1c2d3e4f-0000-1111-2222-333344445555";

    #[track_caller]
    fn check(path: &str, expected: Option<(&str, &str, &str)>) {
        let path = path.replace("HEX", HEX).replace("UID", UID);
        let found = recognise(&path).map(|r| (r.runtime, r.id, r.path));
        let expected = expected
            .map(|(runtime, id, at)| (runtime, id.replace("HEX", HEX), at.replace("HEX", HEX)))
            .map(|(runtime, id, at)| (runtime, id, at.replace("UID", UID)));
        assert_eq!(
            found,
            expected.as_ref().map(|(r, i, a)| (*r, i.as_str(), a.as_str())),
            "{path}"
        );
    }

    #[test]
    fn layouts_of_engines() {
        check("/", None);
        check("/user.slice/user-0.slice", None);
        check("/terrarium", None);
        check("/terrarium/web", Some(("terrarium", "web", "/terrarium/web")));
        check("/terrarium/web/inner/deep", Some(("terrarium", "web", "/terrarium/web")));
        check("/docker/HEX", Some(("docker", "HEX", "/docker/HEX")));
        check("/docker/buildx", None);
        check(
            "/system.slice/docker-HEX.scope/init",
            Some(("docker", "HEX", "/system.slice/docker-HEX.scope")),
        );
        check(
            "/machine.slice/libpod-HEX.scope/container",
            Some(("podman", "HEX", "/machine.slice/libpod-HEX.scope")),
        );
        check("/machine.slice/libpod-conmon-HEX.scope", None);
        check("/libpod_parent/libpod-HEX", Some(("podman", "HEX", "/libpod_parent/libpod-HEX")));
        check(
            "/kubepods/burstable/podUID/HEX",
            Some(("containerd", "HEX", "/kubepods/burstable/podUID/HEX")),
        );
        check("/default/redis", Some(("containerd", "redis", "/default/redis")));
        check(
            "/system.slice/nginx.service",
            Some(("systemd", "nginx", "/system.slice/nginx.service")),
        );
    }

    #[test]
    fn a_pod_is_told_by_its_uid() {
        let uid = UID.replace('-', "_");
        let path = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{HEX}.scope"
        );
        let found = recognise(&path).expect("a container");
        assert_eq!((found.pod_uid, found.runtime), (uid.as_str(), "containerd"));
    }
}
