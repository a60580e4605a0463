//! What cgroups use, as a walk of the kernel's cgroups tells it.

use core::mem::size_of;

/// CPU time is told where there are at most so many processors: each has a sum of its own, and a walk keeps others from changing cgroups.
pub const MOST_CPUS: u32 = 32;

/// What one cgroup uses of the controllers that its hierarchy has: a cell of `USAGE`. The first cell is none of a cgroup's: its
/// `cgroup_id` is the number of cells after it that the walk has filled, and its `told` what is wanted.
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
    /// The most that it may be, pages; about `i64::MAX / page size` without a limit.
    pub memory_max_pages: u64,
    /// Swapped out, pages (cgroup v2; v1 counts both together there).
    pub swap_pages: u64,
    /// How often the limit was met (cgroup v1).
    pub memory_failcnt: u64,
    /// Events of memory: `low`, `high`, `max`, `oom`, `oom_kill`, `oom_group_kill`.
    pub memory_events: [u64; 6],
    /// Tasks.
    pub pids: u64,
    /// The most that there may be; more than any pid without a limit.
    pub pids_max: u64,
    /// Processes; threads of one count once.
    pub processes: u32,
    /// One of them, in the initial pid namespace; 0 where there is none.
    pub first_pid: u32,
    /// The inode of its network namespace.
    pub first_net: u32,
    /// Not used.
    pub pad: u32,
    /// CPU time, nanoseconds (cgroup v1, as the next two).
    pub cpu_ns: u64,
    /// That in user mode, as ticks found it; a measure for how to divide `cpu_ns`.
    pub cpu_user_ns: u64,
    /// That in the kernel, as ticks found it.
    pub cpu_system_ns: u64,
    /// The CPU quota, nanoseconds a period; `u64::MAX` without one.
    pub cpu_quota_ns: u64,
    /// The period, nanoseconds.
    pub cpu_period_ns: u64,
    /// Weight, in shares of v1: 1024 is one.
    pub cpu_shares: u64,
    /// Periods of the CPU quota.
    pub cpu_periods: u64,
    /// Those in which it was throttled.
    pub cpu_throttled: u64,
    /// Time throttled, nanoseconds.
    pub cpu_throttled_ns: u64,
}

const _: () = assert!(size_of::<CgroupUsage>() == 256);

/// Bits of [`CgroupUsage::told`].
pub mod told {
    /// `pressure_ns`
    pub const PRESSURE: u64 = 1;
    /// What is of memory.
    pub const MEMORY: u64 = 2;
    /// `pids`, `pids_max`
    pub const PIDS: u64 = 4;
    /// What is of the CPU's quota and weight.
    pub const CPU: u64 = 8;
    /// `processes` and what is of the first.
    pub const PROCESSES: u64 = 16;
    /// Nothing below it has read from a device or written to one. (Where something has, its file tells what.)
    pub const NO_IO: u64 = 32;
    /// `cpu_ns`, `cpu_user_ns`, `cpu_system_ns`
    pub const CPU_TIME: u64 = 64;
    /// All of these.
    pub const ALL: u64 = 127;
}
