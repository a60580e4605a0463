//! Where the cgroup hierarchies are mounted, and which of them has the memory controller.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// A hierarchy that names containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hierarchy {
    /// cgroup v2.
    Unified,
    /// The v1 hierarchy of the memory controller.
    Memory,
}

impl Hierarchy {
    /// The name, as state files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unified => "unified",
            Self::Memory => "memory",
        }
    }
}

/// How a kernel's cgroups are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only v2.
    V2,
    /// v2 without the memory controller beside v1 hierarchies.
    Hybrid,
    /// Only v1.
    V1,
    /// No cgroups are mounted.
    None,
}

impl Mode {
    /// The name, as doctor prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::V1 => "v1",
            Self::None => "none",
        }
    }
}

/// The v1 controllers that tell what a container uses.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "blkio"];

/// The mounted hierarchies.
#[derive(Debug, Clone, Default)]
pub struct CgroupMounts {
    /// Mount point of the unified hierarchy.
    pub unified: Option<PathBuf>,
    /// Mount point of the v1 memory hierarchy.
    pub memory: Option<PathBuf>,
    /// Mount points of v1 hierarchies by controller.
    pub v1: BTreeMap<String, PathBuf>,
    /// Number of the memory controller's hierarchy, 0 for the unified one.
    pub memory_hierarchy: u32,
}

impl CgroupMounts {
    /// Reads them from `proc`, which is `/proc` but for tests.
    pub fn read(proc: &Path) -> io::Result<Self> {
        let mountinfo = std::fs::read_to_string(proc.join("self/mountinfo"))?;
        // Absent without any v1 controller; then memory, if anywhere, is in the unified hierarchy.
        let cgroups = std::fs::read_to_string(proc.join("cgroups")).unwrap_or_default();
        // The root of each hierarchy is its first cgroup.
        let is_whole = |point: &Path| std::fs::metadata(point).is_ok_and(|found| found.ino() == 1);
        Ok(Self::parse(&mountinfo, &cgroups, &is_whole))
    }

    /// `is_whole` says whether a hierarchy's root is at a mount point.
    fn parse(mountinfo: &str, cgroups: &str, is_whole: &dyn Fn(&Path) -> bool) -> Self {
        let (mut mounts, mut parts) = (Self::default(), Self::default());
        for line in mountinfo.lines() {
            // proc_pid_mountinfo(5): id parent major:minor root mount-point options … - type source super-options
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            // From within a cgroup namespace, what lies above its root is told as /.. for each level.
            if !root.split('/').all(|level| matches!(level, "" | "..")) {
                continue;
            }
            let point = PathBuf::from(unescape(point));
            // Only a mount of the whole hierarchy shows paths as the kernel's events tell them. The root of a cgroup
            // namespace is better than nothing.
            let found = match kind {
                Some("cgroup" | "cgroup2") if is_whole(&point) => &mut mounts,
                Some("cgroup" | "cgroup2") if root == "/" => &mut parts,
                _ => continue,
            };
            if kind == Some("cgroup2") {
                found.unified.get_or_insert(point);
            } else {
                for option in options.split(',').filter(|name| CONTROLLERS.contains(name)) {
                    found.v1.entry(option.to_owned()).or_insert_with(|| point.clone());
                }
            }
        }
        mounts.unified = mounts.unified.or(parts.unified);
        for (controller, point) in parts.v1 {
            mounts.v1.entry(controller).or_insert(point);
        }
        mounts.memory = mounts.v1.get("memory").cloned();
        mounts.memory_hierarchy = cgroups
            .lines()
            .find_map(|line| {
                let mut fields = line.split_whitespace();
                (fields.next() == Some("memory")).then(|| fields.next())?
            })
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        mounts
    }

    /// Whether the memory controller is in a v1 hierarchy.
    pub fn memory_is_v1(&self) -> bool {
        self.memory_hierarchy != 0
    }

    /// How cgroups are set up here.
    pub fn mode(&self) -> Mode {
        match (&self.unified, self.memory_is_v1(), &self.memory) {
            (Some(_), false, _) => Mode::V2,
            (Some(_), true, _) => Mode::Hybrid,
            (None, _, Some(_)) => Mode::V1,
            (None, _, None) => Mode::None,
        }
    }

