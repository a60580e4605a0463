//! Numbers of tracepoints, from tracefs.
//!
//! Where the host has not mounted tracefs, a mount of our own is made that is attached to no path: nobody else
//! sees it, and it goes away with its descriptor.

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TRACEFS_MAGIC, statfs};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

// linux/mount.h; libc does not have them.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// An open root directory of tracefs.
#[derive(Debug)]
pub struct Tracefs {
    root: OwnedFd,
}

impl Tracefs {
    /// Opens the host's tracefs, or one of our own.
    pub fn open() -> io::Result<Self> {
        for path in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            let is_tracefs = statfs(path).is_ok_and(|fs| fs.filesystem_type() == TRACEFS_MAGIC);
            if is_tracefs {
                return Ok(Self { root: File::open(Path::new(path))?.into() });
            }
        }
        detached_mount(c"tracefs").map(|root| Self { root })
    }

    /// The number of the event `category`/`name`, for `perf_event_open`.
    pub fn event_id(&self, category: &str, name: &str) -> io::Result<u64> {
        let path = format!("events/{category}/{name}/id");
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.root, path.as_str(), flags, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        text.trim().parse().map_err(io::Error::other)
    }
}

/// Mounts a file system on no path (fsopen(2), since 5.2) and gives its root.
fn detached_mount(fstype: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })?;
    let null: *const libc::c_char = std::ptr::null();
    // SAFETY: FSCONFIG_CMD_CREATE takes neither key nor value.
    let created = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0)
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is a file system context, the rest are flags.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

/// The descriptor that a system call returned.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
