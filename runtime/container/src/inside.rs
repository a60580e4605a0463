//! Work on the files of a container, done by a child of the runtime that has the container's root as its own: there no
//! link of the image leads out.

use crate::error::{Error, Result, Tried};
use crate::id::ContainerId;
use crate::init::{ExitOnDrop, exit_now};
use crate::state::{State, Status};
use crate::store::Store;
use crate::syscall::{Cloned, clone3};
use nix::sched::CloneFlags;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The root of a running container.
#[derive(Debug)]
pub struct Root {
    folder: File,
    /// The container's user namespace, where it is not the caller's.
    user: Option<File>,
}

/// What a path of a container leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A folder.
    Folder,
    /// Something else.
    File,
}

/// Which way the bytes of [`Root::run`] go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the caller to the child.
    In,
    /// From the child to the caller.
    Out,
}

/// The child.
#[derive(Debug)]
pub struct Child {
    pidfd: OwnedFd,
    report: File,
}

impl Root {
    /// The root of container `id`, which must have a process: `/proc/PID/root` (proc(5)).
    pub fn of(store: &Store, id: &ContainerId) -> Result<Self> {
        let state = store.state(id)?;
        if !has_process(&state) {
            return Err(Error::WrongStatus {
                tried: "reach into",
                id: state.id.clone(),
                status: state.observed_status().as_str(),
                wanted: "running",
            });
        }
        let open = |path: String, flags: i32| {
            let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path);
            opened.tried("open", Path::new(&path))
        };
        let folder = open(format!("/proc/{}/root", state.pid), libc::O_PATH | libc::O_DIRECTORY)?;
        let user = open(format!("/proc/{}/ns/user", state.pid), 0)?;
        let own = Path::new("/proc/self/ns/user");
        let is_own = same_file(&user, &File::open(own).tried("open", own)?).tried("stat", own)?;
        if !state.is_alive() {
            // What was opened may be of another process with the same pid.
            return Err(Error::NotRunning { id: state.id, status: Status::Stopped.as_str() });
        }
        Ok(Self { folder, user: (!is_own).then_some(user) })
    }

    /// What `path` leads to in the container; links are followed as the container would (openat2(2),
    /// `RESOLVE_IN_ROOT`). `None`: nothing is there.
    pub fn find(&self, path: &Path) -> Result<Option<Found>> {
        use rustix::fs::{Mode, OFlags, ResolveFlags};
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve);
        match opened {
            Ok(found) => {
                let stat = rustix::fs::fstat(&found).tried("stat", path)?;
                let is_folder = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
                Ok(Some(if is_folder { Found::Folder } else { Found::File }))
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).tried("find in the container", path),
        }
    }

    /// Does `act` in a child whose root is the container's and whose user is the container's root, with one end of a pipe;
    /// the caller gets the other end.
    ///
    /// The caller must have one thread only.
    pub fn run(
        &self,
        direction: Direction,
        act: impl FnOnce(File) -> io::Result<()>,
    ) -> Result<(Child, File)> {
        let pipe = || {
            let (reader, writer) = io::pipe().tried("make", "pipe")?;
            Ok((File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer))))
        };
        let (reader, writer) = pipe()?;
        let (report, mut said) = pipe()?;
        let (ours, theirs) = match direction {
            Direction::In => (writer, reader),
            Direction::Out => (reader, writer),
        };
        match clone3(0, None).tried("clone3", "child that copies")? {
            Cloned::Child => {
                let _guard = ExitOnDrop;
                drop((ours, report));
                let code = match self.enter().and_then(|()| act(theirs)) {
                    Ok(()) => 0,
                    Err(error) => {
                        // Without it the exit code says that something failed.
                        let _ = said.write_all(error.to_string().as_bytes());
                        1
                    }
                };
                exit_now(code)
            }
            Cloned::Parent { pid: _, pidfd } => Ok((Child { pidfd, report }, ours)),
        }
    }

    /// chroot(2), and where the container has a user namespace, its root's ids: what is made belongs to it.
    fn enter(&self) -> io::Result<()> {
        if let Some(user) = &self.user {
            nix::sched::setns(user.as_fd(), CloneFlags::CLONE_NEWUSER)?;
            let root = rustix::process::Gid::ROOT;
            // Refused where the map was made without privileges; then there are none to be given up.
            let _ = rustix::thread::set_thread_groups(&[]);
            rustix::thread::set_thread_res_gid(root, root, root)?;
            let root = rustix::process::Uid::ROOT;
            rustix::thread::set_thread_res_uid(root, root, root)?;
        }
        rustix::process::fchdir(&self.folder)?;
        rustix::process::chroot(".")?;
        rustix::process::umask(rustix::fs::Mode::empty());
        Ok(())
    }
}

impl Child {
    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// What it said, or that it died without a word.
    pub fn finish(mut self) -> io::Result<()> {
        let mut said = String::new();
        self.report.read_to_string(&mut said)?;
        match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ if said.is_empty() => Err(io::Error::other("the child that copies died")),
            _ => Err(io::Error::other(said)),
        }
    }
}

fn has_process(state: &State) -> bool {
    matches!(state.observed_status(), Status::Created | Status::Running | Status::Paused)
}

fn same_file(one: &File, other: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