    /// The mount point of a hierarchy.
    pub fn point(&self, hierarchy: Hierarchy) -> Option<&Path> {
        match hierarchy {
            Hierarchy::Unified => self.unified.as_deref(),
            Hierarchy::Memory => self.memory.as_deref(),
        }
    }

    /// The hierarchy with this number, if it is one of the two.
    pub fn hierarchy(&self, number: u32) -> Option<Hierarchy> {
        match number {
            0 => Some(Hierarchy::Unified),
            n if n == self.memory_hierarchy => Some(Hierarchy::Memory),
            _ => None,
        }
    }

    /// Calls `visit` with the kernel id, the path and the birth of every cgroup of a hierarchy, parents first. A cgroup that
    /// goes away meanwhile is left out.
    pub fn walk(&self, hierarchy: Hierarchy, visit: &mut impl FnMut(u64, &str, OffsetDateTime)) {
        if let Some(point) = self.point(hierarchy) {
            walk(point, "", visit);
        }
    }
}

fn walk(folder: &Path, path: &str, visit: &mut impl FnMut(u64, &str, OffsetDateTime)) {
    let Ok(metadata) = std::fs::symlink_metadata(folder) else { return };
    // The inode number of a cgroup's directory is its kernel id (kernfs, since 5.5 on 64 bits).
    // No kernel file system tells a birth; cgroups below are rarely made later than a container's own.
    let made = OffsetDateTime::from_unix_timestamp(metadata.mtime());
    let made = made.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    visit(metadata.ino(), if path.is_empty() { "/" } else { path }, made);
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name();
            walk(&entry.path(), &format!("{path}/{}", name.to_string_lossy()), visit);
        }
    }
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            out.push(char::from(code));
            rest = &rest[at + 4..];
        } else {
            out.push('\\');
            rest = &rest[at + 1..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 /inner /mnt/partial rw,relatime - cgroup2 cgroup2 rw
34 30 0:29 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_has_both_hierarchies() {
        let mounts = CgroupMounts::parse(
            HYBRID,
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t2\t1\nmemory\t4\t9\t1\n",
            &|_| true,
        );
        assert_eq!(mounts.mode(), Mode::Hybrid);
        assert_eq!(mounts.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/uni fied")));
        assert_eq!(mounts.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(mounts.v1.keys().collect::<Vec<_>>(), ["cpu", "memory"]);
        assert_eq!(mounts.hierarchy(4), Some(Hierarchy::Memory));
        assert_eq!(mounts.hierarchy(0), Some(Hierarchy::Unified));
        assert_eq!(mounts.hierarchy(1), None);
    }

    #[test]
    fn mode_follows_from_mounts_and_controller() {
        let v2 = "31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let v1 = "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        for (mountinfo, cgroups, expected) in [
            (v2, "memory\t0\t9\t1\n", Mode::V2),
            (v2, "", Mode::V2),
            (v1, "memory\t4\t9\t1\n", Mode::V1),
            ("", "", Mode::None),
        ] {
            assert_eq!(CgroupMounts::parse(mountinfo, cgroups, &|_| true).mode(), expected);
        }
    }

    #[test]
    fn in_a_cgroup_namespace_the_whole_hierarchy_is_the_one_with_its_root() {
        let mountinfo = "\
31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
32 30 0:27 /../.. /host/cgroup ro - cgroup2 cgroup2 rw
33 30 0:27 /../../other /mnt rw - cgroup2 cgroup2 rw
";
        let find = |root: &'static str| {
            let is_whole = move |point: &Path| point == Path::new(root);
            CgroupMounts::parse(mountinfo, "", &is_whole).unified
        };
        assert_eq!(find("/host/cgroup").as_deref(), Some(Path::new("/host/cgroup")));
        assert_eq!(find("/sys/fs/cgroup").as_deref(), Some(Path::new("/sys/fs/cgroup")));
        // Where none is, as in a container in a container, the namespace's own.
        assert_eq!(find("/mnt").as_deref(), Some(Path::new("/sys/fs/cgroup")));
    }
}
