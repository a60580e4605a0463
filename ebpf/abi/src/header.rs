//! What every record begins with.

use core::mem::{offset_of, size_of};

/// What a record is about; the struct that carries it is named in each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RecordType {
    /// [`crate::NewTask`]
    NewTask = 1,
    /// [`crate::Exec`]
    Exec = 2,
    /// [`crate::Exit`]
    Exit = 3,
    /// [`crate::CloneFailed`]
    CloneFailed = 4,
    /// [`crate::NsChange`], by unshare or setns
    NsChange = 5,
    /// [`crate::Mount`]
    Mount = 6,
    /// [`crate::Reclaim`]
    Reclaim = 7,
    /// [`crate::Oom`]
    Oom = 8,
    /// [`crate::CgroupEvent`]
    CgroupMkdir = 9,
    /// [`crate::CgroupEvent`]
    CgroupRmdir = 10,
    /// [`crate::CgroupAttach`]
    CgroupAttach = 11,
    /// [`crate::Guard`]
    Guard = 12,
}

impl RecordType {
    /// The type with this number, unless no such type exists.
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::NewTask,
            2 => Self::Exec,
            3 => Self::Exit,
            4 => Self::CloneFailed,
            5 => Self::NsChange,
            6 => Self::Mount,
            7 => Self::Reclaim,
            8 => Self::Oom,
            9 => Self::CgroupMkdir,
            10 => Self::CgroupRmdir,
            11 => Self::CgroupAttach,
            12 => Self::Guard,
            _ => return None,
        })
    }
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// A string of the record was longer than its field.
    pub const TRUNCATED: u32 = 1;
    /// A string of the record could not be read from the task's memory.
    pub const UNREADABLE: u32 = 1 << 1;
}

/// When, where and by whom. "The task" is the task the record is about: the new one of a clone, the victim
/// of an OOM kill, else the one that ran.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Header {
    /// Bytes of the whole record.
    pub size: u16,
    /// A [`RecordType`].
    pub record_type: u16,
    /// The CPU that wrote it.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Kernel id of the task's cgroup in the unified hierarchy.
    pub cgroup_id: u64,
    /// Kernel id of the task's cgroup in the v1 memory hierarchy; 0 where memory is in the unified one.
    pub memory_cgroup_id: u64,
    /// When the process started, `CLOCK_BOOTTIME`, nanoseconds; 0 when unknown.
    pub start_ns: u64,
    /// Process id (the kernel's tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread id (the kernel's pid) in the initial pid namespace.
    pub tid: u32,
    /// Process id of the parent in the initial pid namespace.
    pub ppid: u32,
    /// Thread id in the task's own pid namespace.
    pub ns_pid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// The task's name, NUL-padded.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Header>() == 80);
const _: () = assert!(offset_of!(Header, mono_ns) == 8 && offset_of!(Header, comm) == 64);

crate::pod!(Header);
