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
    /// Whether an engine that keeps files of its own about its containers has made it: of a runtime's own layout its state tells
    /// more.
    pub fn is_of_engine(&self) -> bool {
        !["systemd", "terrarium", "runc", "crun", "youki"].contains(&self.runtime)
    }

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

/// A runtime of this name: a helper of an engine, not a container.
const HELPER: &str = "";

/// A runtime of this name: not a container, but there may be some below.
const LOOK_BELOW: &str = "-";

/// The layouts, the more specific ones first.
const ROWS: &[Row] = &[
    row("terrarium", ("", Id::Any, ""), "terrarium", "cgroupfs"),
    row("", ("terrarium-", Id::Any, ".scope"), "terrarium", "systemd"),
    row("", ("docker-", Id::Hex64, ".scope"), "docker", "systemd"),
    row("", ("nerdctl-", Id::Hex64, ".scope"), "containerd", "systemd"),
    row("", ("libpod-conmon-", Id::Hex64, ".scope"), HELPER, "systemd"),
    row("", ("libpod-", Id::Hex64, ".scope"), "podman", "systemd"),
    row("", ("libpod-", Id::Hex64, ""), "podman", "cgroupfs"),
    row("", ("cri-containerd-", Id::Hex64, ".scope"), "containerd", "systemd"),
    // What containerd makes of systemd's triple where it uses cgroupfs itself.
    row("", ("*:cri-containerd:", Id::Hex64, ""), "containerd", "systemd"),
    row("", ("crio-conmon-", Id::Hex64, ".scope"), HELPER, "systemd"),
    row("", ("crio-conmon-", Id::Hex64, ""), HELPER, "cgroupfs"),
    row("", ("crio-", Id::Hex64, ".scope"), "cri-o", "systemd"),
    row("docker", ("", Id::Hex64, ""), "docker", "cgroupfs"),
    row("moby", ("", Id::Hex64, ""), "docker", "cgroupfs"),
    row("buildkit", ("", Id::Any, ""), "buildkit", "cgroupfs"),
    row("pod", ("crio-", Id::Hex64, ""), "cri-o", "cgroupfs"),
    row("pod", ("", Id::Hex64, ""), "containerd", "cgroupfs"),
    row("default", ("", Id::Any, ""), "containerd", "cgroupfs"),
    row("k8s.io", ("", Id::Hex64, ""), "containerd", "cgroupfs"),
    row("", ("lxc.monitor.", Id::Any, ""), HELPER, "cgroupfs"),
    row("", ("lxc.payload.", Id::Any, ""), "lxc", "cgroupfs"),
    row("lxc", ("", Id::Any, ""), "lxc", "cgroupfs"),
    row("", ("machine-qemu", Id::Any, ".scope"), "libvirt", "systemd"),
    row("", ("machine-", Id::Any, ".scope"), "systemd-nspawn", "systemd"),
    row("", ("systemd-nspawn@", Id::Any, ".service"), "systemd-nspawn", "systemd"),
    row("", ("crun-", Id::Any, ".scope"), "crun", "systemd"),
    row("", ("runc-", Id::Any, ".scope"), "runc", "systemd"),
    row("", ("youki-", Id::Any, ".scope"), "youki", "systemd"),
    row("", ("user@", Id::Any, ".service"), LOOK_BELOW, "systemd"),
    row("*.slice", ("", Id::Any, ".service"), "systemd", "systemd"),
];

/// The outermost container that `path` lies in; a service of systemd only where there is none, for engines may run their
/// containers below their own.
pub fn recognise(path: &str) -> Option<Recognised<'_>> {
    let mut parent = "";
    let mut pod_uid = "";
    let mut service = None;
    let mut start = 1;
    while start < path.len() {
        let end = path[start..].find('/').map_or(path.len(), |at| start + at);
        let component = &path[start..end];
        if let Some(uid) = pod_uid_of(component) {
            pod_uid = uid;
        }
        if let Some((row, id)) =
            ROWS.iter().find_map(|row| Some((row, row.id_in(parent, component)?)))
        {
            let Row { runtime, driver, .. } = *row;
            let found = Recognised { path: &path[..end], id, runtime, driver, pod_uid };
            match runtime {
                HELPER => return None,
                LOOK_BELOW => {}
                "systemd" => service = service.or(Some(found)),
                _ => return Some(found),
            }
        }
        parent = component;
        start = end + 1;
    }
    service
}

impl Row {
    /// The id in a component below `parent`, if the row fits.
    fn id_in<'a>(&self, parent: &str, component: &'a str) -> Option<&'a str> {
        if !self.parent.is_empty() && !is_parent(parent, self.parent) {
            return None;
        }
        let rest = match self.prefix.strip_prefix('*') {
            Some(inner) => component.split_once(inner)?.1,
            None => component.strip_prefix(self.prefix)?,
        };
        let id = rest.strip_suffix(self.suffix)?;
        let fits = match self.id {
            Id::Hex64 => id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            Id::Any => !id.is_empty(),
        };
        fits.then_some(id)
    }
}

