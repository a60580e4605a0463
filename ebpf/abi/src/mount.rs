//! Mount operations.

use crate::Header;
use core::mem::{offset_of, size_of};

/// Longest source in a record, with its NUL.
pub const SOURCE_LEN: usize = 128;
/// Longest target in a record, with its NUL.
pub const TARGET_LEN: usize = 160;
/// Longest file system type in a record, with its NUL.
pub const FSTYPE_LEN: usize = 32;
/// Longest data in a record, with its NUL.
pub const DATA_LEN: usize = 96;

/// What was done. The first five are all the system call `mount`, told apart by its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MountOp {
    /// A new file system was mounted.
    Mount = 0,
    /// `MS_BIND`
    Bind = 1,
    /// `MS_REMOUNT`
    Remount = 2,
    /// `MS_MOVE`
    Move = 3,
    /// `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE` or `MS_UNBINDABLE`
    Propagation = 4,
    /// `umount2`
    Umount = 5,
    /// `fsopen`
    Fsopen = 6,
    /// `fsconfig`
    Fsconfig = 7,
    /// `fsmount`
    Fsmount = 8,
    /// `fspick`
    Fspick = 9,
    /// `open_tree`
    OpenTree = 10,
    /// `move_mount`
    MoveMount = 11,
    /// `mount_setattr`
    MountSetattr = 12,
    /// `pivot_root`
    PivotRoot = 13,
    /// `open_tree_attr`
    OpenTreeAttr = 14,
}

impl MountOp {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Mount,
        Self::Bind,
        Self::Remount,
        Self::Move,
        Self::Propagation,
        Self::Umount,
        Self::Fsopen,
        Self::Fsconfig,
        Self::Fsmount,
        Self::Fspick,
        Self::OpenTree,
        Self::MoveMount,
        Self::MountSetattr,
        Self::PivotRoot,
        Self::OpenTreeAttr,
    ];

    /// The name, as in the label `op`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Bind => "bind",
            Self::Remount => "remount",
            Self::Move => "move",
            Self::Propagation => "propagation",
            Self::Umount => "umount",
            Self::Fsopen => "fsopen",
            Self::Fsconfig => "fsconfig",
            Self::Fsmount => "fsmount",
            Self::Fspick => "fspick",
            Self::OpenTree => "open_tree",
            Self::MoveMount => "move_mount",
            Self::MountSetattr => "mount_setattr",
            Self::PivotRoot => "pivot_root",
            Self::OpenTreeAttr => "open_tree_attr",
        }
    }

    /// What a call of `mount` with these flags does. The order is that of `path_mount` in fs/namespace.c.
    #[inline]
    pub const fn of_mount_flags(flags: u64) -> Self {
        const MS_REMOUNT: u64 = 1 << 5;
        const MS_BIND: u64 = 1 << 12;
        const MS_MOVE: u64 = 1 << 13;
        const PROPAGATION: u64 = (1 << 17) | (1 << 18) | (1 << 19) | (1 << 20);
        if flags & MS_REMOUNT != 0 {
            Self::Remount
        } else if flags & MS_BIND != 0 {
            Self::Bind
        } else if flags & PROPAGATION != 0 {
            Self::Propagation
        } else if flags & MS_MOVE != 0 {
            Self::Move
        } else {
            Self::Mount
        }
    }
}

/// A mount operation, successful or not.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Mount {
    /// The calling task.
    pub header: Header,
    /// The flags of the call.
    pub flags: u64,
    /// Time spent in the call, nanoseconds; 0 when unknown.
    pub duration_ns: u64,
    /// What the call returned: 0, a file descriptor, or a negative errno.
    pub result: i32,
    /// A [`MountOp`].
    pub op: u32,
    /// `MOUNT_ATTR_*` that are set: of fsmount, `mount_setattr` and `open_tree_attr`.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` that are cleared.
    pub attr_clr: u64,
    /// Propagation that is set, as `MS_*`.
    pub propagation: u64,
    /// What is mounted, NUL-padded: source, first path, or file system context's key.
    pub source: [u8; SOURCE_LEN],
    /// Where, NUL-padded.
    pub target: [u8; TARGET_LEN],
    /// File system type, NUL-padded.
    pub fstype: [u8; FSTYPE_LEN],
    /// Options of the file system, NUL-padded: the data of mount, the value of fsconfig.
    pub data: [u8; DATA_LEN],
}

const _: () = assert!(size_of::<Mount>() == 128 + SOURCE_LEN + TARGET_LEN + FSTYPE_LEN + DATA_LEN);
const _: () = assert!(offset_of!(Mount, source) == 128);

crate::pod!(Mount);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_mount_choose_the_operation_as_the_kernel_does() {
        for (flags, expected) in [
            (0, MountOp::Mount),
            (1, MountOp::Mount),
            (4096, MountOp::Bind),
            (4096 | 16384, MountOp::Bind),
            (4096 | 32, MountOp::Remount),
            (32, MountOp::Remount),
            (8192, MountOp::Move),
            (1 << 18 | 16384, MountOp::Propagation),
        ] {
            assert_eq!(MountOp::of_mount_flags(flags), expected, "{flags:#x}");
        }
    }

    #[test]
    fn numbers_are_indices() {
        for (index, op) in MountOp::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, index);
        }
    }
}
