//! A process beside the runtime that ends with it, however that ends: it waits at a pipe whose other end the runtime holds.
//! (`PR_SET_PDEATHSIG` would not do for its children: the kernel forgets it where one enters a user namespace.)

use crate::error::{Result, Tried};
use crate::syscall::{Cloned, clone3};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// It lives as long as this, and is waited for.
#[derive(Debug)]
pub(crate) struct Beside {
    /// Held open; its end tells the process that nobody needs it any more.
    life: Option<OwnedFd>,
    process: OwnedFd,
}

impl Beside {
    /// Has `work` done there, with the end of the pipe, which becomes readable when it is to end, and of the runtime's
    /// descriptors `kept` alone. `what` it is, for errors.
    ///
    /// The caller must have one thread only.
    pub(crate) fn start(
        what: &'static str,
        kept: &[RawFd],
        work: impl FnOnce(&OwnedFd) -> i32,
    ) -> Result<Self> {
        let (end, life) = pipe_with(PipeFlags::CLOEXEC).tried("make", "pipe")?;
        match clone3(0, None).tried("clone3", what)? {
            Cloned::Child => {
                let kept = kept.iter().copied().chain([end.as_raw_fd()]).collect();
                let code = if seclude(kept).is_ok() { work(&end) } else { 1 };
                std::process::exit(code)
            }
            Cloned::Parent { pid: _, pidfd } => Ok(Self { life: Some(life), process: pidfd }),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.life.take());
        let _ = waitid(Id::PIDFd(self.process.as_fd()), WaitPidFlag::WEXITED);
    }
}

/// Leaves everything of the runtime's but the descriptors `kept`: its files, locks, terminal and process group.
fn seclude(mut kept: Vec<i32>) -> io::Result<()> {
    nix::unistd::setsid()?;
    // What goes into the background there comes back here.
    nix::sys::prctl::set_child_subreaper(true)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for standard in 0..3 {
        // SAFETY: both are descriptors; what was open there is nobody's any more in this process.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Before its descriptor is closed by number.
    drop(null);
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().map(i32::cast_unsigned).chain([u32::MAX]) {
        if fd > first {
            let last = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: none of these is used in this process, which never returns to who opened them.
            unsafe { libc::close_range(first, last, 0) };
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}
