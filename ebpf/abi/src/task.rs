//! Clone, exec, exit.

use crate::Header;
use crate::namespace::NS_KINDS;
use core::mem::{offset_of, size_of};

/// Longest program path in an [`Exec`], with its NUL.
pub const FILENAME_LEN: usize = 128;

/// Longest arguments in an [`Exec`], bytes: a power of two.
pub const ARGV_LEN: usize = 256;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCause {
    /// It called exit.
    Exit = 0,
    /// A signal ended it.
    Signal = 1,
    /// The OOM killer ended it.
    Oom = 2,
}

/// A new process or thread. The header describes the new task.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NewTask {
    /// The new task.
    pub header: Header,
    /// The `CLONE_*` flags.
    pub flags: u64,
    /// Kernel id of the unified cgroup of the task that called clone.
    pub caller_cgroup_id: u64,
    /// Process id of the task that called clone; with `CLONE_PARENT` not the new one's parent.
    pub caller_pid: u32,
    /// Thread id of the task that called clone.
    pub caller_tid: u32,
    /// Inodes of the caller's namespaces of the kinds that this clone made; 0 where it made none.
    pub from: [u32; NS_KINDS],
    /// Inodes of the new task's namespaces that this clone made; 0 where it made none.
    pub to: [u32; NS_KINDS],
}

const _: () = assert!(size_of::<NewTask>() == 80 + 24 + 64 && offset_of!(NewTask, to) == 136);

/// A clone that the kernel refused. The header describes the caller.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CloneFailed {
    /// The calling task.
    pub header: Header,
    /// The `CLONE_*` flags; 0 when they could not be read.
    pub flags: u64,
    /// The negative errno.
    pub result: i32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<CloneFailed>() == 96);

/// A program was started.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Exec {
    /// The task, with its new name.
    pub header: Header,
    /// The thread id before: another one when a thread other than the first called exec.
    pub old_tid: u32,
    /// Bytes of `filename` in use, without the NUL.
    pub filename_len: u32,
    /// Inode number of the task's mount namespace, 0 when unknown.
    pub mount_ns: u32,
    /// Zero.
    pub reserved: u32,
    /// Path of the program, as given to exec, NUL-padded.
    pub filename: [u8; FILENAME_LEN],
    /// Bytes of all arguments, each with its NUL; more than [`ARGV_LEN`] when `argv` is cut, 0 when they are not told.
    pub argv_total: u64,
    /// The arguments, each ended by a NUL.
    pub argv: [u8; ARGV_LEN],
}

const _: () = assert!(size_of::<Exec>() == 104 + FILENAME_LEN + ARGV_LEN);

/// The last thread of a process ended.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Exit {
    /// The thread that ended last.
    pub header: Header,
    /// The wait status: exit code in bits 8–15, signal in bits 0–6, core dump in bit 7.
    pub status: u32,
    /// An [`ExitCause`].
    pub cause: u32,
    /// How long the process ran, nanoseconds; 0 when unknown.
    pub ran_ns: u64,
}

const _: () = assert!(size_of::<Exit>() == 96 && offset_of!(Exit, ran_ns) == 88);

crate::pod!(NewTask, CloneFailed, Exec, Exit);
