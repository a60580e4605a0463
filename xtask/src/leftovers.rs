//! What a test run leaves on the machine: a list taken before and compared with one taken after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::shell;

/// The kernel ends veth pairs, cgroups and mounts of a namespace some time after its last process.
const GRACE: Duration = Duration::from_secs(5);

/// The things on this machine that a container, an observatory or a test could have made.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// Looks at the machine. What cannot be read is left out: it is left out again afterwards.
    pub fn now(root: &Path) -> Self {
        let mut found = BTreeSet::new();
        links(&mut found);
        rule_tables(&mut found);
        mounts(&mut found);
        processes(root, &mut found);
        folders(&mut found);
        Self(found)
    }

    /// Fails with the list of what is there now and was not before.
    pub fn compare(&self, root: &Path) -> Result<()> {
        let deadline = Instant::now() + GRACE;
        loop {
            let now = Self::now(root);
            let new: Vec<&String> = now.0.difference(&self.0).collect();
            if new.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                for thing in &new {
                    println!("left behind: {thing}");
                }
                bail!("the tests left {} things behind (listed above)", new.len());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn links(found: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        found.insert(format!("network link {}", entry.file_name().to_string_lossy()));
    }
}

fn rule_tables(found: &mut BTreeSet<String>) {
    let Some(nft) = shell::program("nft") else { return };
    let Ok(tables) = shell::output(Command::new(nft).args(["list", "tables"])) else { return };
    for table in tables.lines().filter(|line| line.contains("terrarium")) {
        found.insert(format!("nft {table}"));
    }
}

/// Mount points of this mount namespace, and the cgroups below the hierarchies among them.
fn mounts(found: &mut BTreeSet<String>) {
    let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else { return };
    for (point, kind) in text.lines().filter_map(mount_point_and_type) {
        found.insert(format!("mount {point} ({kind})"));
        if kind.starts_with("cgroup") {
            cgroups(Path::new(point), 0, found);
        }
    }
}

/// Fields 5 and 9 of `proc_pid_mountinfo(5)`: the mount point, and the type after the separator.
fn mount_point_and_type(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    Some((before.split(' ').nth(4)?, after.split(' ').next()?))
}

fn cgroups(folder: &Path, depth: usize, found: &mut BTreeSet<String>) {
    // Ours are at the top, or below the cgroup that a session manager gave us.
    const DEEP_ENOUGH: usize = 6;
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path();
        if path.to_string_lossy().contains("terrarium") {
            found.insert(format!("cgroup {}", path.display()));
        }
        if depth < DEEP_ENOUGH {
            cgroups(&path, depth + 1, found);
        }
    }
}

/// Processes that run a program from this checkout's products, or live in a cgroup of ours.
fn processes(root: &Path, found: &mut BTreeSet<String>) {
    let own = std::process::id();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|text| text.parse::<u32>().ok()) else { continue };
        let ours = fs::read_link(entry.path().join("exe")).is_ok_and(|exe| {
            exe.starts_with(root) && !exe.ends_with("xtask")
                || exe.file_name().is_some_and(|name| name.to_string_lossy().contains("terrarium"))
        }) || fs::read_to_string(entry.path().join("cgroup"))
            .is_ok_and(|cgroup| cgroup.contains("/terrarium"));
        if ours && pid != own {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            found.insert(format!("process {pid} {}", words.trim()));
        }
    }
}

/// State and temporary folders, by the names that terrarium gives them.
fn folders(found: &mut BTreeSet<String>) {
    for parent in ["/run/terrarium", "/run/netns"] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            found.insert(format!("file {}", entry.path().display()));
        }
    }
    let temporary = std::env::temp_dir();
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains("terrarium") {
            found.insert(format!("file {}", entry.path().display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_of_mountinfo_do_not_shift_the_type() {
        for (line, expected) in [
            ("36 35 98:0 / /mnt rw - ext4 /dev/sda rw", Some(("/mnt", "ext4"))),
            (
                "36 35 0:1 /x /sys/fs/cgroup rw shared:1 master:2 - cgroup2 cgroup rw",
                Some(("/sys/fs/cgroup", "cgroup2")),
            ),
            ("no separator", None),
        ] {
            assert_eq!(mount_point_and_type(line), expected, "{line}");
        }
    }
}
