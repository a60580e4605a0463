//! The path of a cgroup from its kernel id, while it exists.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `FILEID_KERNFS` (linux/exportfs.h): a file handle that is the id, since 5.5.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` with room for an id (`open_by_handle_at(2)`).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}

/// The path below `mount` of the cgroup with this id. Needs `CAP_DAC_READ_SEARCH`.
pub fn path_of(mount: &Path, id: u64) -> io::Result<String> {
    let folder = File::open(mount)?;
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
    // SAFETY: the handle is a live struct of the layout that the system call takes, with the size that it states.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            folder.as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY,
        )
    };
    let fd = match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
        _ => return Err(io::Error::last_os_error()),
    };
    let path: PathBuf = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let below = path.strip_prefix(mount).map_err(io::Error::other)?;
    Ok(format!("/{}", below.display()))
}
