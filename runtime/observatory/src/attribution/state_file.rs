//! The files in which runtimes tell of their containers: terrarium's own, see docs/ARCHITECTURE.md, and those of runc, crun
//! and youki, which nobody else has to manage for their containers to have names.
//!
//! To add a runtime: a line in [`roots`], and a [`Format`] if its file is one that none of them has.

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
    /// Where its OCI bundle is.
    #[serde(default)]
    pub bundle: PathBuf,
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

/// How a runtime writes its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Terrarium,
    Runc,
    Crun,
    Youki,
}

/// A folder with a folder for each container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    folder: PathBuf,
    file: &'static str,
    format: Format,
    /// The runtime whose it is.
    pub runtime: &'static str,
}

impl Root {
    const fn new(
        folder: PathBuf,
        file: &'static str,
        format: Format,
        runtime: &'static str,
    ) -> Self {
        Self { folder, file, format, runtime }
    }

    /// terrarium's own.
    pub fn terrarium(folder: PathBuf) -> Self {
        Self::new(folder, "state.json", Format::Terrarium, "terrarium")
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// terrarium's folder, and those in which other runtimes keep their containers, also those of people without root. `run`
/// is `/run` but for tests.
pub fn roots(terrarium: &Path, run: &Path) -> Vec<Root> {
    let users = std::fs::read_dir(run.join("user")).into_iter().flatten().flatten();
    let below = [run.to_owned()].into_iter().chain(users.map(|user| user.path()));
    let others = below.flat_map(|run| {
        [
            Root::new(run.join("runc"), "state.json", Format::Runc, "runc"),
            Root::new(run.join("crun"), "status", Format::Crun, "crun"),
            Root::new(run.join("youki"), "youki_config.json", Format::Youki, "youki"),
        ]
    });
    [Root::terrarium(terrarium.to_owned())].into_iter().chain(others).collect()
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    inode: u64,
    modified_ns: i64,
}

/// The folders of containers below `root`, those without a state file included; hidden ones are in the making.
pub fn folders(root: &Root) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(&root.folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        !is_hidden && path.is_dir()
    })
}

/// The state files below `root`, with the version of each. A root that does not exist yet has none.
pub fn list(root: &Root) -> Vec<(PathBuf, Version)> {
    let Ok(entries) = std::fs::read_dir(&root.folder) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path().join(root.file);
            let metadata = std::fs::metadata(&path).ok()?;
            let version = Version {
                inode: metadata.ino(),
                modified_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            };
            Some((path, version))
        })
        .collect()
}

/// Reads a state file. `points` gives the mount point of `unified` or of a v1 controller, by which runc tells paths.
pub fn read(
    root: &Root,
    path: &Path,
    points: &dyn Fn(&str) -> Option<PathBuf>,
) -> io::Result<StateFile> {
    let text = std::fs::read(path)?;
    let id = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let mut state = match root.format {
        Format::Terrarium => return serde_json::from_slice(&text).map_err(io::Error::from),
        Format::Runc => runc(serde_json::from_slice(&text)?, points),
        Format::Crun => crun(serde_json::from_slice(&text)?),
        Format::Youki => youki(path, &serde_json::from_slice(&text)?)?,
    };
    state.id = id.into_owned();
    for cgroup in &mut state.cgroups {
        let folder =
            points(&cgroup.hierarchy).map(|at| at.join(cgroup.path.trim_start_matches('/')));
        // The inode number of a cgroup's directory is its kernel id.
        cgroup.id = folder.and_then(|f| f.metadata().ok()).map_or(0, |metadata| metadata.ino());
    }
    state.cgroups.retain(|cgroup| cgroup.id != 0);
    Ok(state)
}

#[derive(Deserialize)]
struct Runc {
    init_process_pid: u32,
    #[serde(default)]
    created: String,
    /// Absolute, by controller; empty for cgroup v2.
    #[serde(default)]
    cgroup_paths: BTreeMap<String, PathBuf>,
    config: RuncConfig,
}

#[derive(Deserialize)]
struct RuncConfig {
    /// `name=value`
    #[serde(default)]
    labels: Vec<String>,
}

