//! Freezing: `pause` and `resume`.
//!
//! cgroup v2 has it in every cgroup (`cgroup.freeze`, Linux 5.2), in a hybrid host's unified hierarchy as well; v1 has a
//! controller of its own, which a container joins where there is no unified hierarchy.

use crate::cgroup;
use crate::container::START_SOCKET;
use crate::error::{Error, Result, Tried};
use crate::id::ContainerId;
use crate::state::{State, Status};
use crate::store::{Journal, Store};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take; a process in an uninterruptible wait freezes when that is over.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a cgroup is frozen.
enum Freezer {
    /// cgroup v2.
    Unified(PathBuf),
    /// The freezer controller of cgroup v1.
    Controller(PathBuf),
}

impl Freezer {
    fn find(folders: &[PathBuf]) -> Option<Self> {
        let with = |file: &str| folders.iter().find(|folder| folder.join(file).exists()).cloned();
        with("cgroup.freeze").map(Self::Unified).or(with("freezer.state").map(Self::Controller))
    }

    fn write(&self, frozen: bool) -> Result<()> {
        let (path, text) = match (self, frozen) {
            (Self::Unified(folder), true) => (folder.join("cgroup.freeze"), "1"),
            (Self::Unified(folder), false) => (folder.join("cgroup.freeze"), "0"),
            (Self::Controller(folder), true) => (folder.join("freezer.state"), "FROZEN"),
            (Self::Controller(folder), false) => (folder.join("freezer.state"), "THAWED"),
        };
        fs::write(&path, text).tried("write", &path)
    }

    fn is(&self, frozen: bool) -> Result<bool> {
        let read = |path: &Path| fs::read_to_string(path).tried("read", path);
        match self {
            Self::Unified(folder) => {
                let text = read(&folder.join("cgroup.events"))?;
                Ok(text.lines().any(|line| line == "frozen 1") == frozen)
            }
            Self::Controller(folder) => {
                let text = read(&folder.join("freezer.state"))?;
                Ok(text.trim() == if frozen { "FROZEN" } else { "THAWED" })
            }
        }
    }

    fn set(&self, frozen: bool) -> Result<()> {
        self.write(frozen)?;
        let deadline = Instant::now() + TIMEOUT;
        while !self.is(frozen)? {
            if Instant::now() > deadline {
                let (Self::Unified(folder) | Self::Controller(folder)) = self;
                if frozen {
                    // As it was.
                    self.write(false)?;
                }
                return Err(io::Error::from(ErrorKind::TimedOut)).tried_hint(
                    if frozen { "freeze cgroup" } else { "thaw cgroup" },
                    folder,
                    "a process waits for a device, or a cgroup above is frozen",
                );
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }
}

/// Freezes all processes of container `id`; returns when none of them runs any more.
pub fn pause(store: &Store, id: &ContainerId) -> Result<()> {
    change(store, id, true)
}

/// Lets a paused container go on.
pub fn resume(store: &Store, id: &ContainerId) -> Result<()> {
    change(store, id, false)
}

fn change(store: &Store, id: &ContainerId, frozen: bool) -> Result<()> {
    let folder = store.lock(id)?;
    let does_not_exist = || Error::DoesNotExist { id: id.as_str().to_owned() };
    let mut state = State::read(folder.path())?.ok_or_else(does_not_exist)?;
    let status = state.observed_status();
    let fine = match status {
        Status::Created | Status::Running => frozen,
        Status::Paused => !frozen,
        Status::Creating | Status::Stopped => false,
    };
    if !fine {
        return Err(Error::WrongStatus {
            tried: if frozen { "pause" } else { "resume" },
            id: state.id,
            status: status.as_str(),
            wanted: if frozen { "running" } else { "paused" },
        });
    }
    let freezer = Freezer::find(&Journal::read(folder.path())?.cgroups).ok_or_else(|| {
        Error::unsupported(
            "pausing this container",
            "it has neither a cgroup v2 nor a freezer cgroup (`terrarium doctor` shows what is mounted here)",
        )
    })?;
    freezer.set(frozen)?;
    // One that waits for its start still does.
    let is_started = !folder.path().join(START_SOCKET).exists();
    state.status = match (frozen, is_started) {
        (true, _) => Status::Paused,
        (false, true) => Status::Running,
        (false, false) => Status::Created,
    };
    state.write(folder.path())
}

/// Thaws what the freezer of cgroup v1 holds: there, unlike in v2, not even SIGKILL reaches a frozen process.
pub(crate) fn thaw_for_kill(folders: &[PathBuf]) {
    for folder in folders {
        let path = folder.join("freezer.state");
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() != "THAWED") {
            // Removal tells what could not be removed.
            let _ = fs::write(&path, "THAWED");
        }
    }
}

/// Host pids of all processes of container `id`, in order.
pub fn processes(store: &Store, id: &ContainerId) -> Result<Vec<i32>> {
    store.state(id)?;
    let folders = Journal::read(&store.folder(id))?.cgroups;
    // Each of its cgroups holds the same ones.
    Ok(folders.first().map(|folder| cgroup::processes(folder)).unwrap_or_default())
}
