//! Cgroups: made, removed, entered.

use crate::Header;
use core::mem::{offset_of, size_of};

/// Longest path in a record, with its NUL.
pub const PATH_LEN: usize = 240;

/// A cgroup was made or removed. The header describes the task that did it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CgroupEvent {
    /// The task that did it.
    pub header: Header,
    /// Kernel id of the cgroup.
    pub id: u64,
    /// Number of the hierarchy, as in `/proc/cgroups`; 0 is the unified one.
    pub hierarchy: u32,
    /// Depth below the root.
    pub level: u32,
    /// Path below the hierarchy's root, NUL-padded.
    pub path: [u8; PATH_LEN],
}

const _: () =
    assert!(size_of::<CgroupEvent>() == 96 + PATH_LEN && offset_of!(CgroupEvent, path) == 96);

/// A task was moved into a cgroup. The header describes the moved task, with the ids it has after the move.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CgroupAttach {
    /// The moved task.
    pub header: Header,
    /// Kernel id of the cgroup it was moved to.
    pub id: u64,
    /// Number of the hierarchy, as in `/proc/cgroups`; 0 is the unified one.
    pub hierarchy: u32,
    /// Process id of the task that moved it.
    pub mover_pid: u32,
    /// Path below the hierarchy's root, NUL-padded.
    pub path: [u8; PATH_LEN],
}

const _: () = assert!(size_of::<CgroupAttach>() == 96 + PATH_LEN);

/// Key of the map `CGROUPS`: ids are unique within a hierarchy only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CgroupKey {
    /// Kernel id of the cgroup.
    pub id: u64,
    /// Number of the hierarchy; 0 is the unified one.
    pub hierarchy: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<CgroupKey>() == 16);

/// Value of the map `CGROUPS`: where a cgroup was made. It stays when a record in the ring buffer is lost, so
/// that a short-lived container keeps its name.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CgroupInfo {
    /// Depth below the root.
    pub level: u32,
    /// Zero.
    pub pad: u32,
    /// Path below the hierarchy's root, NUL-padded.
    pub path: [u8; PATH_LEN],
}

const _: () = assert!(size_of::<CgroupInfo>() == 8 + PATH_LEN);

crate::pod!(CgroupEvent, CgroupAttach, CgroupKey, CgroupInfo);
