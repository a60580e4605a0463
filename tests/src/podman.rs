//! Podman with everything it keeps in the test's own folder.

use crate::TestBed;
use crate::deadline::within;
use crate::kernel_state::remove_cgroups_with;
use crate::process::Outcome;
use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

/// Limits of its containers: its own are more than a host without `CAP_SYS_RESOURCE` can give.
pub const ULIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];

/// Podman. When it goes, its containers go.
#[derive(Debug)]
pub struct Podman<'a> {
    bed: &'a TestBed,
    /// What makes its containers.
    runtime: OsString,
}

impl<'a> Podman<'a> {
    /// With terrarium as its runtime.
    pub fn new(bed: &'a TestBed) -> Self {
        Self::with_runtime(bed, bed.runtime().get_program())
    }

    /// With another runtime.
    pub fn with_runtime(bed: &'a TestBed, runtime: impl Into<OsString>) -> Self {
        Self { bed, runtime: runtime.into() }
    }

    /// Runs `podman WORDS` to its end.
    pub fn call(&self, words: &[&str]) -> Outcome {
        self.bed.finish(self.command(Command::new("podman")).args(words))
    }

    /// The command line, to be completed, of `command`: Podman, or what executes it.
    pub fn command(&self, mut command: Command) -> Command {
        let folder = |name: &str| self.bed.folder().join("podman").join(name);
        command.arg("--root").arg(folder("root")).arg("--runroot").arg(folder("run"));
        command.arg("--tmpdir").arg(folder("tmp")).args(["--storage-driver", "vfs"]);
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.arg("--runtime").arg(&self.runtime);
        command
    }

    /// The name of the cgroup of its containers. Podman puts its monitor there too, and leaves all of it behind.
    pub fn cgroup_parent(&self) -> String {
        self.bed.unique("podman")
    }

    /// `podman run` of a container called `name` and the test's tag, in the bed's root filesystem.
    pub fn run(&self, name: &str, options: &[&str], command: &[&str]) -> Outcome {
        let words = self.run_words(name, options, command);
        self.bed.finish(self.command(Command::new("podman")).args(words))
    }

    /// What [`Podman::run`] adds to Podman's own options.
    pub fn run_words(&self, name: &str, options: &[&str], command: &[&str]) -> Vec<String> {
        let (name, rootfs) = (self.bed.unique(name), self.bed.rootfs());
        let parent = format!("/{}", self.cgroup_parent());
        let mut words = vec!["run", "--name", &name, "--cgroup-parent", &parent];
        words.extend(ULIMITS);
        words.extend(options);
        words.extend(["--rootfs", rootfs.to_str().expect("paths of tests are UTF-8")]);
        words.extend(command);
        words.into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.call(&["rm", "--all", "--force", "--time", "0"]);
        // Its monitor ends some time after the container. What stays, the bed finds.
        let _ = within(Duration::from_secs(10), || {
            remove_cgroups_with(&self.cgroup_parent()).map_err(|error| error.to_string())
        });
    }
}
