//! Memory limits: reclaim and OOM kills.

use crate::Header;
use core::mem::{offset_of, size_of};

/// Level of an OOM kill that no cgroup's limit caused.
pub const LEVEL_GLOBAL: u8 = 255;
/// Level when it is not known whose limit it was.
pub const LEVEL_UNKNOWN: u8 = 254;

/// [`Reclaim::limit`]: the hard limit.
pub const LIMIT_MAX: u32 = 0;
/// [`Reclaim::limit`]: `memory.high`, at which a task is throttled.
pub const LIMIT_HIGH: u32 = 1;

/// A task stood in reclaim because of a memory limit.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Reclaim {
    /// The task that stood.
    pub header: Header,
    /// How long, nanoseconds.
    pub duration_ns: u64,
    /// Pages that were reclaimed.
    pub reclaimed_pages: u64,
    /// Kernel id of the cgroup whose limit it was; 0 when unknown.
    pub limit_cgroup_id: u64,
    /// That limit, pages; `u64::MAX` when unknown.
    pub limit_pages: u64,
    /// Usage below that limit at the end, pages.
    pub usage_pages: u64,
    /// How many levels above the task's cgroup the limit stands.
    pub level: u32,
    /// Which limit: a `LIMIT_*`.
    pub limit: u32,
}

const _: () = assert!(size_of::<Reclaim>() == 80 + 48 && offset_of!(Reclaim, level) == 120);

/// A task was chosen by the OOM killer. The header describes the victim.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Oom {
    /// The victim.
    pub header: Header,
    /// Kernel id of the cgroup whose limit it was; 0 when unknown or global.
    pub limit_cgroup_id: u64,
    /// That limit, pages; `u64::MAX` when unknown or global.
    pub limit_pages: u64,
    /// Usage below that limit, pages.
    pub usage_pages: u64,
    /// Resident memory of the victim, pages; 0 when unknown. The kernel keeps it per CPU and adds up now and then, so it may be
    /// a few dozen pages per CPU off.
    pub victim_pages: u64,
    /// Process id of the task that ran when the victim was chosen.
    pub trigger_pid: u32,
    /// How many levels above the victim's cgroup the limit stands, or a `LEVEL_*`.
    pub level: u32,
}

const _: () = assert!(size_of::<Oom>() == 80 + 40 && offset_of!(Oom, level) == 116);

crate::pod!(Reclaim, Oom);
