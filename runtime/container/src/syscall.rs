//! System calls that neither nix nor rustix wrap: `clone3`, `mount_setattr`, `close_range`, `keyctl`.

use rustix::mount::MountAttrFlags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct clone_args` up to `cgroup`, which Linux 5.7 added.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `CLONE_INTO_CGROUP` of linux/sched.h, which does not fit clone(2)'s 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// On which side of the clone the caller is.
pub(crate) enum Cloned {
    /// In the process that called, with the new process's pid and pidfd.
    Parent {
        /// The new process.
        pid: i32,
        /// A file descriptor for it, close-on-exec.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

/// clone3(2) with its own copy of the memory, as fork does, straight into `cgroup` if given.
///
/// The caller must have one thread only: in the child, locks held by other threads would stay locked.
pub(crate) fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    let mut args = CloneArgs { flags: namespaces, exit_signal, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    clone3_with(args)
}

/// The same for a new process whose parent is the caller's, which gets the caller's exit signal (`clone(2)`, `CLONE_PARENT`). New
/// pid and user namespaces cannot be had by it.
pub(crate) fn clone3_sibling() -> io::Result<Cloned> {
    let flags = u64::from(libc::CLONE_PARENT.cast_unsigned());
    clone3_with(CloneArgs { flags, ..CloneArgs::default() })
}

fn clone3_with(mut args: CloneArgs) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    args.flags |= u64::from(libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = (&raw mut pidfd) as u64;
    // SAFETY: `args` outlives the call, its size is passed, and its only pointer is to `pidfd`. No stack is
    // given and CLONE_VM is not set, so the child runs on a copy of this stack, as after fork(2).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel stored a new descriptor there (CLONE_PIDFD), which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: i32::try_from(pid).expect("pids are below 2^22"), pidfd })
        }
    }
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// What `mount_setattr` is to change.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountChange {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
    /// The whole tree, not the top mount alone.
    pub recursive: bool,
}

impl MountChange {
    /// Nothing is written through this mount any more. Nodes of devices are opened for writing all the same; their modes and owners stay.
    pub(crate) const READ_ONLY: Self =
        Self { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, recursive: false };

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation == 0
    }
}

/// `mount_setattr(2)` on the mount whose root `mount` is. Since Linux 5.12.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, change: MountChange) -> io::Result<()> {
    mount_setattr_raw(
        mount,
        change.recursive,
        &MountAttr {
            attr_set: change.set,
            attr_clr: change.clear,
            propagation: change.propagation,
            userns_fd: 0,
        },
    )
}

/// Maps the owners of the detached `mount`, or of the tree of mounts, through the user namespace `userns`.
pub(crate) fn mount_idmap(
    mount: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits()),
        userns_fd: u64::from(userns.as_raw_fd().cast_unsigned()),
        ..MountAttr::default()
    };
    mount_setattr_raw(mount, recursive, &attr)
}

fn mount_setattr_raw(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a literal C string, `attr` is a live mount_attr and its size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives this process a session keyring of its own (`keyctl_join_session_keyring(3)` without a name), and what it executes.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    let no_name: *const libc::c_char = std::ptr::null();
    // SAFETY: a null name is allowed and asks for a new keyring; nothing else is read.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed now, so no owner loses its own.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // CLOSE_RANGE_CLOEXEC came with Linux 5.11.
        Some(libc::ENOSYS | libc::EINVAL) => close_on_exec_by_proc(first),
        _ => Err(error),
    }
}

fn close_on_exec_by_proc(first: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if u32::try_from(fd).is_ok_and(|fd| fd >= first) {
            // SAFETY: setting a descriptor flag touches no memory; a descriptor gone meanwhile gives EBADF.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// `pidfd_send_signal(2)`; any number, realtime signals included. Since Linux 5.1.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo is allowed and means an ordinary signal; the other arguments are integers.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