fn runc(file: Runc, points: &dyn Fn(&str) -> Option<PathBuf>) -> StateFile {
    let cgroups = file.cgroup_paths.into_iter().filter_map(|(controller, path)| {
        let hierarchy = if controller.is_empty() { "unified".to_owned() } else { controller };
        let path = path.strip_prefix(points(&hierarchy)?).ok()?;
        Some(StateCgroup { path: format!("/{}", path.display()), hierarchy, id: 0 })
    });
    let mut labels: BTreeMap<String, String> = file
        .config
        .labels
        .iter()
        .filter_map(|label| label.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    StateFile {
        pid: Some(file.init_process_pid),
        status: "running".to_owned(),
        created: file.created,
        cgroups: cgroups.collect(),
        // runc's own; it is no label that somebody chose.
        bundle: labels.remove("bundle").unwrap_or_default().into(),
        labels,
        ..StateFile::default()
    }
}

#[derive(Deserialize)]
struct Crun {
    pid: u32,
    #[serde(default, rename = "cgroup-path")]
    cgroup_path: String,
    #[serde(default)]
    created: String,
    #[serde(default)]
    bundle: PathBuf,
}

fn crun(file: Crun) -> StateFile {
    StateFile {
        pid: Some(file.pid),
        status: "running".to_owned(),
        created: file.created,
        cgroups: everywhere(&file.cgroup_path),
        bundle: file.bundle,
        ..StateFile::default()
    }
}

#[derive(Deserialize)]
struct Youki {
    #[serde(default)]
    cgroup_path: String,
}

#[derive(Deserialize)]
struct OciState {
    #[serde(default)]
    pid: Option<u32>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    bundle: PathBuf,
}

/// youki has the cgroup in one file and the rest, as the OCI has it, in another beside it.
fn youki(path: &Path, file: &Youki) -> io::Result<StateFile> {
    let state: OciState =
        serde_json::from_slice(&std::fs::read(path.with_file_name("state.json"))?)?;
    Ok(StateFile {
        pid: state.pid,
        status: "running".to_owned(),
        created: state.created.unwrap_or_default(),
        cgroups: everywhere(&file.cgroup_path),
        bundle: state.bundle,
        ..StateFile::default()
    })
}

/// A path that is the same in all hierarchies.
fn everywhere(path: &str) -> Vec<StateCgroup> {
    let path = format!("/{}", path.trim_start_matches('/'));
    ["unified", "memory", "pids", "cpu", "cpuacct", "blkio"]
        .map(|hierarchy| StateCgroup { hierarchy: hierarchy.to_owned(), path: path.clone(), id: 0 })
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("make folder");
        std::fs::write(path, text).expect("write file");
    }

    #[test]
    fn a_state_file_is_read_with_unknown_fields() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(folder.path().join("empty")).expect("make folder");
        write(
            folder.path().join("web/state.json"),
            r#"{"version":1,"id":"web","status":"running","pid":null,"later":{"x":1},
               "cgroups":[{"hierarchy":"unified","path":"/terrarium/web","id":4312}]}"#,
        );
        let root = Root::terrarium(folder.path().to_owned());
        let files = list(&root);
        assert_eq!(files.len(), 1);
        let state = read(&root, &files[0].0, &|_| None).expect("read state");
        assert_eq!((state.id.as_str(), state.cgroups[0].id), ("web", 4312));
        assert!(list(&Root::terrarium(folder.path().join("absent"))).is_empty());
    }

    #[test]
    fn files_of_other_runtimes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let run = folder.path().join("run");
        let mount = folder.path().join("cgroup/memory");
        for cgroup in ["box", "crun-box", "youki/box"] {
            std::fs::create_dir_all(mount.join(cgroup)).expect("make folder");
        }
        write(
            run.join("runc/box/state.json"),
            &r#"{"id":"box","init_process_pid":71,"created":"2026-11-25T03:06:47Z",
               "config":{"labels":["bundle=/b","team=blue"]},
               "cgroup_paths":{"memory":"MOUNT/box","devices":"/elsewhere/box"}}"#
                .replace("MOUNT", &mount.display().to_string()),
        );
        write(
            run.join("user/1000/crun/box/status"),
            r#"{"pid":72,"cgroup-path":"/crun-box","bundle":"/b","created":"2026-11-25T03:06:47Z"}"#,
        );
        write(run.join("youki/box/youki_config.json"), r#"{"cgroup_path":"/youki/box"}"#);
        write(run.join("youki/box/state.json"), r#"{"id":"box","pid":73,"bundle":"/b"}"#);
        let points = |hierarchy: &str| (hierarchy == "memory").then(|| mount.clone());
        let mut found = Vec::new();
        for root in roots(Path::new("/nonexistent"), &run) {
            for (file, _) in list(&root) {
                let state = read(&root, &file, &points).expect("a state");
                assert_eq!((state.id.as_str(), &*state.bundle), ("box", Path::new("/b")));
                assert_eq!(state.cgroups.len(), 1, "{state:?}");
                assert_ne!(state.cgroups[0].id, 0);
                found.push((root.runtime, state.pid.unwrap_or(0), state.cgroups[0].path.clone()));
            }
        }
        found.sort_unstable();
        let expected =
            [("crun", 72, "/crun-box"), ("runc", 71, "/box"), ("youki", 73, "/youki/box")];
        assert_eq!(found, expected.map(|(name, pid, path)| (name, pid, path.to_owned())));
    }
}
