//! The file in which the runtime tells of a container: `<root>/<id>/state.json`, see docs/ARCHITECTURE.md.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the observatory reads of it. Fields that it does not know are ignored.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
pub struct StateFile {
    /// The container's id.
    pub id: String,
    /// Its name; the id when empty.
    #[serde(default)]
    pub name: String,
    /// Its image.
    #[serde(default)]
    pub image: String,
    /// `creating`, `created`, `running`, `paused` or `stopped`.
    #[serde(default)]
    pub status: String,
    /// The container's first process, in the initial pid namespace.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Its cgroups.
    #[serde(default)]
    pub cgroups: Vec<StateCgroup>,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub created: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Inode of each of its namespaces.
    #[serde(default)]
    pub namespaces: BTreeMap<String, u64>,
}

/// One cgroup of a container.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct StateCgroup {
    /// `unified`, or the name of a v1 controller.
    pub hierarchy: String,
    /// Path below the hierarchy's mount.
    pub path: String,
    /// The kernel's id.
    #[serde(default)]
    pub id: u64,
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    inode: u64,
    modified_ns: i64,
}

/// The folders below `root` that hold a state file, with the version of each. A root that does not exist yet has none.
pub fn list(root: &Path) -> Vec<(PathBuf, Version)> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path().join("state.json");
            let metadata = std::fs::metadata(&path).ok()?;
            let version = Version {
                inode: metadata.ino(),
                modified_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            };
            Some((path, version))
        })
        .collect()
}

/// Reads a state file.
pub fn read(path: &Path) -> io::Result<StateFile> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_is_read_with_unknown_fields() {
        let root = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(root.path().join("web")).expect("make folder");
        std::fs::create_dir(root.path().join("empty")).expect("make folder");
        std::fs::write(
            root.path().join("web/state.json"),
            r#"{"version":1,"id":"web","status":"running","pid":null,"later":{"x":1},
               "cgroups":[{"hierarchy":"unified","path":"/terrarium/web","id":4312}]}"#,
        )
        .expect("write file");
        let files = list(root.path());
        assert_eq!(files.len(), 1);
        let state = read(&files[0].0).expect("read state");
        assert_eq!((state.id.as_str(), state.cgroups[0].id), ("web", 4312));
        assert!(list(&root.path().join("absent")).is_empty());
    }
}
