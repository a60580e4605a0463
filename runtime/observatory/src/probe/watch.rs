//! Which cgroups are watched: the kernel side counts and reports only what happens in them.

use crate::attribution::state_file::{self, Root, Version};
use crate::kernel::cgroup_mounts::CgroupMounts;
use crate::probe::load::LoadError;
use aya::Ebpf;
use aya::maps::{HashMap as KernelMap, MapData};
use std::collections::HashMap;
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use terrarium_abi::{WATCH_V1, names};

/// The cgroup of all of terrarium's containers that name no other.
const OWN: &str = "/terrarium";

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Everything.
    All,
    /// These.
    Some {
        /// The containers of terrarium.
        terrarium: bool,
        /// Paths of cgroups, each with all that is below it.
        cgroups: Vec<String>,
    },
}

impl FromStr for Watch {
    type Err = Infallible;

    /// `all`, or a list of `terrarium` and paths, separated by commas.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let words: Vec<&str> = text.split(',').filter(|word| !word.is_empty()).collect();
        if words.is_empty() || words.contains(&"all") {
            return Ok(Self::All);
        }
        let paths = words.iter().filter(|word| **word != "terrarium");
        let cgroups = paths.map(|path| format!("/{}", path.trim_matches('/'))).collect();
        Ok(Self::Some { terrarium: words.contains(&"terrarium"), cgroups })
    }
}

impl Watch {
    /// The programs' switches: whether anything is left out, and whether terrarium's own cgroup is watched.
    pub fn switches(&self) -> (u32, u32) {
        match self {
            Self::All => (0, 0),
            Self::Some { terrarium, .. } => (1, u32::from(*terrarium)),
        }
    }

    /// Refuses a cgroup that is in no hierarchy, before programs are attached, which takes seconds.
    pub fn check(&self, mounts: &CgroupMounts) -> Result<(), LoadError> {
        let Self::Some { cgroups, .. } = self else { return Ok(()) };
        let missing = cgroups.iter().find(|path| !folders(mounts, path).any(|(at, _)| at.is_dir()));
        missing.map_or(Ok(()), |path| Err(LoadError::Unwatchable { path: path.clone() }))
    }
}

/// Where a cgroup may be, in the hierarchies that name containers, and the mark of its id there.
fn folders(mounts: &CgroupMounts, path: &str) -> impl Iterator<Item = (PathBuf, u64)> {
    let path = path.trim_start_matches('/');
    let mounts = [(&mounts.unified, 0), (&mounts.memory, WATCH_V1)];
    mounts.into_iter().filter_map(move |(mount, mark)| Some((mount.as_ref()?.join(path), mark)))
}

/// The programs' map of watched cgroups.
pub struct Watched {
    map: KernelMap<MapData, u64, u8>,
    /// Whether the containers that state files name are to be watched, wherever their cgroups are.
    terrarium: bool,
    /// The state files that have been looked at.
    seen: HashMap<PathBuf, Version>,
}

impl Watched {
    /// Names the first cgroups to the programs.
    pub fn new(ebpf: &mut Ebpf, watch: &Watch, mounts: &CgroupMounts) -> Result<Self, LoadError> {
        let unusable = |reason: String| LoadError::Map { name: names::WATCHED, reason };
        let map =
            ebpf.take_map(names::WATCHED).ok_or_else(|| unusable("it is not there".to_owned()))?;
        let map = KernelMap::try_from(map).map_err(|error| unusable(error.to_string()))?;
        let mut watched = Self { map, terrarium: false, seen: HashMap::new() };
        let Watch::Some { terrarium, cgroups } = watch else { return Ok(watched) };
        watched.terrarium = *terrarium;
        for path in cgroups {
            if !watched.add_path(mounts, path) {
                return Err(LoadError::Unwatchable { path: path.clone() });
            }
        }
        if *terrarium {
            watched.add_path(mounts, OWN);
        }
        Ok(watched)
    }

    /// Watches a cgroup in both hierarchies that name containers; false when it is in none.
    fn add_path(&mut self, mounts: &CgroupMounts, path: &str) -> bool {
        let mut found = false;
        for (folder, mark) in folders(mounts, path) {
            found |= self.add_folder(&folder, mark);
        }
        found
    }

    /// A cgroup before those below it: what is made meanwhile is either found here or added by the programs.
    fn add_folder(&mut self, folder: &Path, mark: u64) -> bool {
        let Ok(metadata) = std::fs::metadata(folder) else { return false };
        self.add(metadata.ino() | mark);
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add_folder(&entry.path(), mark);
            }
        }
        true
    }

    fn add(&mut self, key: u64) {
        if let Err(error) = self.map.insert(key, 1, 0) {
            tracing::warn!(%error, "cannot watch a cgroup");
        }
    }

    /// Watches the containers whose state files are new or have changed.
    pub fn follow_state_files(&mut self, root: &Root) {
        if !self.terrarium || root.runtime != "terrarium" {
            return;
        }
        let files = state_file::list(root);
        self.seen.retain(|path, _| files.iter().any(|(file, _)| file == path));
        for (path, version) in files {
            if self.seen.insert(path.clone(), version) == Some(version) {
                continue;
            }
            // One that is gone by now names nothing that could be watched.
            // terrarium's own file has the ids of its cgroups.
            let Ok(state) = state_file::read(root, &path, &|_| None) else { continue };
            for cgroup in state.cgroups.iter().filter(|cgroup| cgroup.id != 0) {
                match cgroup.hierarchy.as_str() {
                    "unified" => self.add(cgroup.id),
                    "memory" => self.add(cgroup.id | WATCH_V1),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cgroups() {
        let some = |terrarium, cgroups: &[&str]| Watch::Some {
            terrarium,
            cgroups: cgroups.iter().map(|path| (*path).to_owned()).collect(),
        };
        for (text, expected) in [
            ("all", Watch::All),
            ("", Watch::All),
            ("/a,all", Watch::All),
            ("terrarium", some(true, &[])),
            ("/a/b/,c", some(false, &["/a/b", "/c"])),
            ("terrarium,/a", some(true, &["/a"])),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }
}