/// A name as systemd writes it in the names of units, `a\x2db` for `a-b`, in clear.
pub fn unescape(name: &str) -> std::borrow::Cow<'_, str> {
    if !name.contains("\\x") {
        return name.into();
    }
    let mut parts = name.split("\\x");
    let mut clear = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(code) = code.filter(u8::is_ascii) {
            clear.push(char::from(code));
            clear.push_str(&part[2..]);
        } else {
            clear.push_str("\\x");
            clear.push_str(part);
        }
    }
    clear.into()
}

/// Whether a component is the parent that a row asks for: a pod's folder, `pod<uid>`, any slice, or this very name.
fn is_parent(component: &str, wanted: &str) -> bool {
    match wanted {
        "pod" => pod_uid_of(component).is_some(),
        "*.slice" => component.strip_suffix(".slice").is_some(),
        _ => component == wanted,
    }
}

/// The pod uid in `pod<uid>`, `kubepods-…-pod<uid>.slice` or that with something behind a colon.
fn pod_uid_of(component: &str) -> Option<&str> {
    let component = component.split(':').next()?;
    let rest = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match rest.find("kubepods") {
        Some(at) => rest[at..].split_once("-pod")?.1,
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
        check("/moby/HEX", Some(("docker", "HEX", "/moby/HEX")));
        check("/buildkit/x7", Some(("buildkit", "x7", "/buildkit/x7")));
        check(
            "/system.slice/nerdctl-HEX.scope",
            Some(("containerd", "HEX", "/system.slice/nerdctl-HEX.scope")),
        );
        check(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-HEX.scope/container",
            Some((
                "podman",
                "HEX",
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-HEX.scope",
            )),
        );
        check(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/mail.service",
            Some((
                "systemd",
                "mail",
                "/user.slice/user-1000.slice/user@1000.service/app.slice/mail.service",
            )),
        );
        check("/user.slice/user-1000.slice/user@1000.service/init.scope", None);
        check(
            "/lxc.payload.box/system.slice/ssh.service",
            Some(("lxc", "box", "/lxc.payload.box")),
        );
        check("/lxc/box/init.scope", Some(("lxc", "box", "/lxc/box")));
        check("/lxc.monitor.box", None);
        check(
            "/machine.slice/machine-deb.scope/payload",
            Some(("systemd-nspawn", "deb", "/machine.slice/machine-deb.scope")),
        );
        check(
            "/machine.slice/systemd-nspawn@deb.service/payload",
            Some(("systemd-nspawn", "deb", "/machine.slice/systemd-nspawn@deb.service")),
        );
        check("/user.slice/crun-box.scope", Some(("crun", "box", "/user.slice/crun-box.scope")));
        check(
            "/system.slice/runc-box.scope",
            Some(("runc", "box", "/system.slice/runc-box.scope")),
        );
        check("/docker/HEX/kubelet/kubepods/podUID/HEX", Some(("docker", "HEX", "/docker/HEX")));
        check("/default/redis", Some(("containerd", "redis", "/default/redis")));
        check(
            "/system.slice/nginx.service",
            Some(("systemd", "nginx", "/system.slice/nginx.service")),
        );
    }

    #[test]
    fn pods_of_every_class_and_driver() {
        let flat = UID.replace('-', "_");
        for (path, runtime, uid) in [
            ("/kubepods/podUID/HEX", "containerd", UID),
            ("/kubepods/besteffort/podUID/HEX", "containerd", UID),
            ("/kubepods/burstable/podUID/crio-HEX", "cri-o", UID),
            ("/kubepods.slice/kubepods-podFLAT.slice/crio-HEX.scope", "cri-o", &*flat),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podFLAT.slice/cri-containerd-HEX.scope",
                "containerd",
                &*flat,
            ),
            ("/kubepods.slice/kubepods-podFLAT.slice/docker-HEX.scope", "docker", &*flat),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podFLAT.slice/cri-containerd-HEX.scope",
                "containerd",
                &*flat,
            ),
            (
                "/system.slice/containerd.service/kubepods-burstable-podFLAT.slice:cri-containerd:HEX",
                "containerd",
                &*flat,
            ),
        ] {
            let path = path.replace("HEX", HEX).replace("UID", UID).replace("FLAT", &flat);
            let found = recognise(&path).unwrap_or_else(|| panic!("{path} is not recognised"));
            assert_eq!((found.runtime, found.id, found.pod_uid), (runtime, HEX, uid), "{path}");
        }
        let path = format!("/kubepods/podUID/crio-conmon-{HEX}").replace("UID", UID);
        assert_eq!(recognise(&path), None);
    }

    #[test]
    fn names_of_units_in_clear() {
        for (name, clear) in [
            ("plain", "plain"),
            ("a\\x2db", "a-b"),
            ("\\x2d", "-"),
            ("x\\xzz", "x\\xzz"),
            ("\\x", "\\x"),
        ] {
            assert_eq!(unescape(name), clear);
        }
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
