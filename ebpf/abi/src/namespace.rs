//! Namespaces: kinds, and the record of an unshare or a setns.

use crate::Header;
use core::mem::{offset_of, size_of};

/// The kinds of namespaces. The number is also the index into [`NsChange::from`] and [`NsChange::to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum NsKind {
    /// Mounts.
    Mnt = 0,
    /// Network.
    Net = 1,
    /// User and group ids.
    User = 2,
    /// Process ids (the namespace for children).
    Pid = 3,
    /// System V IPC and POSIX message queues.
    Ipc = 4,
    /// Host and domain name.
    Uts = 5,
    /// Cgroup root.
    Cgroup = 6,
    /// Clocks (the namespace for children).
    Time = 7,
}

/// Number of kinds.
pub const NS_KINDS: usize = 8;

impl NsKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; NS_KINDS] = [
        Self::Mnt,
        Self::Net,
        Self::User,
        Self::Pid,
        Self::Ipc,
        Self::Uts,
        Self::Cgroup,
        Self::Time,
    ];

    /// The `CLONE_NEW*` flag (linux/sched.h).
    #[inline]
    pub const fn clone_flag(self) -> u64 {
        match self {
            Self::Mnt => 0x0002_0000,
            Self::Net => 0x4000_0000,
            Self::User => 0x1000_0000,
            Self::Pid => 0x2000_0000,
            Self::Ipc => 0x0800_0000,
            Self::Uts => 0x0400_0000,
            Self::Cgroup => 0x0200_0000,
            Self::Time => 0x80,
        }
    }

    /// The name, as in `/proc/PID/ns`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Net => "net",
            Self::User => "user",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }
}

/// All `CLONE_NEW*` flags of a clone. `CLONE_NEWTIME` is not among them: the low byte of clone's flags is
/// the exit signal, and only `clone3` and `unshare` take it.
pub const CLONE_NS_FLAGS: u64 = 0x7e02_0000;

/// `CLONE_NEWTIME`.
pub const CLONE_NEWTIME: u64 = 0x80;

/// The call that made or entered a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Via {
    /// clone, clone3
    Clone = 0,
    /// unshare
    Unshare = 1,
    /// setns
    Setns = 2,
}

/// Whose namespace a task entered, as far as the kernel side can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NsTarget {
    /// The one it was in already.
    Own = 0,
    /// An initial namespace.
    Host = 1,
    /// Neither: user space knows, or nobody.
    Other = 2,
}

/// An unshare or a setns, successful or not.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NsChange {
    /// The calling task.
    pub header: Header,
    /// The flags of unshare, or the `nstype` of setns.
    pub flags: u64,
    /// Time spent in the call, nanoseconds; 0 when unknown.
    pub duration_ns: u64,
    /// What the call returned: 0 or a negative errno.
    pub result: i32,
    /// The namespaces concerned: bit `n` stands for the [`NsKind`] with number `n`.
    pub kinds: u32,
    /// A [`Via`].
    pub via: u32,
    /// The file descriptor given to setns, else -1.
    pub fd: i32,
    /// Inodes of the namespaces before the call; 0 where not concerned or unknown.
    pub from: [u32; NS_KINDS],
    /// Inodes of the namespaces after the call; for a failed setns the one that was asked for.
    pub to: [u32; NS_KINDS],
}

const _: () = assert!(size_of::<NsChange>() == 80 + 32 + 64);
const _: () = assert!(offset_of!(NsChange, result) == 96 && offset_of!(NsChange, to) == 144);

crate::pod!(NsChange);
