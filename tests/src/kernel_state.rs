//! What the kernel holds: cgroups, mounts and processes that carry a test's tag.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A mounted cgroup hierarchy.
#[derive(Debug, Clone)]
pub struct CgroupMount {
    /// 1 or 2.
    pub version: u8,
    /// The controllers, and for a named v1 hierarchy `name=…`.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub path: PathBuf,
}

/// Every cgroup hierarchy that is mounted here.
pub fn cgroup_mounts() -> Vec<CgroupMount> {
    parse_cgroup_mounts(&own_mounts(), |path| {
        fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default()
    })
}

/// The hierarchy that has `controller`.
pub fn cgroup_mount_of(controller: &str) -> Option<CgroupMount> {
    cgroup_mounts().into_iter().find(|mount| mount.controllers.iter().any(|c| c == controller))
}

fn own_mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted")
}

/// `controllers_of` gives the text of `cgroup.controllers` at a v2 mount.
fn parse_cgroup_mounts(
    mountinfo: &str,
    controllers_of: impl Fn(&Path) -> String,
) -> Vec<CgroupMount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            // 36 35 98:0 /root /mount/point rw,noatime master:1 - type source super,options
            let (mount, filesystem) = line.split_once(" - ")?;
            let path = PathBuf::from(mount.split(' ').nth(4)?);
            let mut filesystem = filesystem.split(' ');
            match filesystem.next()? {
                "cgroup" => Some(CgroupMount {
                    version: 1,
                    controllers: filesystem
                        .nth(1)?
                        .split(',')
                        .filter(|option| !matches!(*option, "rw" | "ro" | "xattr" | "noprefix"))
                        .map(str::to_owned)
                        .collect(),
                    path,
                }),
                "cgroup2" => Some(CgroupMount {
                    version: 2,
                    controllers: controllers_of(&path)
                        .split_whitespace()
                        .map(str::to_owned)
                        .collect(),
                    path,
                }),
                _ => None,
            }
        })
        .collect()
}

/// The cgroups that have `tag` in their name or lie below one that has, in every hierarchy.
pub fn cgroups_with(tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = cgroup_mounts().into_iter().map(|mount| mount.path).collect();
    while let Some(folder) = folders.pop() {
        // Cgroups of others come and go meanwhile; one that is gone has nothing in it.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.path().to_string_lossy().contains(tag) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    found
}

/// Removes the empty cgroups of [`cgroups_with`] `tag`, from the bottom up.
///
/// # Errors
///
/// One that cannot be removed, such as one that still holds a process.
pub fn remove_cgroups_with(tag: &str) -> io::Result<()> {
    let mut cgroups = cgroups_with(tag);
    cgroups.sort_by_key(|path| Reverse(path.components().count()));
    cgroups.iter().try_for_each(fs::remove_dir)
}

/// The mount points of this mount namespace whose line in mountinfo contains `tag`.
pub fn mounts_with(tag: &str) -> Vec<PathBuf> {
    own_mounts()
        .lines()
        .filter(|line| line.contains(tag))
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .collect()
}

/// A process, for a reader of a failed assertion.
#[derive(Debug, Clone)]
pub struct ProcessEntry {
    /// Its id.
    pub pid: i32,
    /// Its arguments, joined by blanks; the name in brackets where it has none.
    pub command: String,
}

/// The processes whose arguments, cgroups or working folder contain `tag`, without this one, and without those that have
/// ended and whose parent is the machine's first process: when that takes note of it is its own affair.
pub fn processes_with(tag: &str) -> Vec<ProcessEntry> {
    let own = i32::try_from(std::process::id()).expect("a process id is positive");
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let folder = PathBuf::from(format!("/proc/{pid}"));
            // A process that ends while it is looked at is none.
            let read = |name: &str| {
                fs::read(folder.join(name))
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            let command = read("cmdline").ok()?.replace('\0', " ");
            let concerned = command.contains(tag)
                || read("cgroup").is_ok_and(|text| text.contains(tag))
                || fs::read_link(folder.join("cwd"))
                    .is_ok_and(|path| path.to_string_lossy().contains(tag));
            let command = if command.is_empty() {
                format!("[{}]", read("comm").unwrap_or_default().trim())
            } else {
                command
            };
            (concerned && !read("stat").is_ok_and(|stat| is_the_first_ones_zombie(&stat)))
                .then_some(ProcessEntry { pid, command })
        })
        .collect()
}

/// Whether `/proc/PID/stat` is of a zombie whose parent has the id 1: `PID (NAME) STATE PPID …`.
fn is_the_first_ones_zombie(stat: &str) -> bool {
    // The name may hold anything, a bracket too.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with("Z 1 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_of_the_first_process_are_told_apart() {
        assert!(is_the_first_ones_zombie("7 (a) Z 1) Z 1 7 7"));
        assert!(!is_the_first_ones_zombie("7 (a) Z 12 7 7"));
        assert!(!is_the_first_ones_zombie("7 (a) Z 1 7) S 1 7"));
    }

    #[test]
    fn hybrid_hierarchies_are_told_apart() {
        let mountinfo = "\
24 1 0:22 / /sys rw,relatime - sysfs sysfs rw
30 24 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
31 24 0:26 / /sys/fs/cgroup/systemd rw shared:7 - cgroup cgroup rw,xattr,name=systemd
32 24 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
        let mounts = parse_cgroup_mounts(mountinfo, |_| "hugetlb misc\n".to_owned());
        let told: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.version, mount.controllers.join(","), mount.path.to_str().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                (1, "cpu,cpuacct".to_owned(), "/sys/fs/cgroup/cpu,cpuacct"),
                (1, "name=systemd".to_owned(), "/sys/fs/cgroup/systemd"),
                (2, "hugetlb,misc".to_owned(), "/sys/fs/cgroup/unified"),
            ]
        );
    }
}
