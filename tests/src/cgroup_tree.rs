//! Cgroups as engines make them, made by hand.

use crate::deadline::within;
use crate::kernel_state::{cgroup_mounts, remove_cgroups_with};
use crate::{TestBed, process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Cgroups in hierarchies that an observatory reads, gone with this.
pub struct Tree<'a> {
    bed: &'a TestBed,
    folders: Vec<PathBuf>,
}

impl<'a> Tree<'a> {
    /// `path` below a cgroup that is the test's own, in the hierarchies by which containers are told apart.
    pub fn new(bed: &'a TestBed, path: &str) -> Self {
        Self::with(bed, path, &["memory", "pids"])
    }

    /// The same in the unified hierarchy and in those of these v1 controllers.
    pub fn with(bed: &'a TestBed, path: &str, controllers: &[&str]) -> Self {
        let mut folders = Vec::new();
        for mount in cgroup_mounts() {
            let read = mount.version == 2
                || mount.controllers.iter().any(|c| controllers.contains(&c.as_str()));
            let folder = mount.path.join(bed.unique("tree")).join(path);
            if read && !folders.contains(&folder) {
                fs::create_dir_all(&folder).expect("make cgroups");
                folders.push(folder);
            }
        }
        Self { bed, folders }
    }

    /// Cgroups that are there already, below that of the test.
    pub fn of(bed: &'a TestBed, folders: Vec<PathBuf>) -> Self {
        Self { bed, folders }
    }

    /// Its cgroups.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(PathBuf::as_path)
    }

    /// A shell script that enters these cgroups.
    pub fn enter(&self) -> String {
        let procs = self.folders.iter().map(|folder| folder.join("cgroup.procs"));
        procs.map(|procs| format!("echo $$ > {}; ", procs.display())).collect::<Vec<_>>().concat()
    }

    /// `terrarium --root …`, to be completed, in these cgroups, which are the root of its cgroup namespace.
    pub fn terrarium_in_own_namespace(&self, bed: &TestBed) -> Command {
        let script = self.enter() + "exec unshare --cgroup \"$@\"";
        let terrarium = bed.terrarium();
        let mut command = Command::new("sh");
        command.args(["-ec", &script, "sh"]).arg(terrarium.get_program());
        command.args(terrarium.get_args());
        command
    }

    /// Runs a shell script in these cgroups to its end.
    pub fn run(&self, script: &str) {
        process::run(Command::new("sh").args(["-ec", &(self.enter() + script)])).success();
    }
}

impl Drop for Tree<'_> {
    fn drop(&mut self) {
        let _ = within(Duration::from_secs(5), || {
            remove_cgroups_with(&self.bed.unique("tree")).map_err(|error| error.to_string())
        });
    }
}
