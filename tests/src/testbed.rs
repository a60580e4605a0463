//! What one test owns, and the proof that nothing of it is left.

use crate::container::Container;
use crate::deadline::within;
use crate::network_namespace::NetworkNamespace;
use crate::process::{self, Outcome, Process};
use crate::{binaries, kernel_state, rootfs};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// How long the kernel may take to give back what it gives back in the background (network namespaces, cgroups).
const SETTLE: Duration = Duration::from_secs(5);

/// A root filesystem, a state folder and a network namespace that plays the host's.
///
/// Names of containers carry the test's tag, so that what they leave can be told from what parallel tests
/// make. When the bed goes after a test that passed, it panics if anything is left; after a test that failed, it only cleans up.
#[derive(Debug)]
pub struct TestBed {
    tag: String,
    folder: TempDir,
    network: NetworkNamespace,
    links: Vec<String>,
}

impl TestBed {
    /// A new bed with a root filesystem.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Unique among living processes, short (names of interfaces may be made of it), and no word of its own.
        let tag = format!("x{:x}y{number}z", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix(&format!("terrarium-test-{tag}-"))
            .tempdir()
            .expect("the folder for temporary files is writable");
        let network = NetworkNamespace::new();
        let bed = Self { tag, folder, links: network.links(), network };
        rootfs::make(&bed.rootfs());
        bed
    }

    /// A name that no other test uses.
    pub fn unique(&self, name: &str) -> String {
        format!("{name}-{}", self.tag)
    }

    /// The test's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root filesystem of its containers.
    pub fn rootfs(&self) -> PathBuf {
        self.folder().join("rootfs")
    }

    /// Where terrarium keeps the state of its containers (`--root`).
    pub fn root(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// Where terrarium keeps its images (`TERRARIUM_IMAGES`).
    pub fn images(&self) -> PathBuf {
        self.folder().join("images")
    }

    /// The network namespace that plays the host's.
    pub fn network(&self) -> &NetworkNamespace {
        &self.network
    }

    /// Takes the interfaces that are there now as those that may stay: the test has made some of its own.
    pub fn expect_links(&mut self) {
        self.links = self.network.links();
    }

    /// A container to be run, called `name` and the test's tag.
    pub fn container(&self, name: &str) -> Container<'_> {
        Container::new(self, self.unique(name))
    }

    /// A container called `name` as it stands, for pictures: only one at a time may have it on a machine, and what it
    /// leaves is not looked for.
    pub fn container_called(&self, name: &str) -> Container<'_> {
        Container::new(self, name.to_owned())
    }

    /// `terrarium --root …`, to be completed.
    pub fn terrarium(&self) -> Command {
        self.program(binaries::terrarium())
    }

    /// `terrarium-runtime --root …`, to be completed: what engines call.
    pub fn runtime(&self) -> Command {
        self.program(binaries::runtime())
    }

    fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command.arg("--root").arg(self.root()).env("TERRARIUM_IMAGES", self.images());
        command
    }

    /// Runs `terrarium --root … ARGUMENTS` in the bed's network namespace to its end.
    pub fn run<I, S>(&self, arguments: I) -> Outcome
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        self.finish(self.terrarium().args(arguments))
    }

    /// Runs `command` in the bed's network namespace to its end.
    pub fn finish(&self, command: &mut Command) -> Outcome {
        self.network.enter(|| process::run(command))
    }

    /// Starts `command` in the bed's network namespace.
    pub fn spawn(&self, command: &mut Command) -> Process {
        self.network.enter(|| Process::spawn(command))
    }

    /// What containers of this test have left on the machine, one thing a line; empty when there is nothing.
    pub fn leftovers(&self) -> String {
        let mut left = String::new();
        let mut add = |line: std::fmt::Arguments<'_>| {
            writeln!(left, "{line}").expect("writing to a string cannot fail");
        };
        for path in kernel_state::cgroups_with(&self.tag) {
            add(format_args!("cgroup {}", path.display()));
        }
        for path in kernel_state::mounts_with(&self.tag) {
            add(format_args!("mount {}", path.display()));
        }
        for process in kernel_state::processes_with(&self.tag) {
            add(format_args!("process {} {}", process.pid, process.command));
        }
        for link in self.network.links().iter().filter(|link| !self.links.contains(link)) {
            add(format_args!("interface {link}"));
        }
        for line in self.network.nft_ruleset().lines().filter(|line| line.starts_with("table")) {
            add(format_args!("nft {line}"));
        }
        for folder in [self.root(), self.images().join("containers")] {
            for path in files_naming(&folder, &self.tag) {
                add(format_args!("state {}", path.display()));
            }
        }
        left
    }

    /// Asserts that nothing is left, once the kernel has had time to give back what it gives back in the background.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        if let Err(left) = self.settled() {
            panic!("left behind:\n{left}");
        }
    }

    fn settled(&self) -> Result<(), String> {
        within(SETTLE, || {
            let left = self.leftovers();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
    }

    /// Takes away what is left, by means that do not rely on the program under test.
    fn clean_up(&self) {
        for process in kernel_state::processes_with(&self.tag) {
            // It may end by itself in between.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        let mut mounts = kernel_state::mounts_with(&self.tag);
        mounts.reverse();
        for mount in mounts {
            // One that went with its parent is no longer there.
            let _ = umount2(&mount, MntFlags::MNT_DETACH);
        }
        // A cgroup can be removed when its last process has been reaped, and a parent after its children.
        let _ = within(SETTLE, || {
            kernel_state::remove_cgroups_with(&self.tag).map_err(|error| error.to_string())
        });
    }
}

/// What lies below `folder` and has `tag` in its name or, as a small file, in its text.
fn files_naming(folder: &Path, tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let named = entry.file_name().to_string_lossy().contains(tag);
        if named
            || (path.is_file() && fs::read_to_string(&path).is_ok_and(|text| text.contains(tag)))
        {
            found.push(path);
        } else if path.is_dir() {
            found.extend(files_naming(&path, tag));
        }
    }
    found
}

impl Default for TestBed {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestBed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.clean_up();
        } else if let Err(left) = self.settled() {
            self.clean_up();
            panic!("the test passed, but it left behind:\n{left}");
        }
        if !kernel_state::mounts_with(&self.tag).is_empty() {
            // Removing the folder would remove what is mounted in it, which may be the machine's own.
            self.folder.disable_cleanup(true);
        }
    }
}
