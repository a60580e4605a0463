//! The kernel's own numbers about memory limits: `memory.events` (v2), or `memory.failcnt` and `memory.oom_control`
//! (v1). They are exported beside what the probes count, as a second, independent number.

use crate::kernel::cgroup_mounts::{CgroupMounts, Hierarchy};
use crate::probe::Walked;
use crate::resources::{Budget, KeptFile, cgroup_id};
use std::path::Path;
use std::sync::Arc;
use terrarium_abi::usage::told;

/// Events of one memory cgroup, as the kernel counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Reclaimed although below `memory.low`.
    pub low: u64,
    /// Throttled at `memory.high`.
    pub high: u64,
    /// At `memory.max`; v1: `memory.failcnt`.
    pub max: u64,
    /// Limit reached, and allocation about to fail.
    pub oom: u64,
    /// Tasks killed.
    pub oom_kill: u64,
    /// Whole groups killed.
    pub oom_group_kill: u64,
    /// What the cgroup's own files said when they were last read, to see that a new cgroup took the path.
    last: [u64; 6],
}

impl MemoryEvents {
    /// The numbers with the names that they have in the label `event`.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("low", self.low),
            ("high", self.high),
            ("max", self.max),
            ("oom", self.oom),
            ("oom_kill", self.oom_kill),
            ("oom_group_kill", self.oom_group_kill),
        ]
    }

    /// The totals after the files were read again: a number that went down belongs to a new cgroup under the same
    /// path, and is added to what the old one had.
    #[must_use]
    pub fn followed_by(self, now: Self) -> Self {
        let now = now.raw();
        let total = self.raw();
        let mut next = [0; 6];
        for n in 0..6 {
            let step = if now[n] >= self.last[n] { now[n] - self.last[n] } else { now[n] };
            next[n] = total[n] + step;
        }
        let [low, high, max, oom, oom_kill, oom_group_kill] = next;
        Self { low, high, max, oom, oom_kill, oom_group_kill, last: now }
    }

    /// The sum of two cgroups' numbers.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        Self {
            low: self.low + other.low,
            high: self.high + other.high,
            max: self.max + other.max,
            oom: self.oom + other.oom,
            oom_kill: self.oom_kill + other.oom_kill,
            oom_group_kill: self.oom_group_kill + other.oom_group_kill,
            last: [0; 6],
        }
    }

    fn raw(self) -> [u64; 6] {
        self.named().map(|(_, value)| value)
    }
}

/// The files of one memory cgroup, kept open.
pub struct MemoryFiles {
    hierarchy: Hierarchy,
    folder: Arc<Path>,
    /// The cgroup's id; 0 until it is there.
    cgroup_id: u64,
    files: Vec<KeptFile>,
}

impl MemoryFiles {
    /// Those of the cgroup with this path; none where its hierarchy is not mounted.
    pub fn new(
        mounts: &CgroupMounts,
        hierarchy: Hierarchy,
        path: &str,
        budget: &Arc<Budget>,
    ) -> Option<Self> {
        let folder: Arc<Path> = mounts.point(hierarchy)?.join(path.trim_start_matches('/')).into();
        let names: &[&'static str] = match hierarchy {
            Hierarchy::Unified => &["memory.events"],
            Hierarchy::Memory => &["memory.failcnt", "memory.oom_control"],
        };
        let kept = |name: &&'static str| KeptFile::new(&folder, name, budget);
        let files = names.iter().map(kept).collect();
        Some(Self { hierarchy, cgroup_id: cgroup_id(&folder), folder, files })
    }

    /// What the kernel says now: what a walk of its cgroups told, or else these files, read by way of `buffer`. None when the cgroup
    /// is gone.
    pub fn now(&mut self, walked: &Walked, buffer: &mut Vec<u8>) -> Option<MemoryEvents> {
        if let Some(told) = self.told(walked) {
            return Some(told);
        }
        let events = self.read(buffer)?;
        if !walked.is_empty() {
            // It was not told of, so another has taken the path.
            self.cgroup_id = cgroup_id(&self.folder);
        }
        Some(events)
    }

    /// What a walk of the kernel's cgroups told: the numbers that the files would have said.
    pub fn told(&self, walked: &Walked) -> Option<MemoryEvents> {
        let usage = walked.of(self.hierarchy.name(), self.cgroup_id)?;
        if usage.told & told::MEMORY == 0 {
            return None;
        }
        let [low, high, max, oom, oom_kill, oom_group_kill] = usage.memory_events;
        Some(match self.hierarchy {
            Hierarchy::Unified => {
                MemoryEvents { low, high, max, oom, oom_kill, oom_group_kill, last: [0; 6] }
            }
            Hierarchy::Memory => {
                MemoryEvents { max: usage.memory_failcnt, oom_kill, ..MemoryEvents::default() }
            }
        })
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> Option<MemoryEvents> {
        match (self.hierarchy, self.files.as_mut_slice()) {
            (Hierarchy::Unified, [events]) => Some(v2(events.read_again(buffer)?)),
            (Hierarchy::Memory, [failcnt, control]) => {
                let max = failcnt.read_again(buffer)?.trim().parse().ok()?;
                let oom_kill = field(control.read_again(buffer)?, "oom_kill").unwrap_or(0);
                Some(MemoryEvents { max, oom_kill, ..MemoryEvents::default() })
            }
            _ => None,
        }
    }
}

fn v2(text: &str) -> MemoryEvents {
    let value = |name| field(text, name).unwrap_or(0);
    MemoryEvents {
        low: value("low"),
        high: value("high"),
        max: value("max"),
        oom: value("oom"),
        oom_kill: value("oom_kill"),
        oom_group_kill: value("oom_group_kill"),
        last: [0; 6],
    }
}

/// The number after a name, one pair a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mounts: &CgroupMounts, hierarchy: Hierarchy, path: &str) -> Option<MemoryEvents> {
        MemoryFiles::new(mounts, hierarchy, path, &Budget::new(2))?.read(&mut Vec::new())
    }

    #[test]
    fn files_of_both_versions() {
        let root = tempfile::tempdir().expect("temporary folder");
        let folder = root.path().join("web");
        std::fs::create_dir(&folder).expect("make folder");
        let v2 = CgroupMounts { unified: Some(root.path().to_owned()), ..CgroupMounts::default() };
        assert_eq!(read(&v2, Hierarchy::Unified, "/web"), None);
        std::fs::write(
            folder.join("memory.events"),
            "low 0\nhigh 4\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n",
        )
        .expect("write file");
        let events = read(&v2, Hierarchy::Unified, "/web").expect("events");
        assert_eq!((events.high, events.max, events.oom, events.oom_kill), (4, 12, 2, 1));

        let v1 = CgroupMounts { memory: Some(root.path().to_owned()), ..CgroupMounts::default() };
        std::fs::write(folder.join("memory.failcnt"), "7\n").expect("write file");
        std::fs::write(
            folder.join("memory.oom_control"),
            "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        )
        .expect("write file");
        let events = read(&v1, Hierarchy::Memory, "/web").expect("events");
        assert_eq!((events.max, events.oom_kill), (7, 3));
    }

    #[test]
    fn a_new_cgroup_under_the_same_path_adds_to_the_old_ones_numbers() {
        let read = |oom_kill| MemoryEvents { oom_kill, ..MemoryEvents::default() };
        let mut total = MemoryEvents::default();
        for (now, expected) in [(1, 1), (3, 3), (3, 3), (0, 3), (2, 5)] {
            total = total.followed_by(read(now));
            assert_eq!(total.oom_kill, expected, "after reading {now}");
        }
    }
}
