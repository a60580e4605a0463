//! What cgroups use, as a walk of the kernel's cgroups tells it.

use core::mem::size_of;

/// What one cgroup uses of the controllers that its hierarchy has: a cell of `USAGE`. The first cell is none of a cgroup's: its
/// `cgroup_id` is the number of cells after it that the walk has filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CgroupUsage {
    /// Its id in its hierarchy.
    pub cgroup_id: u64,
    /// What of the following is told: the bits of [`told`].
    pub told: u64,
    /// Time in which some tasks waited and in which all did, for devices, memory and CPUs: `some` and `full` of each, nanoseconds.
    pub pressure_ns: [u64; 6],
    /// Memory in use, pages.
    pub memory_pages: u64,
    /// The most that it has been, pages.
    pub memory_peak_pages: u64,
    /// How often the limit was met (cgroup v1).
    pub memory_failcnt: u64,
    /// Events of memory: `low`, `high`, `max`, `oom`, `oom_kill`, `oom_group_kill`.
    pub memory_events: [u64; 6],
    /// Tasks.
    pub pids: u64,
    /// Periods of the CPU quota.
    pub cpu_periods: u64,
    /// Those in which it was throttled.
    pub cpu_throttled: u64,
    /// Time throttled, nanoseconds.
    pub cpu_throttled_ns: u64,
}

const _: () = assert!(size_of::<CgroupUsage>() == 168);

/// Bits of [`CgroupUsage::told`].
pub mod told {
    /// `pressure_ns`
    pub const PRESSURE: u64 = 1;
    /// What is of memory.
    pub const MEMORY: u64 = 2;
    /// `pids`
    pub const PIDS: u64 = 4;
    /// What is of the CPU quota.
    pub const CPU: u64 = 8;
}
