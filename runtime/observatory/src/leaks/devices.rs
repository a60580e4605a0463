//! Device nodes that a container sees, and which of them its devices cgroup lets it use.

use super::host::{Container, Host};
use super::process::Proc;
use super::spec::AskedDevice;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstatat, major, minor};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// More entries of a container's /dev are not looked at: it can make as many as it likes.
const MOST_ENTRIES: usize = 4096;

/// How deep below /dev.
const DEPTH: usize = 3;

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where the container sees it.
    pub path: String,
    /// `b` or `c`.
    pub kind: char,
    /// Number of the driver.
    pub major: u64,
    /// Number of the device.
    pub minor: u64,
}

/// What a devices cgroup allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Everything.
    All,
    /// What is named.
    Only(Vec<AskedDevice>),
    /// It is decided by an eBPF program that nobody describes.
    Unknown,
}

impl Allowed {
    /// What the devices cgroup of a container allows, and where that is written.
    pub fn of(host: &Host, container: &Container) -> (Self, String) {
        if let Some((hierarchy, path)) = container.cgroup(host, "devices") {
            let file = hierarchy.folder(&path).join("devices.list").display().to_string();
            return match hierarchy.read(&path, "devices.list") {
                Some(text) => (Self::parse(&text), file),
                None => (Self::Unknown, file),
            };
        }
        let Some((hierarchy, path)) = container.cgroup(host, "") else {
            return (Self::All, "no devices cgroup".to_owned());
        };
        let folder = hierarchy.folder(&path).display().to_string();
        match (hierarchy.device_programs(&path), &container.spec) {
            (Some(0), _) => (Self::All, folder),
            // What the programs decide is what the spec says, as far as anybody can tell.
            (Some(_), Some(spec)) => (Self::Only(spec.device_rules()), folder),
            _ => (Self::Unknown, folder),
        }
    }

    fn parse(text: &str) -> Self {
        let rules: Vec<AskedDevice> = text.lines().filter_map(rule).collect();
        let all = |rule: &AskedDevice| {
            rule.kind == 'a' && rule.major.is_none() && rule.access.contains(['r', 'w'])
        };
        if rules.iter().any(all) { Self::All } else { Self::Only(rules) }
    }

    /// Whether a device may be read or written.
    pub fn covers(&self, kind: char, major: u64, minor: u64) -> bool {
        match self {
            Self::All | Self::Unknown => true,
            Self::Only(rules) => rules.iter().any(|rule| {
                rule.access.contains(['r', 'w']) && rule.covers(kind, Some(major), Some(minor))
            }),
        }
    }
}

/// `c 1:3 rwm`, with `*` for all numbers.
fn rule(line: &str) -> Option<AskedDevice> {
    let mut words = line.split_ascii_whitespace();
    let kind = words.next()?.chars().next()?;
    let (major, minor) = words.next()?.split_once(':')?;
    Some(AskedDevice {
        kind,
        major: major.parse().ok(),
        minor: minor.parse().ok(),
        access: words.next()?.to_owned(),
    })
}

/// Whether reading and writing it is nothing to speak of: null, zero, full, random, urandom, tty, console, ptmx and pseudo
/// terminals, which every engine allows.
pub fn is_ordinary(kind: char, major: Option<u64>, minor: Option<u64>) -> bool {
    match (kind, major, minor) {
        ('c', Some(1), Some(minor)) => matches!(minor, 3 | 5 | 7 | 8 | 9),
        ('c', Some(5), Some(minor)) => minor <= 2,
        ('c', Some(136..=143), _) => true,
        _ => false,
    }
}

/// The device nodes below a container's /dev.
pub fn nodes(proc: &Proc, container: &Container) -> Vec<Node> {
    let pid = container.init.pid;
    if !proc.is_live() {
        let text = proc.text(pid, "devices").unwrap_or_default();
        return text.lines().filter_map(captured).collect();
    }
    // A filesystem that somebody's program serves might never answer.
    let served = |kind: &str| {
        kind.starts_with("fuse") || kind.starts_with("nfs") || kind == "9p" || kind == "cifs"
    };
    if container.mount_over("/dev").is_none_or(|mount| served(&mount.kind)) {
        return Vec::new();
    }
    let Ok(root) = File::open(proc.path(pid, "root")) else { return Vec::new() };
    let mut nodes = Vec::new();
    let mut left = MOST_ENTRIES;
    walk(&root, "/dev", DEPTH, &mut left, &mut nodes, &|path| {
        container.mounts.iter().any(|mount| mount.point == path && served(&mount.kind))
    });
    nodes
}

/// `b 254:0 /dev/vda`
fn captured(line: &str) -> Option<Node> {
    let mut words = line.splitn(3, ' ');
    let kind = words.next()?.chars().next()?;
    let (major, minor) = words.next()?.split_once(':')?;
    let path = words.next()?.to_owned();
    Some(Node { path, kind, major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// Opens a folder below `root` as the container would: no link leads out.
fn open_inside(root: &File, path: &str) -> Option<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root.as_fd(), path, how).ok()
}

fn walk(
    root: &File,
    path: &str,
    depth: usize,
    left: &mut usize,
    nodes: &mut Vec<Node>,
    served: &impl Fn(&str) -> bool,
) {
    let Some(folder) = open_inside(root, path) else { return };
    let Ok(mut entries) = nix::dir::Dir::from_fd(folder) else { return };
    let names: Vec<_> =
        entries.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    for name in names {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let bytes = name.as_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let below = format!("{path}/{}", name.to_string_lossy());
        if served(&below) {
            continue;
        }
        let Ok(info) = fstatat(&entries, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
            continue;
        };
        let file_type = SFlag::from_bits_truncate(info.st_mode) & SFlag::S_IFMT;
        let kind = match file_type {
            SFlag::S_IFBLK => 'b',
            SFlag::S_IFCHR => 'c',
            SFlag::S_IFDIR => {
                // Pseudo terminals, shared memory and message queues are looked at elsewhere.
                let elsewhere = ["/dev/pts", "/dev/shm", "/dev/mqueue"];
                if depth > 0 && !elsewhere.contains(&below.as_str()) {
                    walk(root, &below, depth - 1, left, nodes, served);
                }
                continue;
            }
            _ => continue,
        };
        let (major, minor) = (major(info.st_rdev), minor(info.st_rdev));
        nodes.push(Node { path: below, kind, major, minor });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_devices_cgroup_are_read() {
        let some = Allowed::parse("c *:* m\nb *:* m\nc 1:3 rwm\nc 136:* rw\n");
        assert!(some.covers('c', 1, 3) && some.covers('c', 136, 7));
        assert!(!some.covers('b', 8, 0) && !some.covers('c', 1, 1));
        assert_eq!(Allowed::parse("a *:* rwm\n"), Allowed::All);
        assert_eq!(Allowed::parse("nonsense\n\n"), Allowed::Only(Vec::new()));
        assert!(is_ordinary('c', Some(1), Some(3)) && is_ordinary('c', Some(136), None));
        assert!(!is_ordinary('b', Some(1), Some(3)) && !is_ordinary('c', Some(10), Some(200)));
        assert!(!is_ordinary('c', Some(1), None));
    }
}
