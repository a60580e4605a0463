//! Every cgroup hierarchy that is mounted, and the files in it that hold what the kernel enforces.

use super::mounts::Mount;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// As `/proc/PID/cgroup` has it: the controllers joined by commas, `name=…`; empty for cgroup v2.
    pub controllers: String,
    /// Where it is mounted.
    pub point: PathBuf,
}

/// The hierarchies among `mounts`, by the words that `/proc/PID/cgroup` uses.
pub fn hierarchies(mounts: &[Mount]) -> Vec<Hierarchy> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.root == "/") {
        let controllers = match mount.kind.as_str() {
            "cgroup2" => String::new(),
            "cgroup" => {
                let words = mount.super_options().filter(|word| {
                    !matches!(*word, "rw" | "ro" | "xattr" | "noprefix" | "clone_children")
                        && !word.starts_with("release_agent=")
                });
                words.collect::<Vec<_>>().join(",")
            }
            _ => continue,
        };
        if seen.insert(controllers.clone()) {
            all.push(Hierarchy { controllers, point: PathBuf::from(&mount.point) });
        }
    }
    all
}

impl Hierarchy {
    /// Whether this is cgroup v2.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether it has a controller: in v2, whether the root offers it.
    pub fn has(&self, controller: &str) -> bool {
        if self.is_unified() {
            let offered = fs::read_to_string(self.point.join("cgroup.controllers"));
            return offered.is_ok_and(|text| text.split_whitespace().any(|c| c == controller));
        }
        self.controllers.split(',').any(|c| c == controller)
    }

    /// The folder of a cgroup.
    pub fn folder(&self, path: &str) -> PathBuf {
        self.point.join(path.trim_start_matches('/'))
    }

    /// The text of a file of a cgroup.
    pub fn read(&self, path: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.folder(path).join(file)).ok()
    }

    /// How many eBPF programs decide over devices for a cgroup of v2, its ancestors' included; none where the kernel
    /// does not tell (`BPF_PROG_QUERY`).
    pub fn device_programs(&self, path: &str) -> Option<u32> {
        const BPF_PROG_QUERY: libc::c_int = 16;
        const BPF_CGROUP_DEVICE: u32 = 6;
        const BPF_F_QUERY_EFFECTIVE: u32 = 1;
        /// The part of `union bpf_attr` (linux/bpf.h) for this command.
        #[repr(C)]
        #[derive(Default)]
        struct Query {
            target: u32,
            kind: u32,
            flags: u32,
            attach_flags: u32,
            ids: u64,
            count: u32,
            pad: u32,
        }
        let folder = fs::File::open(self.folder(path)).ok()?;
        let mut query = Query {
            target: u32::try_from(folder.as_raw_fd()).ok()?,
            kind: BPF_CGROUP_DEVICE,
            flags: BPF_F_QUERY_EFFECTIVE,
            ..Query::default()
        };
        // SAFETY: the attribute is a live struct of the layout that the command takes, with the size that is stated.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>())
        };
        let told = result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ENOSPC);
        told.then_some(query.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaks::mounts;

    #[test]
    fn hierarchies_are_named_as_a_process_names_them() {
        let text = b"1 0 0:1 / /c/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            2 0 0:2 / /c/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            3 0 0:3 / /c/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
            4 0 0:1 / /again rw - cgroup cgroup rw,cpu,cpuacct\n\
            5 0 0:4 /x /part rw - cgroup cgroup rw,memory\n";
        let found = hierarchies(&mounts::parse(text));
        let names: Vec<_> = found.iter().map(|h| h.controllers.as_str()).collect();
        assert_eq!(names, ["cpu,cpuacct", "name=systemd", ""]);
        assert!(found[0].has("cpuacct") && !found[0].has("memory"));
        assert_eq!(found[2].folder("/a/b"), PathBuf::from("/c/unified/a/b"));
    }
}
